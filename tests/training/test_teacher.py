"""Distillation: the loss against its definition, and what it does to a training run."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pruning.in_training import LENET, RECIPE, SEED, start, stream
from torch import nn
from torch.nn import functional as F

from lthbench.base.errors import UserError
from lthbench.models.initialise import fresh
from lthbench.training.loop import Trajectory
from lthbench.training.recipe import Distill
from lthbench.training.teacher import Teacher


class Says(nn.Module):
    """A network that predicts what it is told."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits


def naive(loss, pupil, teacher, weight, temperature):
    """Sample by sample, class by class: T^2 times the mean of sum p log(p / q)."""

    def softmax(row):
        top = max(row)
        shares = [math.exp((value - top) / temperature) for value in row]
        return [share / sum(shares) for share in shares]

    total = 0.0
    for ours, theirs in zip(pupil.tolist(), teacher.tolist()):
        total += sum(p * math.log(p / q) for p, q in zip(softmax(theirs), softmax(ours)))
    return (1 - weight) * float(loss) + weight * temperature**2 * total / len(pupil)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0), st.floats(0.5, 20.0))
def test_the_loss_is_its_definition(seed, weight, temperature):
    draws = torch.Generator().manual_seed(seed)
    pupil, theirs = (3 * torch.randn(5, 4, generator=draws, dtype=torch.float64) for _ in range(2))
    loss = F.cross_entropy(pupil, torch.tensor([0, 3, 1, 1, 2]))
    made = Teacher(Says(theirs), Distill(weight, temperature))(loss, pupil, torch.zeros(5))
    assert math.isclose(float(made), naive(loss, pupil, theirs, weight, temperature), rel_tol=1e-9, abs_tol=1e-12)


@given(st.floats(0.5, 20.0))
def test_who_agrees_with_the_teacher_learns_nothing_from_it(temperature):
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    teacher = Teacher(Says(logits.detach()), Distill(1.0, temperature))
    made = teacher(F.cross_entropy(logits, torch.tensor([0, 3, 1, 1, 2])), logits, torch.zeros(5))
    (grad,) = torch.autograd.grad(made, logits)
    assert abs(made.item()) < 1e-12 and float(grad.abs().max()) < 1e-12


def test_a_run_with_a_teacher_is_the_hand_written_loop():
    teacher = fresh(LENET, "glorot_normal", SEED + 1, 0)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    run = Trajectory(start(), {}, RECIPE, stream(), 0, teacher=Teacher(teacher, Distill(0.7, 3.0)))
    run.run(5)
    net, batches = start().network(), stream()
    how = {"lr": 1.0, "momentum": RECIPE.momentum, "weight_decay": RECIPE.weight_decay}
    optimizer = torch.optim.SGD(net.parameters(), **how)
    for step in range(5):
        optimizer.param_groups[0]["lr"] = RECIPE.lr_at(step)
        x, y = batches.batch(step)
        logits, p = net(x), (teacher(x).detach() / 3).softmax(1)
        kl = (p * (p.log() - (logits / 3).log_softmax(1))).sum() / len(y)
        optimizer.zero_grad()
        (0.3 * F.cross_entropy(logits, y) + 0.7 * 9 * kl).backward()
        optimizer.step()
    for one, other in zip(run.net.parameters(), net.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ((0.0, 2.0), "train.distill.weight: 0.0 is not in 0 < w <= 1"),
        ((1.1, 2.0), "train.distill.weight: 1.1 is not in 0 < w <= 1"),
        ((0.5, 0.0), "train.distill.temperature: 0.0 is not positive"),
    ],
)
def test_what_means_nothing_is_refused(said, line):
    with pytest.raises(UserError, match=f"^{line}$"):
        Distill(*said)
