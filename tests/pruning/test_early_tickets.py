"""Early tickets against the same rules written without the loop, and what stops, resumes and stays."""

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pruning.in_training import DATA, LENET, RECIPE, RESNET, SEED, begun, equal, resumed, sparsify

from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.dynamics.early_bird import EarlyBird, distance
from lthbench.pruning.dynamics.early_crop import settled, share
from lthbench.pruning.prunable import prunable
from lthbench.pruning.prune import prune
from lthbench.pruning.scoring import Scoring
from lthbench.pruning.structure import Filters, Structure
from lthbench.training.checkpoint import moved

FILTER = Structure("filter")
BIRD = {
    "begin": 0, "end": 18, "every": 2, "epsilon": 0.5, "queue": 3, "compare": "previous", "untrained": False,
    "restart": False,
}  # fmt: skip
CROP = {"begin": 0, "end": 18, "every": 2, "tau": 0.5, "reference": "start", "restart": False}
SCORING = Scoring(3, "halving", data=DATA, seed=SEED, batches=2, batch=50)


def bird(density="1/2", **said):
    return sparsify("early_bird", density, "global", structure=FILTER, **(BIRD | said))


def crop(density="1/2", structure=None, **said):
    return sparsify("early_crop", density, "global", scoring=SCORING, structure=structure, **(CROP | said))


HOW = {
    "bird": (bird, RESNET),
    "crop": (crop, LENET),
    "crop, filters": (lambda **s: crop(structure=FILTER, **s), RESNET),
}


def drawn_after(run, last=19):
    """The step after which the ticket is there."""
    for step in range(1, last):
        run.run(step)
        if "drawn" in run.dynamics.news.get(step, {}):
            return step
    return None


# ---- Early-Bird's queue


class Masks(EarlyBird):
    """The detector alone, on masks that are given."""

    def __init__(self, masks, epsilon, queue, compare):
        self.given, self.epsilon, self.queue, self.compare = iter(masks), epsilon, queue, compare
        self.masks, self.distances = [], []

    def _filters(self):
        return torch.tensor(next(self.given))


def naive(masks, epsilon, queue, compare):
    """The index of the mask at which the ticket is drawn, from the papers' words."""
    for i in range(len(masks)):
        if compare == "previous":
            pairs = [(masks[j], masks[j - 1]) for j in range(max(1, i - queue + 1), i + 1)]
            apart = [sum(a != b for a, b in zip(*pair)) / len(masks[0]) for pair in pairs]
            if i >= queue and len(apart) == queue and all(d < epsilon for d in apart):
                return i
        elif i >= queue - 1:
            older = masks[i - queue + 1 : i]
            if all(sum(a != b for a, b in zip(masks[i], m)) / len(m) <= epsilon for m in older):
                return i
    return None


MASKS = (
    st.integers(1, 8)
    .flatmap(  # a few masks that come again, so that queues do fill
        lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=3)
    )
    .flatmap(lambda few: st.lists(st.sampled_from(few), min_size=1, max_size=14))
)


@given(MASKS, st.sampled_from([0.05, 0.125, 0.25, 0.5, 0.9]), st.integers(1, 5), st.sampled_from(["previous", "all"]))
def test_the_queue_draws_where_the_rule_says(masks, epsilon, queue, compare):
    detector = Masks(masks, epsilon, queue, compare)
    looks = [detector.look() for _ in masks]
    assert (looks.index(True) if True in looks else None) == naive(masks, epsilon, queue, compare)


@pytest.mark.parametrize(("compare", "first"), [("previous", 5), ("all", 4)])
def test_masks_that_never_change_are_drawn_as_soon_as_the_queue_is_full(compare, first):
    detector = Masks([[True, False]] * 9, 0.1, 5, compare)
    assert [detector.look() for _ in range(9)].index(True) == first


def test_what_changes_a_lot_puts_it_off_until_it_has_left_the_queue():
    masks = [[0] * 10] * 3 + [[1] * 2 + [0] * 8] * 9
    detector = Masks([[bool(x) for x in mask] for mask in masks], 0.1, 5, "all")
    assert [detector.look() for _ in masks].index(True) == 7


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_distance_is_one(pairs):
    one, other = (torch.tensor(side) for side in zip(*pairs))
    assert distance(one, other) == distance(other, one) == sum(a != b for a, b in pairs) / len(pairs)
    assert (distance(one, other) == 0) == torch.equal(one, other)


