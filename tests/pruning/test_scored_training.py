"""Movement pruning, L0, edge-popup and supermasks against autograd and torch.optim, and what their papers say of them.

The oracle holds weights and scores as parameters of its own, writes each gate as a formula that autograd follows
straight through, and steps torch's optimisers; nothing of the suite's is in it but batches, counts and draws.
"""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from pruning.in_training import LENET, RECIPE, RESNET, SAID, SCORED, begun, draws, equal, sparsify, start, stream
from torch.func import functional_call
from torch.nn import functional as F

from lthbench.pruning.allocation import largest_remainder
from lthbench.pruning.density import Density
from lthbench.pruning.dynamics import METHODS, left

FACTOR = RECIPE.schedule.factor


def top(scores, density):
    """The largest scores of each layer, by sorting; equal ones: the first."""
    whole = Density(density).kept(sum(s.numel() for s in scores.values()))
    counts = largest_remainder({n: s.numel() for n, s in scores.items()}, whole)
    made = {}
    for name, score in scores.items():
        values = score.detach().flatten().tolist()
        best = sorted(range(len(values)), key=lambda i: (-values[i], i))[: counts[name]]
        mask = torch.zeros(len(values))
        mask[best] = 1.0
        made[name] = mask.view(score.shape)
    return made


def straight(hard, soft):
    """The value of `hard`, the derivative of `soft`."""
    return hard + soft - soft.detach()


class Oracle:
    """One run of a method, by the book."""

    def __init__(self, name, density="1/4", model=LENET, recipe=RECIPE):
        self.name, self.said, self.density, self.recipe = name, SAID[name], Fraction(density), recipe
        self.net = start(model).network().train()
        self.weights = dict(self.net.named_parameters())
        layers = [n for n, p in self.weights.items() if p.dim() > 1]
        self.prunable = {n: self.weights[n] for n in layers}
        with torch.no_grad():
            self.scores = {n: torch.nn.Parameter(s) for n, s in self.first_scores().items()}
            if METHODS[name].frozen:
                for n, w in self.prunable.items():
                    size = w.std(correction=0) if name == "supermask" else math.sqrt(2 / w[0].numel() / self.share(n))
                    w.copy_(w.sign() * size)
        scores = list(self.scores.values())
        if self.said["score_optimizer"] == "adam":
            self.of_scores = torch.optim.Adam(scores, lr=0.0)
        else:
            self.of_scores = torch.optim.SGD(
                scores, lr=0.0, momentum=0.9, weight_decay=self.said.get("score_decay", 0.0)
            )
        self.of_weights = torch.optim.SGD(
            self.net.parameters(), lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )

    def share(self, layer):
        return float(top({n: torch.zeros_like(w) for n, w in self.prunable.items()}, self.density)[layer].mean())

    def first_scores(self):
        if self.name != "edge_popup":
            return {n: torch.full_like(w, self.said.get("bias", 0.0)) for n, w in self.prunable.items()}
        chance = draws("score")
        return {
            n: (2 * torch.rand(w.shape, generator=chance) - 1) / math.sqrt(w[0].numel())
            for n, w in self.prunable.items()
        }

    def gates(self, step, final=False):
        """Gates by layer, as functions of the scores; and the penalty."""
        scores, said, n = self.scores, self.said, len(self.scores)
        risen = float(1 - left(step, said.get("begin", 0), said.get("end", 0)))
        if self.name == "movement":
            kept = top(scores, self.density + (1 - self.density) * left(step, said["begin"], said["end"]))
            return {k: straight(kept[k], s) for k, s in scores.items()}, 0.0
        if self.name == "soft_movement":
            kept = {}
            for k, s in scores.items():
                kept[k] = (torch.sigmoid(s) > said["threshold"] * risen).float()
                least = math.ceil(said["floor"] * s.numel())
                if kept[k].sum() < least:
                    kept[k] = top({k: s}, Fraction(least, s.numel()))[k]
            penalty = said["penalty"] * risen * sum(torch.sigmoid(s).mean() for s in scores.values()) / n
            return {k: straight(kept[k], s) for k, s in scores.items()}, penalty
        if self.name == "edge_popup":
            kept = top({k: s.abs() for k, s in scores.items()}, self.density)
            return {k: straight(kept[k], s.abs()) for k, s in scores.items()}, 0.0
        chance = draws("mask", step)
        if self.name == "supermask":
            made = {}
            ranked = top(scores, self.density)
            for k, s in scores.items():
                p = torch.sigmoid(s)
                mask = straight((torch.rand(s.shape, generator=chance) < p).float(), p)
                mask = ranked[k] if final else mask
                made[k] = mask * (s.numel() / mask.sum())
            return made, 0.0
        made = {}
        for k, s in scores.items():
            u = torch.rand(s.shape, generator=chance).clamp(1e-4, 1 - 1e-4)
            concrete = torch.sigmoid((torch.log(u) - torch.log(1 - u) + s) / (2 / 3))
            made[k] = torch.clamp((torch.sigmoid(s) if final else concrete) * 1.2 - 0.1, 0, 1)
        open_ = sum(torch.sigmoid(s - 2 / 3 * math.log(0.1 / 1.1)).mean() for s in scores.values()) / n
        return made, said["penalty"] * open_

    def step(self, step):
        x, y = stream().batch(step)
        gates, penalty = self.gates(step)
        seen = {n: w * gates[n] if n in gates else w for n, w in self.weights.items()}
        loss = F.cross_entropy(functional_call(self.net, seen, (x,)), y) + penalty
        self.of_scores.zero_grad()
        self.of_weights.zero_grad()
        loss.backward()
        self.of_scores.param_groups[0]["lr"] = self.said["score_lr"] * FACTOR(step)
        self.of_scores.step()
        if not METHODS[self.name].frozen:
            self.of_weights.param_groups[0]["lr"] = self.recipe.lr * FACTOR(step)
            self.of_weights.step()

    def final(self, step):
        gates, _ = self.gates(step, final=True)
        return {n: (w * gates[n] if n in gates else w).detach() for n, w in self.weights.items()}, gates


