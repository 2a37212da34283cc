"""The criteria after training against independent, naive versions written from the papers' formulas (float64)."""

import itertools
from fractions import Fraction

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
UNIFORM = Allocation("uniform", {})


def network():
    """A small piecewise linear network: convolution, BatchNorm, ReLU, max-pooling, two linear layers."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(),
        nn.Linear(5, 3),
    )  # fmt: skip
    net[1].running_mean.normal_(0, 0.1)
    net[1].running_var.uniform_(0.5, 2)
    return net.double().eval()


def subject(lost=0.0, images=9, batches=2):
    net = network()
    weights = {name: w.parameter for name, w in prunable(net, "weights").items()}
    initial = {name: torch.randn_like(w) for name, w in weights.items()}
    mask = {name: torch.rand(w.shape) >= lost for name, w in weights.items()}
    with torch.no_grad():
        for name, w in weights.items():
            w *= mask[name]
    data = [(torch.randn(images, 1, 6, 6).double(), torch.randint(0, 3, (images,))) for _ in range(batches)]
    original = {name: w.detach().clone() for name, w in weights.items()}
    return Subject(net, (1, 6, 6), weights, mask, original, data, initial)


def score(name, net, **settings):
    return CRITERIA[name].look(net, **settings)[0]


def close(found, expected, tolerance=1e-10):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance * 1e-3)


def single_gradients(net):
    """The gradient of each image's loss as one row, by weight: (images, weights of the layer)."""
    found = {name: [] for name in net.weights}
    for x, y in net.batches:
        for i in range(len(y)):
            loss = cross_entropy(net.model(x[i : i + 1]), y[i : i + 1])
            for name, g in zip(found, torch.autograd.grad(loss, list(net.weights.values()))):
                found[name].append(g.flatten())
    return {name: torch.stack(rows) for name, rows in found.items()}


