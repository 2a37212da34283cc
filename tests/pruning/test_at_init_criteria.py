"""The criteria at initialisation against independent, naive versions written from the papers' formulas (float64)."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CRITERIA, CriterionSettings, Subject
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable
from lthbench.pruning.prune import prune
from lthbench.pruning.scoring import Scoring
from lthbench.training.checkpoint import Checkpoint

DIGITS = DataSettings("digits", "official", Normalise("channel", (0.288,), (0.353,)), Augment())
GLOBAL = Allocation("global", {})


class Smooth(nn.Module):
    """Two layers with tanh: finite differences meet no kink."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x.flatten(1))))


def subject(net=None, batches=2):
    torch.manual_seed(0)
    net = (net or Smooth()).double()
    weights = {name: w.parameter for name, w in prunable(net, "weights").items()}
    mask = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    data = [(torch.randn(7 + i, 1, 2, 3).double(), torch.randint(0, 3, (7 + i,))) for i in range(batches)]
    return Subject(net, (1, 2, 3), weights, mask, {n: w.detach().clone() for n, w in weights.items()}, data)


def whole(net):
    """All batches as one."""
    return torch.cat([x for x, _ in net.batches]), torch.cat([y for _, y in net.batches])


def functional(net, parameters, x):
    return torch.func.functional_call(net.model, parameters, x)


def close(found, expected, tolerance=1e-10):
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance * 1e-3)


def score(name, net, **settings):
    return CRITERIA[name].score(net, **settings)


def test_snip_is_the_gradient_of_explicit_masks():
    net = subject()
    x, y = whole(net)
    c = {name: torch.ones_like(w, requires_grad=True) for name, w in net.weights.items()}
    masked = {n: p * c[n] if n in c else p for n, p in net.model.named_parameters()}
    grads = torch.autograd.grad(cross_entropy(functional(net, masked, x), y), list(c.values()))
    close(score("snip", net), {name: g.abs() for name, g in zip(c, grads)})


def test_grasp_is_w_times_hg_by_central_differences():
    for batches in (1, 3):
        net = subject(batches=batches)
        x, y = whole(net)
        weights = dict(net.weights)

        def gradient(moved, net=net, x=x, y=y, weights=weights):
            parameters = dict(net.model.named_parameters()) | moved
            loss = cross_entropy(functional(net, parameters, x) / 200, y)
            return torch.autograd.grad(loss, [parameters[n] for n in weights])

        g = gradient({})
        e = 1e-3 / torch.cat([part.flatten() for part in g]).norm()
        shift = [
            {n: (w + s * e * part).detach().requires_grad_() for (n, w), part in zip(weights.items(), g)}
            for s in (1, -1)
        ]
        hg = [(up - down) / (2 * e) for up, down in zip(gradient(shift[0]), gradient(shift[1]))]
        close(score("grasp", net), {n: w.detach() * part for (n, w), part in zip(weights.items(), hg)}, 1e-5)


def test_grasps_published_settings():
    """Halves by class are two batches; a redrawn copy is another network; absolute is the absolute value."""
    net = subject(batches=1)
    (x, y), cut = net.batches[0], len(net.batches[0][1]) - len(net.batches[0][1]) // 2
    order = y.argsort(stable=True)
    apart = Subject(**{**vars(net), "batches": [(x[order[:cut]], y[order[:cut]]), (x[order[cut:]], y[order[cut:]])]})
    close(score("grasp", net, halves=True), score("grasp", apart))
    close(score("grasp", net, absolute=True), {n: s.abs() for n, s in score("grasp", net).items()})
    before = {n: w.detach().clone() for n, w in net.weights.items()}
    torch.manual_seed(1)
    redrawn = score("grasp", net, redraw=True)
    assert all(torch.equal(w, before[n]) for n, w in net.weights.items())
    other = subject(batches=1)
    torch.manual_seed(1)
    for w in other.weights.values():
        nn.init.xavier_normal_(w)
    close(redrawn, score("grasp", Subject(**{**vars(other), "batches": net.batches})))
    assert not torch.allclose(redrawn["a.weight"], score("grasp", net)["a.weight"])


def test_settings_that_came_later_are_in_no_id_while_they_say_nothing():
    plain = CriterionSettings.of("grasp", {"temperature": 200.0}, 0)
    assert CriterionSettings.of("grasp", {"temperature": 200.0, "halves": False, "redraw": False}, 0).text == plain.text
    assert CriterionSettings.of("grasp", {"temperature": 200.0, "halves": True}, 0).args["halves"] is True