@pytest.mark.parametrize("model", [LENET, RESNET], ids=["lenet", "resnet"])
@pytest.mark.parametrize("name", SCORED)
def test_a_run_is_that_of_autograd(name, model):
    """Three steps on: weights, scores, and of the handed-over mask all but what lies at the threshold."""
    run, oracle = begun(sparsify(name), model=model), Oracle(name, model=model)
    for step in range(6):
        run.run(step + 1)
        oracle.step(step)
    expected, gates = oracle.final(6)
    made, moments = run.checkpoint(), run.moments()
    differ = 0
    for n, score in oracle.scores.items():
        scale = float((score - score.mean()).detach().abs().max()) + 1e-6
        torch.testing.assert_close(moments[f"x/score/{n}"], score.detach(), rtol=1e-3, atol=2e-2 * scale)
        torch.testing.assert_close(moments[f"x/dense/{n}"], oracle.weights[n].detach(), rtol=1e-3, atol=1e-4)
        wrong = made.mask[n] != (gates[n].detach() != 0)
        differ += int(wrong.sum())
        torch.testing.assert_close(made.weights[n][~wrong], expected[n][~wrong], rtol=1e-3, atol=1e-3)
    total = sum(s.numel() for s in oracle.scores.values())
    assert differ <= 0.005 * total
    if name != "l0":
        assert 0 < sum(int(kept.sum()) for kept in made.mask.values()) < total
    rest = {n: w for n, w in made.weights.items() if n in oracle.weights and n not in oracle.scores}
    for n, w in rest.items():
        torch.testing.assert_close(w, oracle.weights[n].detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SCORED)