def test_the_mask_is_of_the_largest_scales_and_leaves_each_layer_a_filter():
    run = begun(bird("1/4"), model=RESNET)
    assert drawn_after(run) is not None
    made = run.checkpoint()
    filters = {n: m.flatten(1).any(1) for n, m in made.mask.items() if m.dim() == 4}
    assert all(kept.any() for kept in filters.values())
    inner = {n: made.weights[n.replace("conv1", "bn1")] for n in filters if n.startswith("layer") and "conv1" in n}
    for name, scale in inner.items():
        assert torch.equal(scale != 0, filters[name])
        assert torch.equal(made.weights[name.replace("conv1", "bn1").replace("weight", "bias")] != 0, filters[name])


def test_the_best_of_each_layer_stand_above_all_others_and_the_rest_is_as_it_was():
    net = begun(bird(), model=RESNET).net
    units = Filters(net, RESNET.shape, prunable(net, "weights"))
    weights = {n: net.get_parameter(n) * (1e-6 if "layer1" in n else 1.0) for n in units.found}
    plain, spared = (units.scores(weights, least) for least in (0, 2))
    others = max(float(values.sort().values[:-2].max()) for values in plain.values() if len(values) > 2)
    for name, values in plain.items():
        best = values.argsort(descending=True, stable=True)[:2]
        assert spared[name][best].min() > others
        assert spared[name].argsort(stable=True).tolist() == values.argsort(stable=True).tolist()
        rest = torch.ones(len(values), dtype=torch.bool)
        rest[best] = False
        assert torch.equal(spared[name][rest], values[rest])


def test_the_untrained_mask_comes_first_if_asked():
    one, other = (begun(bird(untrained=untrained), model=RESNET) for untrained in (False, True))
    for run in (one, other):
        run.run(2)
    assert (len(one.dynamics.distances), len(other.dynamics.distances)) == (0, 1)


def test_the_penalty_is_on_the_scales_alone():
    plain, slim = (begun(bird(), replace(RECIPE, l1_scales=s), RESNET) for s in (0.0, 0.125))
    for run in (plain, slim):
        run.run(2)  # the first step's learning rate is 0
    one, other = plain.checkpoint().weights, slim.checkpoint().weights
    lr = RECIPE.lr_at(1)
    for name in one:
        if "bn" in name and name.endswith("weight"):  # momentum of step 0's penalty as well
            moved = lr * 0.125 * (1 + RECIPE.momentum)
            assert torch.allclose(one[name] - other[name], torch.full_like(one[name], moved), atol=1e-6)
        elif name.startswith("conv") or "fc" in name:
            assert torch.equal(one[name], other[name])


# ---- EarlyCroP's rule


def test_the_rule_in_closed_form():
    """Weights (3, 4), moved along (1, 0): r = t / 5 exactly; steps 1, 1/2, 1/4, ... of 5 fall below tau r1."""
    w0 = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    ways = [2 * (1 - 0.5**t) for t in range(1, 8)]
    found = [moved(w0, {"a": torch.tensor([3.0 + m]), "b": w0["b"]})[1] for m in ways]
    assert found == pytest.approx([m / 5 for m in ways], rel=1e-6)
    for tau in (0.6, 0.3, 0.1):  # |r_t - r_(t-1)| = 0.5^(t-1) r_1 < tau r_1
        first = next(t for t in range(1, 8) if settled(found[:t], tau))
        assert first == 1 + math.floor(1 - math.log2(tau) - 1e-9) if tau < 0.5 else first == 2
    assert not settled(found[:1], 0.99)


def test_little_is_what_the_code_says():
    assert share(0.95, False) == pytest.approx(0.05)
    assert share(0.5, True) == pytest.approx(0.4) and share(-0.5, True) == 0.99


@pytest.mark.parametrize("reference", ["start", "first"])
def test_it_draws_where_the_rule_says(reference):
    plain = begun(crop(end=18, tau=1e-9))  # never settles: dense until 18
    looks = [plain.checkpoint().weights]
    for step in range(2, 18, 2):
        plain.run(step)
        looks.append(plain.checkpoint().weights)
    begin = 0 if reference == "start" else 1
    flat = [torch.cat([w[n].double().flatten() for n in w if n.endswith("weight")]) for w in looks]
    r = {i: float((flat[i] - flat[begin]).norm() / flat[begin].norm()) for i in range(begin + 1, len(flat))}
    first = min(r)
    expected = next((2 * i for i in r if i > first and abs(r[i] - r[i - 1]) < 0.9 * r[first]), 18)
    assert drawn_after(begun(crop(tau=0.9, reference=reference))) == expected