def test_shrinking_a_weight_changes_the_gradient_norm_as_grasp_says():
    """O23: by f times -w (Hg) when the weight loses the share f."""
    net = subject(batches=1)
    x, y = net.batches[0]
    found = score("grasp", net, temperature=1.0)

    def norm():
        grads = torch.autograd.grad(cross_entropy(net.model(x), y), list(net.weights.values()))
        return sum(float((g**2).sum()) for g in grads) / 2

    before = norm()
    for name, w in net.weights.items():
        value = w.data[0, 1].item()
        w.data[0, 1] = value * (1 - 1e-6)
        assert (norm() - before) / 1e-6 == pytest.approx(-found[name][0, 1].item(), rel=1e-3, abs=1e-9)
        w.data[0, 1] = value


def test_behind_batchnorm_in_train_mode_a_layers_scores_have_known_sums():
    """O19, O22: sum w g = 0 and sum w (Hg) = -|g|^2 for a layer whose scale BatchNorm takes out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4, eps=1e-14), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    net = subject(model, batches=1)
    net.model.train()
    x, y = net.batches[0]
    g = torch.autograd.grad(cross_entropy(net.model(x), y), net.weights["0.weight"])[0]
    w = net.weights["0.weight"].detach()
    assert abs((w * g).sum()) < 1e-12 * (w * g).abs().sum() + 1e-15
    hg = score("grasp", net, temperature=1.0)["0.weight"].sum().item()
    assert hg == pytest.approx(-float((g**2).sum()), rel=1e-8)


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_scaling_the_loss_or_decaying_weights_moves_no_mask(name):
    """O17: the loss is the mean cross-entropy; a factor of two on it (all images twice) is the same ranking."""
    net = subject(batches=1)
    x, y = net.batches[0]
    twice = Subject(**{**vars(net), "batches": [(torch.cat([x, x]), torch.cat([y, y]))]})
    close(score(name, twice), score(name, net))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batches", [1, 4], ids=["one batch", "new data"])
def test_prospr_is_the_meta_gradient_by_central_differences(momentum, batches):
    net = subject(batches=batches)

    def after(mask):
        parameters = {n: p.detach() * mask.get(n, 1.0) for n, p in net.model.named_parameters()}
        velocity = {n: torch.zeros_like(p) for n, p in parameters.items()}
        for i in range(3):
            x, y = net.batches[min(i, batches - 1)]
            live = {n: p.clone().requires_grad_() for n, p in parameters.items()}
            grads = torch.autograd.grad(cross_entropy(functional(net, live, x), y), list(live.values()))
            for n, g in zip(live, grads):
                velocity[n] = momentum * velocity[n] + g
                parameters[n] = parameters[n] - 0.1 * velocity[n]
        x, y = net.batches[min(3, batches - 1)]
        return cross_entropy(functional(net, parameters, x), y)

    found = score("prospr", net, momentum=momentum)
    for name, w in net.weights.items():
        for index in ((0, 0), (1, 2), (2, 4)):
            ends = []
            for sign in (1, -1):
                mask = {n: torch.ones_like(v) for n, v in net.weights.items()}
                mask[name][index] += sign * 1e-5
                ends.append(after(mask))
            assert found[name][index] == pytest.approx(abs(ends[0] - ends[1]).item() / 2e-5, rel=1e-5, abs=1e-9)
        assert w.grad is None


def test_prospr_without_a_step_or_a_rate_is_snip():
    net = subject(batches=1)
    close(score("prospr", net, steps=0), score("snip", net))
    close(score("prospr", net, lr=0.0), score("snip", net))
    trained = score("prospr", net, first_order=True, steps=1)
    x, y = net.batches[0]
    live = {n: p.detach().clone().requires_grad_() for n, p in net.model.named_parameters()}
    grads = torch.autograd.grad(cross_entropy(functional(net, live, x), y), list(live.values()))
    moved = {n: (p - 0.1 * g).detach().requires_grad_() for (n, p), g in zip(live.items(), grads)}
    ends = torch.autograd.grad(cross_entropy(functional(net, moved, x), y), list(moved.values()))
    expected = {n: (live[n].detach() * g).abs() for n, g in zip(moved, ends) if n in net.weights}
    close(trained, expected)


def test_force_scores_what_is_pruned_with_its_original_value():
    net = subject()
    kept = {name: torch.rand(w.shape) < 0.5 for name, w in net.weights.items()}
    with torch.no_grad():
        for name, w in net.weights.items():
            w *= kept[name]
    found = score("force", net)
    x, y = whole(net)
    parameters = dict(net.model.named_parameters())
    grads = torch.autograd.grad(cross_entropy(functional(net, parameters, x), y), list(net.weights.values()))
    close(found, {n: (net.original[n] * g).abs() for n, g in zip(net.weights, grads)})
    assert all(found[name][~kept[name]].gt(0).any() for name in kept)


def plain(width=6, depth=4):
    """A bias-free network of linear layers and ReLU."""
    layers = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(6 if i == 0 else width, 3 if i == depth - 1 else width, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_synflow_conserves_flow_and_looks_at_magnitudes_only():
    net = subject(plain())
    found = score("synflow", net)
    sums = [s.sum().item() for s in found.values()]
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-12)
    product = torch.ones(6, dtype=torch.float64)
    for w in net.weights.values():
        product = w.detach().abs() @ product
    assert sums[0] == pytest.approx(product.sum().item(), rel=1e-12)
    layers = list(found.values())
    for before, behind in pairwise(layers):  # through every hidden unit flows what flows in
        torch.testing.assert_close(before.sum(1), behind.sum(0), rtol=1e-12, atol=0)
    with torch.no_grad():
        for w in net.weights.values():
            w *= torch.where(torch.rand_like(w) < 0.5, -1.0, 1.0)
    close(score("synflow", net), found, 1e-12)


def test_synflow_leaves_the_network_as_it_was_batchnorm_included():
    model = ModelSettings.of("resnet_20", {"width": 0.25}, (1, 8, 8), 10)
    net = fresh(model, "kaiming_normal", 0, 0)
    with torch.no_grad():
        net.bn1.running_mean += 0.5
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    weights = {name: w.parameter for name, w in prunable(net, "weights").items()}
    found = score("synflow", Subject(net, (1, 8, 8), weights, {}, {}))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all((s >= 0).all() for s in found.values())


def checkpoint(name="lenet_300_100", **args):
    model = ModelSettings.of(name, args, (1, 8, 8), 10)
    return Checkpoint.of(model, fresh(model, "kaiming_normal", 0, 0), {})


def taken(net, criterion, density, **scoring):
    data = {"data": DIGITS, "seed": 0} if CRITERIA[criterion].data else {}
    how = Scoring(**data, **scoring)
    return prune(net, CriterionSettings.of(criterion, {}, 0), GLOBAL, "weights", Density(Fraction(density)), 1, how)


def kept(mask):
    return sum(int(m.sum()) for m in mask.values())


def test_rounds_end_at_the_exact_count_and_iter_snip_is_nested():
    net = checkpoint(width=0.2)
    total = kept(taken(net, "snip", "1"))
    masks = [taken(net, "snip", density, rounds=8, mode="train") for density in ("1/5", "1/20")]
    assert [kept(mask) for mask in masks] == [Density(Fraction(d)).kept(total) for d in ("1/5", "1/20")]
    assert kept(taken(net, "force", "1/20", rounds=8, regrow=True)) == Density(Fraction(1, 20)).kept(total)
    one = taken(net, "snip", "1/20", rounds=1)
    assert all(torch.equal(one[n], m) for n, m in taken(net, "force", "1/20", rounds=1, regrow=True).items())


def test_a_flow_beyond_float32_is_refused_and_float64_holds_it():
    model = ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 8, 8), 10)
    net = Checkpoint.of(model, fresh(model, "kaiming_normal", 0, 0), {})
    for name, w in net.weights.items():
        w *= 1e14 if name.endswith("weight") else 1.0
    how = CriterionSettings.of("synflow", {}, 0), GLOBAL, "weights", Density(Fraction(1, 10))
    with pytest.raises(ValueError, match=r"^criterion synflow: scores of .* not finite; pruner\.dtype=float64 reach"):
        prune(net, *how, scoring=Scoring(rounds=2))
    mask = prune(net, *how, scoring=Scoring(rounds=2, dtype="float64"))
    assert sum(int(kept.sum()) for kept in mask.values()) == how[-1].kept(sum(kept.numel() for kept in mask.values()))


def test_one_round_of_synflow_empties_layers_and_a_hundred_do_not():
    model = ModelSettings.of("vgg_16", {"width": 0.125}, (3, 32, 32), 10)
    net = Checkpoint.of(model, fresh(model, "kaiming_normal", 0, 0), {})
    once, often = (taken(net, "synflow", "1/100", rounds=r, dtype="float64") for r in (1, 100))
    assert kept(once) == kept(often)
    assert any(not m.any() for m in once.values())
    assert all(m.any() for m in often.values())


def test_a_scoring_batch_per_class_holds_each_class_as_often():
    from lthbench.pruning.scoring import draw

    for batches in (1, 3):
        found = draw(Scoring(data=DIGITS, seed=3, per_class=4, batches=batches), 0)
        assert [sorted(y.bincount(minlength=10).tolist()) for _, y in found] == [[4] * 10] * batches
    again = draw(Scoring(data=DIGITS, seed=3, per_class=4, batches=3), 0)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(found, again))
    assert not torch.equal(found[0][0], draw(Scoring(data=DIGITS, seed=3, per_class=4, batches=3), 1)[0][0])