FORMULAS = {
    "large_final": lambda wi, wf: abs(wf),
    "small_final": lambda wi, wf: -abs(wf),
    "large_init": lambda wi, wf: abs(wi),
    "small_init": lambda wi, wf: -abs(wi),
    "magnitude_increase": lambda wi, wf: abs(wf) - abs(wi),
    "magnitude_of_change": lambda wi, wf: abs(wf - wi),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_deconstructings_criteria_are_their_formulas(name):
    net = subject()
    for layer, found in score(name, net).items():
        pairs = zip(net.initial[layer].flatten().tolist(), net.weights[layer].flatten().tolist())
        assert found.flatten().tolist() == [FORMULAS[name](wi, wf) for wi, wf in pairs]


@pytest.mark.parametrize(("name", "sign"), [("large_init_large_final", 1), ("small_init_small_final", -1)])
@pytest.mark.parametrize("lost", [0.0, 0.4])
def test_the_joint_criteria_keep_what_is_above_a_common_percentile_of_both(name, sign, lost):
    """Zhou et al. raise one percentile until the count is met: what is above it in both orders stays."""
    net = subject(lost)
    for layer, found in score(name, net).items():
        alive = net.mask[layer].flatten()
        one, other = (sign * t.flatten()[alive].abs() for t in (net.initial[layer], net.weights[layer].detach()))
        n = len(one)
        for rank in range(n):
            above = (one >= one.sort().values[rank]) & (other >= other.sort().values[rank])
            assert torch.equal(found.flatten()[alive] >= (rank + 1) / n - 1e-12, above)
        assert not found.flatten()[~alive].any()


def trained(width=0.2):
    model = ModelSettings.of("lenet_300_100", {"width": width}, (1, 8, 8), 10)
    first, last = (Checkpoint.of(model, fresh(model, "kaiming_normal", seed, 0), {}) for seed in (0, 1))
    return last, first.weights


def taken(name, density="1/2", net=None, **scoring):
    last, first = trained()
    data = {"data": DIGITS, "seed": 0} if CRITERIA[name].data else {}
    criterion = CriterionSettings.of(name, {}, 0)
    how = Scoring(**data, **scoring)
    return prune(net or last, criterion, UNIFORM, "weights", Density(Fraction(density)), 1, how, first)


def test_large_final_is_magnitude_and_small_final_its_complement():
    assert all(torch.equal(m, taken("magnitude")[n]) for n, m in taken("large_final").items())
    small, large = taken("small_final"), taken("large_final")
    assert all(not (small[n] & large[n]).any() and (small[n] | large[n]).all() for n in small)


def test_lamp_is_a_square_over_the_squares_that_are_as_large():
    net = subject(lost=0.3)
    for name, found in score("lamp", net).items():
        squares = [w**2 for w in net.weights[name].flatten().tolist()]
        expected = [s / sum(v for v in squares if v >= s) if s else 0.0 for s in squares]
        assert found.flatten().tolist() == pytest.approx(expected, rel=1e-12)
        assert found.max() == 1


def test_lamp_knows_no_scale_and_empties_no_layer():
    net = subject()
    before = score("lamp", net)
    with torch.no_grad():
        for factor, w in zip((1e-3, 1.0, 1e4), net.weights.values()):
            w *= factor
    close(score("lamp", net), before, 1e-12)
    last, _ = trained()
    for name in last.weights:
        if name.startswith("fc1"):
            last.weights[name] *= 1e-4
    how = CriterionSettings.of("lamp", {}, 0)
    for kept in (3, 4, 30):
        total = 64 * 60 + 60 * 20 + 20 * 10
        mask = prune(last, how, Allocation("global", {}), "weights", Density(Fraction(kept, total)))
        assert all(m.any() for m in mask.values()) and sum(int(m.sum()) for m in mask.values()) == kept
    zeros = {name: torch.zeros(2, 2) for name in ("a", "b")}
    assert not any(s.any() for s in score("lamp", Subject(None, (), zeros, {}, {})).values())


def test_taylor_squares_each_batch_and_gradient_times_weight_their_mean():
    net = subject(batches=3)
    squares, mean = ({name: torch.zeros_like(w) for name, w in net.weights.items()} for _ in range(2))
    for x, y in net.batches:
        grads = torch.autograd.grad(cross_entropy(net.model(x), y), list(net.weights.values()))
        for (name, w), g in zip(net.weights.items(), grads):
            squares[name] += (w * g).detach() ** 2 / 3
            mean[name] += (w * g).detach() / 3
    close(score("taylor", net), squares)
    close(score("gradient_times_weight", net), {name: t.abs() for name, t in mean.items()})
    close(score("gradient_times_weight", net), score("snip", net), 0)


def second_difference(net, name, index, e=1e-4):
    """d^2 loss / dw^2 by central differences of the loss."""
    x, y = torch.cat([x for x, _ in net.batches]), torch.cat([y for _, y in net.batches])
    weight, losses = net.weights[name].data.view(-1), []
    for shift in (e, 0.0, -e):
        weight[index] += shift
        losses.append(cross_entropy(net.model(x), y).item())
        weight[index] -= shift
    return (losses[0] - 2 * losses[1] + losses[2]) / e**2


def test_obd_has_the_hessians_diagonal_by_finite_differences():
    net = subject()
    found = score("obd", net)
    off = 0
    for name, w in net.weights.items():
        for index in range(w.numel()):
            expected = second_difference(net, name, index) * w.flatten()[index].item() ** 2 / 2
            off += found[name].flatten()[index].item() != pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert off <= 2  # a step that happens to cross a kink
    assert all((s >= 0).all() for s in found.values())


def test_obd_with_given_labels_has_the_squares_of_single_gradients():
    net = subject(images=7)
    fisher = {name: (rows**2).mean(0).view_as(net.weights[name]) for name, rows in single_gradients(net).items()}
    close(score("obd", net, labels="given"), {n: h * net.weights[n].detach() ** 2 / 2 for n, h in fisher.items()})

    def loss(parameters, x, y):
        return cross_entropy(torch.func.functional_call(net.model, parameters, x[None]), y[None])

    x, y = (torch.cat(parts) for parts in zip(*net.batches))
    parameters = {n: p.detach() for n, p in net.model.named_parameters()}
    singles = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)
    close(fisher, {name: (singles[name] ** 2).mean(0) for name in fisher})


