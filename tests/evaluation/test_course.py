"""The course of training: gradients, kernels and distances against plain versions."""

import pytest
import torch
from torch.nn import functional as F

from lthbench.evaluation import course
from lthbench.models import ModelSettings, create
from lthbench.training.checkpoint import Checkpoint, moved

NETS = {
    "fully connected": ModelSettings.of("lenet_300_100", {}, (1, 8, 8), 10),
    "with BatchNorm": ModelSettings.of("resnet_20", {"width": 4}, (3, 8, 8), 3),
}


@pytest.fixture(params=NETS)
def case(request):
    """A network with random weights, a mask over half of one layer, images and labels."""
    torch.manual_seed(0)
    model = NETS[request.param]
    net = create(model)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p) * 0.1 + 0.05)
    name = next(n for n, p in net.named_parameters() if p.dim() > 1)
    mask = {name: torch.rand(dict(net.named_parameters())[name].shape) < 0.5}
    with torch.no_grad():
        dict(net.named_parameters())[name].mul_(mask[name])
    return model, net, mask, torch.randn(5, *model.shape), torch.randint(model.classes, (5,))


def flat(net, mask, value):
    """The gradient of a number in what is trained, in one vector."""
    grads = torch.autograd.grad(value, list(net.parameters()), retain_graph=True)
    named = zip((n for n, _ in net.named_parameters()), grads)
    return torch.cat([(g * mask.get(n, torch.ones(()))).flatten() for n, g in named])


def test_the_gradient_is_that_of_what_is_trained(case):
    _, net, mask, x, y = case
    loss, norm = course.gradient(net, mask, x, y)
    net.train()
    mean = F.cross_entropy(net(x), y)
    assert loss == pytest.approx(mean.item(), rel=1e-6)
    assert norm == pytest.approx(float(flat(net, mask, mean).norm()), rel=1e-4)  # float32


def test_the_flow_is_what_a_small_step_gains(case):
    """(L(w) - L(w - a g)) / a for a small a, in float64."""
    _, net, mask, x, y = case
    net, x = net.double(), x.double()
    loss, norm = course.gradient(net, mask, x, y)
    named, a = dict(net.named_parameters()), 1e-7
    grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(named.values()))
    with torch.no_grad():
        for (name, p), g in zip(named.items(), grads):
            p -= a * g * mask.get(name, 1.0)
    assert (loss - course.gradient(net, mask, x, y)[0]) / a == pytest.approx(norm**2, rel=1e-4)


def test_the_kernel_is_that_of_one_gradient_at_a_time(case):
    _, net, mask, x, _ = case
    found = course.kernel(net, mask, x)
    net.train()
    logits = net(x)
    each = [[flat(net, mask, logits[i, c]) for c in range(logits.shape[1])] for i in range(len(x))]
    naive = torch.tensor([[sum(float(a @ b) for a, b in zip(p, q)) for q in each] for p in each])
    assert torch.allclose(found.float(), naive, rtol=1e-3, atol=1e-4 * float(naive.abs().max()))
    assert torch.linalg.eigvalsh(found).min() > -1e-4 * found.norm()


def test_kernels_differ_in_direction_only():
    one = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    assert course.kernel_distance(one, 5 * one) == pytest.approx(0, abs=1e-7)
    assert course.kernel_distance(torch.eye(2), torch.tensor([[0.0, 1.0], [1.0, 0.0]])) == 1


def test_dropout_draws_nothing():
    model = ModelSettings.of("conv_2", {"dropout": 0.5}, (3, 32, 32), 10)
    net, x = create(model), torch.randn(4, 3, 32, 32)
    y = torch.arange(4)
    assert course.gradient(net, {}, x, y) == course.gradient(net, {}, x, y)


def test_how_far_states_and_masks_are_apart(case):
    model, net, mask, _, _ = case
    one = Checkpoint.of(model, net, mask)
    assert moved(one.weights, one.weights) == (0, 0)
    assert course.changed(one, one) == 0
    double = Checkpoint(model, {k: v * 2 if v.is_floating_point() else v for k, v in one.weights.items()}, mask)
    floats = {k for k, v in one.weights.items() if v.is_floating_point()}
    ends = ({k: state.weights[k] for k in floats} for state in (one, double))
    assert moved(*ends)[1] == pytest.approx(1)
    (name, kept), *_ = mask.items()
    other = Checkpoint(model, one.weights, {name: ~kept})
    assert course.changed(one, other) == 1
    assert course.changed(Checkpoint(model, one.weights), one) == pytest.approx(float((~kept).float().mean()))