def test_the_ticket_is_pruned_by_the_flow_at_that_step():
    run = begun(crop())
    step = drawn_after(run)
    plain = begun(crop(begin=18, end=19))
    plain.run(step)
    net = replace(plain.checkpoint(), mask={})
    grasp = CriterionSettings.of("grasp", {"temperature": 1.0, "absolute": True}, 0)
    mask = prune(net, grasp, Allocation("global", {}), "weights", Density(Fraction(1, 2)), scoring=SCORING)
    made = run.checkpoint()
    assert all(torch.equal(made.mask[n], kept) for n, kept in mask.items())
    assert all(torch.equal(made.weights[n], net.weights[n] * kept) for n, kept in mask.items())


@given(st.fractions(Fraction(1, 100), Fraction(99, 100)), st.integers(1, 30))
def test_halving_halves_what_is_missing(density, rounds):
    found = Scoring(rounds, "halving").densities(Density(density))
    assert len(found) == rounds and found[-1].base == density
    missing = [each.base - density for each in found[:-1]]
    assert all(2 * b == a for a, b in pairwise(missing)) and all(m > 0 for m in missing)
    if rounds > 1 and density < Fraction(1, 2):
        assert found[0].base == Fraction(1, 2)


# ---- what they share


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", HOW)
def test_wherever_it_is_stopped_it_ends_in_the_same_bits(name, restart):
    make, model = HOW[name]
    how = make(restart=restart)
    whole = begun(how, model=model)
    whole.run(20)
    pieces = begun(how, model=model)
    for step in (1, 3, 4, 7, 8, 11, 12, 15, 18, 20):
        pieces.run(step)
        pieces = resumed(pieces, how)
    assert equal(pieces.checkpoint().weights, whole.checkpoint().weights)
    assert equal(pieces.checkpoint().mask, whole.checkpoint().mask)
    assert equal(pieces.moments(), whole.moments())


@pytest.mark.parametrize("name", HOW)
def test_until_the_ticket_is_drawn_it_is_the_dense_run(name):
    make, model = HOW[name]
    run, dense = begun(make(), model=model), begun(make(begin=18, end=19), model=model)
    step = drawn_after(run)
    again = begun(make(), model=model)
    again.run(step - 1)
    dense.run(step - 1)
    assert equal(again.checkpoint().weights, dense.checkpoint().weights)
    assert all(kept.all() for kept in again.checkpoint().mask.values())


@pytest.mark.parametrize("name", HOW)
def test_what_starts_anew_is_over_where_it_is_drawn(name):
    make, model = HOW[name]
    step = drawn_after(begun(make(), model=model))
    on, over = begun(make(), model=model), begun(make(restart=True), model=model)
    on.run(step)
    found = on.checkpoint()
    for last in (step, 18, 20):
        over.run(last)
        assert over.over and equal(over.checkpoint().weights, found.weights)
        assert equal(over.checkpoint().mask, found.mask)
    on.run(20)
    assert not on.over and not equal(on.checkpoint().weights, found.weights)
    for name, kept in on.checkpoint().mask.items():
        assert not on.checkpoint().weights[name][~kept].any()


@pytest.mark.parametrize("name", HOW)
def test_what_does_not_settle_is_pruned_at_the_limit(name):
    make, model = HOW[name]
    said = {"epsilon": 1e-9} if name == "bird" else {"tau": 1e-9}
    run = begun(make(**said), model=model)
    run.run(17)
    assert all(kept.all() for kept in run.checkpoint().mask.values())
    run.run(18)
    assert run.dynamics.news[18]["drawn"] == "at the limit"
    assert not all(kept.all() for kept in run.checkpoint().mask.values())


def test_a_run_that_diverges_goes_on():
    for make, model in HOW.values():
        run = begun(make(), replace(RECIPE, lr=1e30), model)
        run.run(19)
        assert not run.checkpoint().finite
        run.moments()