def brute(net, name, damping, block):
    """F of a layer, zero outside the blocks, by weight pairs."""
    rows = single_gradients(net)[name]
    n = rows.shape[1]
    f = rows.T @ rows / len(rows) + damping * torch.eye(n).double()
    size = block or n
    return f * torch.tensor([[float(i // size == j // size) for j in range(n)] for i in range(n)]).double()


@pytest.mark.parametrize("block", [0, 4, 100])
@pytest.mark.parametrize("lost", [0.0, 0.3])
def test_obs_is_the_brute_force_inverse(block, lost):
    damping = 1e-3
    net = subject(lost)
    scores, update = CRITERIA["obs"].look(net, block=block, damping=damping)
    torch.manual_seed(3)
    mask = {name: alive & (torch.rand(alive.shape) < 0.6) for name, alive in net.mask.items()}
    moved = update(mask)
    for name, weight in net.weights.items():
        w, alive, stay = weight.detach().flatten(), net.mask[name].flatten(), mask[name].flatten()
        f = brute(net, name, damping, block)
        inverse = torch.zeros_like(f)
        live = alive.nonzero().flatten()
        inverse[live[:, None], live] = torch.linalg.inv(f[live[:, None], live])
        expected = w[live] ** 2 / (2 * inverse.diagonal()[live])
        torch.testing.assert_close(scores[name].flatten()[live], expected, rtol=1e-8, atol=0)
        q = (alive & ~stay).nonzero().flatten()
        if not len(q):
            continue
        change = -inverse[:, q] @ torch.linalg.solve(inverse[q[:, None], q], w[q])  # all of Q at once
        torch.testing.assert_close(moved[name].flatten()[stay], (w + change)[stay], rtol=1e-7, atol=1e-10)
        assert (w + change)[q].abs().max() < 1e-10
        ours = moved[name].flatten() * stay - w
        naive = w * stay - w
        cost, plain = (float(d @ f @ d) / 2 for d in (ours, naive))
        assert cost <= plain + 1e-12
        assert cost == pytest.approx(float(w[q] @ torch.linalg.solve(inverse[q[:, None], q], w[q])) / 2, rel=1e-7)


def test_one_weight_of_a_quadratic_costs_its_saliency():
    """O43, O44: the loss w^T H w / 2 at the minimum of its own shifts."""
    h = torch.tensor([[2.0, 0.7, 0.0], [0.7, 1.0, -0.3], [0.0, -0.3, 0.5]]).double()
    w = torch.tensor([0.4, -1.0, 0.3]).double()
    inverse = torch.linalg.inv(h)
    for i in range(3):
        change = -(w[i] / inverse[i, i]) * inverse[:, i]
        assert abs(w[i] + change[i]) < 1e-15
        assert float(change @ h @ change / 2) == pytest.approx(float(w[i] ** 2 / (2 * inverse[i, i])), rel=1e-12)
        others = [j for j in range(3) if j != i]
        best = torch.linalg.solve(h[others][:, others], h[others][:, i] * w[i])  # as `update` solves it
        torch.testing.assert_close(change[others], best, rtol=1e-12, atol=1e-14)


def test_the_gauss_newton_block_of_a_layer_is_its_hessian():
    net = subject(images=3)
    from lthbench.pruning.curvature import rows

    images = sum(len(y) for _, y in net.batches)
    name = "7.weight"
    found = sum(torch.outer(row[name].flatten(), row[name].flatten()) for row in rows(net, "all")) / images
    x, y = (torch.cat(parts) for parts in zip(*net.batches))
    weight = net.weights[name]

    def loss(w):
        return cross_entropy(torch.func.functional_call(net.model, {name: w}, x), y)

    hessian = torch.func.hessian(loss)(weight.detach()).view(weight.numel(), weight.numel())
    torch.testing.assert_close(found, hessian, rtol=1e-10, atol=1e-12)


def test_single_images_need_batchnorm_in_eval_mode():
    net = subject()
    net.model.train()
    for name, labels in itertools.product(("obd", "obs"), ("all", "given")):
        with pytest.raises(ValueError, match=r"^gradients of single images need pruner\.mode=eval$"):
            score(name, net, labels=labels)


@pytest.mark.parametrize("name", ["gradient_times_weight", "obd", "obs", "snip"])
def test_in_eval_mode_the_split_into_batches_does_not_matter(name):
    """O9."""
    net = subject(batches=2, images=6)
    x, y = (torch.cat(parts) for parts in zip(*net.batches))
    uneven = [(x[:5], y[:5]), (x[5:], y[5:])]
    other = Subject(**{**vars(net), "batches": uneven})
    close(score(name, other), score(name, net), 1e-9)


def test_the_mode_of_batchnorm_decides_scores_of_a_trained_network():
    """eval: running statistics, which stay as they are; train: the batch's, under which scaling a layer is free."""
    net = subject(batches=1, images=64)
    still = score("gradient_times_weight", net)
    net.model.train()
    moving = score("gradient_times_weight", net)
    assert not torch.allclose(still["0.weight"], moving["0.weight"], rtol=0.1)
    x, y = net.batches[0]
    grads = torch.autograd.grad(cross_entropy(net.model(x), y), list(net.weights.values()))
    signed = {name: (w * g).detach() for (name, w), g in zip(net.weights.items(), grads)}
    for channel in signed["0.weight"]:  # O19, to BatchNorm's eps
        assert abs(channel.sum()) < 1e-3 * channel.abs().sum()


def test_obs_gives_weights_beside_the_mask():
    last, _ = trained()
    found = taken("obs", "1/4", batch=64)
    mask = {name: m for name, m in found.items() if m.dtype == torch.bool}
    assert list(found) == [*mask, *(f"weights/{name}" for name in mask)]
    assert sum(int(m.sum()) for m in mask.values()) == Density(Fraction(1, 4)).kept(64 * 60 + 60 * 20 + 20 * 10)
    net = last.masked(found)
    assert net.mask.keys() == mask.keys() and net.weights.keys() == last.weights.keys()
    for name, m in mask.items():
        new, old = net.weights[name], last.weights[name]
        assert new.dtype == old.dtype and not new[~m].any()
        assert (new[m] != old[m]).any()
    again = taken("obs", "1/8", net=net, batch=64)  # what is gone stays gone
    assert all(not (again[name] & ~m).any() for name, m in mask.items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("snip", "criterion snip looks at images: it needs scoring.data and scoring.seed"),
        ("large_init", "criterion large_init looks at the initial weights: it needs `initial`"),
    ],
)
def test_a_criterion_without_what_it_looks_at_is_refused(name, message):
    last, _ = trained()
    with pytest.raises(ValueError) as error:
        prune(last, CriterionSettings.of(name, {}, 0), UNIFORM, "weights", Density(Fraction(1, 2)))
    assert str(error.value) == message