def test_gradients_are_those_of_autograd_to_the_last_digits(name):
    """One step, from the same scores: dL/dS and, where weights are trained, dL/dW."""
    run, oracle = begun(sparsify(name)), Oracle(name)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for ours, theirs in zip(run.dynamics.scores, oracle.scores.values()):
            theirs.copy_(torch.randn(theirs.shape, generator=g))
            ours.copy_(theirs)
    step = 7
    x, y = stream().batch(step)
    run.net.train()
    run.dynamics.before(step)
    F.cross_entropy(run.net(x), y).backward()
    run.dynamics.backward(step)
    gates, penalty = oracle.gates(step)
    seen = {n: w * gates[n] if n in gates else w for n, w in oracle.weights.items()}
    (F.cross_entropy(functional_call(oracle.net, seen, (x,)), y) + penalty).backward()
    for ours, (n, theirs) in zip(run.dynamics.scores, oracle.scores.items()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
        if not METHODS[name].frozen:
            torch.testing.assert_close(dict(run.net.named_parameters())[n].grad, oracle.weights[n].grad)


# ---- what the papers say


def test_straight_through_gradients_are_products():
    """METHODS O50, exactly: dL/dS = dL/dW' W and dL/dW = dL/dW' M."""
    run = begun(sparsify("movement"))
    run.run(7)
    x, y = stream().batch(7)
    run.dynamics.before(7)
    parameters = dict(run.net.named_parameters())
    run.net.zero_grad()
    F.cross_entropy(run.net(x), y).backward()
    through = {n: parameters[n].grad.clone() for n in run.mask}
    run.dynamics.backward(7)
    for n, dense, gate, score in zip(run.mask, run.dynamics.dense, run.dynamics.gates, run.dynamics.scores):
        assert torch.equal(score.grad, through[n] * dense)
        assert torch.equal(parameters[n].grad, through[n] * gate)
        assert torch.equal(parameters[n].data, dense)


def test_movement_keeps_what_the_schedule_says():
    run = begun(sparsify("movement", "1/10"))
    for step in range(1, 13):
        run.run(step)
        density = Fraction(1, 10) + Fraction(9, 10) * left(step, 2, 9)
        assert sum(int(kept.sum()) for kept in run.checkpoint().mask.values()) == Density(density).kept(2320)


def test_what_movement_pruned_may_come_back():
    run = begun(sparsify("movement", "1/2", end=3))
    masks = []
    for step in range(4, 14):
        run.run(step)
        masks.append({n: kept.clone() for n, kept in run.checkpoint().mask.items()})
    assert any((later[n] & ~earlier[n]).any() for earlier, later in pairwise(masks) for n in later)


def test_soft_movement_rises_and_keeps_a_floor():
    run = begun(sparsify("soft_movement", threshold=0.999, floor=0.01))
    assert [run.dynamics.risen(t) for t in (0, 2, 9, 13)] == [0, 0, 1, 1]
    run.run(12)
    for kept in run.checkpoint().mask.values():
        assert int(kept.sum()) == math.ceil(0.01 * kept.numel())


def test_without_a_threshold_nothing_goes():
    run = begun(sparsify("soft_movement", begin=11, end=20))
    run.run(10)
    assert all(kept.all() for kept in run.checkpoint().mask.values())


def test_edge_popup_trains_scores_alone():
    """METHODS O39."""
    run = begun(sparsify("edge_popup"), model=RESNET)
    before = {n: p.detach().clone() for n, p in run.net.named_parameters()}
    dense = [t.clone() for t in run.dynamics.dense]
    run.run(10)
    made = run.checkpoint()
    assert all(torch.equal(*pair) for pair in zip(dense, run.dynamics.dense))
    assert equal(
        {n: made.weights[n] for n in before if n not in made.mask},
        {n: w for n, w in before.items() if n not in made.mask},
    )
    whole = Density(Fraction(1, 4)).kept(sum(t.numel() for t in dense))
    counts = largest_remainder({n: kept.numel() for n, kept in made.mask.items()}, whole)
    assert {n: int(kept.sum()) for n, kept in made.mask.items()} == counts


@pytest.mark.parametrize("scaled", [True, False])
def test_edge_popup_has_constants_of_the_layers_scale(scaled):
    run = begun(sparsify("edge_popup", scaled=scaled))
    plain = begun(sparsify("edge_popup", constant=False, scaled=False))
    for (n, kept), constant, weight in zip(run.mask.items(), run.dynamics.dense, plain.dynamics.dense):
        share = int(kept.sum()) / kept.numel() if scaled else 1.0
        torch.testing.assert_close(constant.abs(), torch.full_like(constant, (2 / kept.shape[1] / share) ** 0.5))
        assert torch.equal(constant.sign(), weight.sign())
        assert torch.equal(weight, start().weights[n])


def test_supermasks_are_drawn_by_their_probabilities():
    """METHODS O40: within five standard deviations, of each layer and of logits far apart."""
    run, times = begun(sparsify("supermask")), 400
    with torch.no_grad():
        for score in run.dynamics.scores:
            score.copy_(torch.linspace(-3, 3, score.numel()).view_as(score))
    mean = [torch.zeros_like(s) for s in run.dynamics.scores]
    for step in range(times):
        run.dynamics.before(step)
        for total, gate, dense, seen in zip(mean, run.dynamics.gates, run.dynamics.dense, run.dynamics.seen):
            total += gate != 0
            drawn = gate.count_nonzero()
            torch.testing.assert_close(gate[gate != 0], gate.new_full((int(drawn),), gate.numel() / int(drawn)))
            assert seen.abs().sum().item() == pytest.approx(dense.abs().sum().item(), rel=1e-4)  # one constant a layer
    for total, score in zip(mean, run.dynamics.scores):
        p = torch.sigmoid(score.detach())
        assert ((total / times - p).abs() < 5 * (p * (1 - p) / times).sqrt() + 1e-6).all()
        assert (total / times - p).mean().abs() < 5 * (0.25 / times / p.numel()) ** 0.5


def test_supermasks_with_sure_logits_are_sure():
    run = begun(sparsify("supermask", rescale=False))
    with torch.no_grad():
        for score in run.dynamics.scores:
            score.copy_(torch.where(torch.arange(score.numel()) % 3 == 0, 60.0, -60.0).view_as(score))
    for step in range(5):
        run.dynamics.before(step)
        for gate, score in zip(run.dynamics.gates, run.dynamics.scores):
            assert torch.equal(gate != 0, score > 0)


@pytest.mark.parametrize(("a", "probability"), [(2.197, 0.978), (0.0, 0.832)])
def test_hard_concrete_gates_are_open_as_often_as_the_closed_form_says(a, probability):
    """METHODS O52; u is cut off at 1e-4, which moves no gate from 0 at these a."""
    run, times = begun(sparsify("l0", bias=a)), 60
    assert torch.sigmoid(torch.tensor(a - 2 / 3 * math.log(0.1 / 1.1))).item() == pytest.approx(probability, abs=5e-4)
    open_ = count = 0
    for step in range(times):
        run.dynamics.before(step)
        open_ += sum(int(gate.count_nonzero()) for gate in run.dynamics.gates)
        count += sum(gate.numel() for gate in run.dynamics.gates)
        assert all(gate.min() >= 0 and gate.max() <= 1 for gate in run.dynamics.gates)
    sigma = math.sqrt(probability * (1 - probability) / count)
    assert open_ / count == pytest.approx(probability, abs=5 * sigma + 5e-4)


def test_what_l0_hands_over_is_open_above_log_one_eleventh():
    run = begun(sparsify("l0"))
    edge = math.log(1 / 11)
    with torch.no_grad():
        for score in run.dynamics.scores:
            score.copy_(torch.linspace(edge - 1, edge + 1, score.numel()).view_as(score))
    run.dynamics.rest(0)
    for kept, score in zip(run.mask.values(), run.dynamics.scores):
        near = (score - edge).abs() < 1e-5
        assert torch.equal(kept[~near], (score > edge)[~near])
