from fractions import Fraction
from math import prod

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.pruning.allocation import Allocation, Layer, groups, largest_remainder, proportional
from lthbench.pruning.density import Density

LTH = Allocation("by_kind", {"conv": "0.1", "linear": "0.2", "output": "0.1"})
LENET = {
    "fc1": Layer("linear", 235200, 235200),
    "fc2": Layer("linear", 30000, 30000),
    "fc3": Layer("output", 1000, 1000),
}


def counts(allocation, layers, density=None, rounds=1):
    return {"+".join(names): kept for names, kept in groups(allocation, layers, density, rounds)}


@pytest.mark.parametrize(
    ("rounds", "fc1", "fc2", "fc3"),
    [
        (0, 235200, 30000, 1000),
        (1, 188160, 24000, 900),
        (3, 120422, 15360, 729),
        (7, 49325, 6291, 478),
        (9, 31568, 4026, 387),
        (15, 8275, 1056, 206),
        (20, 2712, 346, 121),
    ],
)
def test_frankle_and_carbins_counts_for_lenet(rounds, fc1, fc2, fc3):
    assert counts(LTH, LENET, rounds=rounds) == {"fc1": fc1, "fc2": fc2, "fc3": fc3}


def test_frankle_and_carbins_axis():
    percent = [round(100 * sum(counts(LTH, LENET, rounds=r).values()) / 266200, 2) for r in range(1, 26)]
    assert percent == [
        80.04, 64.06, 51.28, 41.05, 32.87, 26.32, 21.07, 16.88, 13.52, 10.83, 8.68, 6.95, 5.57,
        4.47, 3.58, 2.87, 2.31, 1.85, 1.49, 1.19, 0.96, 0.77, 0.62, 0.50, 0.40,
    ]  # fmt: skip
    printed = {3: 51.3, 7: 21.1, 9: 13.5, 15: 3.6, 16: 2.9}
    assert {r: round(percent[r - 1], 1) for r in printed} == printed


@pytest.mark.parametrize(("alive", "left"), [(5, 5), (15, 13), (25, 23), (35, 31), (10, 9), (0, 0)])
def test_a_round_by_kind_rounds_half_to_even(alive, left):
    layers = {"out": Layer("output", 1000, alive)}
    assert counts(LTH, layers) == {"out": left}


@given(st.integers(0, 10**5), st.integers(0, 6), st.integers(0, 6))
def test_rounds_by_kind_can_be_taken_one_by_one(alive, first, second):
    layers = {"a": Layer("linear", 10**5, alive), "b": Layer("conv", 10**5, alive)}
    between = {n: Layer(layers[n].kind, 10**5, kept) for n, kept in counts(LTH, layers, rounds=first).items()}
    assert counts(LTH, between, rounds=second) == counts(LTH, layers, rounds=first + second)


def test_a_kind_without_a_rate_is_named():
    with pytest.raises(UserError, match=r"^allocation\.rates has no rate for 'conv' layers$"):
        groups(Allocation("by_kind", {"linear": "0.2"}), {"c": Layer("conv", 10, 10)}, None, 1)


layer_sizes = st.lists(st.integers(1, 10**6), min_size=1, max_size=12)
densities = st.fractions(0, 1, max_denominator=10**4).filter(bool)


def leaves_some(sizes, density):
    return Density(density).kept(sum(sizes)) > 0


@given(layer_sizes, densities)
def test_global_ranks_all_layers_together(sizes, density):
    assume(leaves_some(sizes, density))
    layers = {str(i): Layer("conv", n, n) for i, n in enumerate(sizes)}
    ((names, kept),) = groups(Allocation("global", {}), layers, Density(density), 1)
    assert names == list(layers)
    assert kept == Density(density).kept(sum(sizes))


@given(layer_sizes, densities)
def test_uniform_keeps_the_exact_total_and_each_layer_within_one_of_its_share(sizes, density):
    assume(leaves_some(sizes, density))
    layers = {str(i): Layer("conv", n, n) for i, n in enumerate(sizes)}
    kept = counts(Allocation("uniform", {}), layers, Density(density))
    total = Density(density).kept(sum(sizes))
    assert sum(kept.values()) == total
    for name, layer in layers.items():
        assert abs(kept[name] - Fraction(total * layer.total, sum(sizes))) < 1
        assert 0 <= kept[name] <= layer.total


def remainders_one_by_one(sizes: list[int], kept: int) -> list[int]:
    """Hare quota by hand: hand out what is over to the largest remainder, the earliest of equals, one at a time."""
    exact = [Fraction(kept * n, sum(sizes)) for n in sizes]
    shares = [int(e) for e in exact]
    open_layers = list(range(len(sizes)))
    while sum(shares) < kept:
        best = max(open_layers, key=lambda i: (exact[i] - int(exact[i]), -i))
        open_layers.remove(best)
        shares[best] += 1
    return shares


@given(layer_sizes | st.lists(st.just(3), min_size=1, max_size=9), st.data())
def test_largest_remainder_is_hares_quota(sizes, data):
    kept = data.draw(st.integers(0, sum(sizes)))
    named = {str(i): n for i, n in enumerate(sizes)}
    assert list(largest_remainder(named, kept).values()) == remainders_one_by_one(sizes, kept)


def test_largest_remainder_of_equal_layers_gives_to_the_earlier():
    assert largest_remainder({"a": 4, "b": 4, "c": 4}, 8) == {"a": 3, "b": 3, "c": 2}


@pytest.mark.parametrize(
    ("name", "rates", "message"),
    [
        ("globl", {}, "allocation: unknown 'globl'; did you mean 'global'?"),
        ("global", {"conv": "0.1"}, "allocation.rates mean nothing for allocation=global"),
        ("by_kind", {"conv": "1"}, "allocation.rates.conv: '1' is not a number in 0 <= r < 1"),
        ("by_kind", {"conv": "-0.1"}, "allocation.rates.conv: '-0.1' is not a number in 0 <= r < 1"),
        ("by_kind", {"conv": "fast"}, "allocation.rates.conv: 'fast' is not a number in 0 <= r < 1"),
        ("by_kind", {"conv": "1/0"}, "allocation.rates.conv: '1/0' is not a number in 0 <= r < 1"),
        ("erk", {"conv": "0.1"}, "allocation.rates mean nothing for allocation=erk"),
    ],
)
def test_allocations_that_mean_nothing_are_refused(name, rates, message):
    with pytest.raises(UserError) as error:
        Allocation(name, rates)
    assert str(error.value) == message


def test_an_allocation_can_be_a_key():
    assert hash(LTH) == hash(Allocation("by_kind", dict(LTH.rates)))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("erk", {"linear": "0.3"}, "allocation.linear means nothing for allocation=erk"),
        ("erk", {"layers": {"conv": "1"}}, "allocation.layers mean nothing for allocation=erk"),
        ("given", {"layers": {"conv": "-1"}}, "allocation.layers.conv: '-1' is not a number of at least 0"),
        ("threshold", {"quality": "x"}, "allocation.quality: 'x' is not a number of at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, values, message):
    with pytest.raises(UserError) as error:
        Allocation(name, {}, **values)
    assert str(error.value) == message


ERK, GIVEN = Allocation("erk", {}), Allocation("given", {}, layers={"linear": "1/10", "b": "1/2", "output": "1"})
dimensions = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3)), min_size=1, max_size=8)


def convolutions(shapes, alive=None):
    found = {}
    for i, (out, into, k) in enumerate(shapes):
        n = out * into * k * k
        found[str(i)] = Layer("conv", n, n if alive is None else min(n, alive[i]), (out, into, k, k))
    return found


@given(dimensions, densities)
def test_erk_is_exact_in_all_and_proportional_where_nothing_is_full(shapes, density):
    layers = convolutions(shapes)
    sizes = [layer.total for layer in layers.values()]
    assume(leaves_some(sizes, density))
    kept = counts(ERK, layers, Density(density))
    assert sum(kept.values()) == Density(density).kept(sum(sizes))
    assert all(kept[name] <= layer.total for name, layer in layers.items())
    free = {n: Fraction(kept[n]) / sum(x.shape) for n, x in layers.items() if kept[n] < x.total}
    for one in free:  # the same factor but for the rounding of one weight each
        for other in free:
            slack = Fraction(1, sum(layers[one].shape)) + Fraction(1, sum(layers[other].shape))
            assert abs(free[one] - free[other]) < slack
    for name, layer in layers.items():
        if name not in free and free:  # full: its proportional share would not have fitted
            most = max(ratio + Fraction(1, sum(layers[n].shape)) for n, ratio in free.items())
            assert most * sum(layer.shape) >= layer.total - 1


def rigl(shapes, density):
    """The published loop by hand: the layers of largest raw density become dense until no density exceeds 1."""
    dense = set()
    while True:
        budget = density * sum(prod(s) for s in shapes) - sum(prod(shapes[i]) for i in dense)
        raw = {i: Fraction(sum(s), prod(s)) for i, s in enumerate(shapes) if i not in dense}
        if not raw:
            return dense, {}
        eps = budget / sum(raw[i] * prod(shapes[i]) for i in raw)
        if max(raw.values()) * eps <= 1:
            return dense, {i: eps * r for i, r in raw.items()}
        dense |= {i for i, r in raw.items() if r == max(raw.values())}


@pytest.mark.parametrize(
    ("density", "full", "share"), [("0.2", 8, 0.4138), ("0.1", 1, 0.2418), ("0.05", 0, 0.1217), ("0.02", 0, 0.0487)]
)
def test_erk_on_resnet_50(density, full, share, resnet_50):
    layers, macs = resnet_50
    kept = counts(ERK, layers, Density(Fraction(density)))
    assert sum(kept[n] == layer.total for n, layer in layers.items()) == full
    multiply_adds = sum(macs[n] * kept[n] / layers[n].total for n in layers)
    assert multiply_adds / sum(macs.values()) == pytest.approx(share, abs=5e-4)
    dense, rest = rigl([layer.shape for layer in layers.values()], Fraction(density))
    names = list(layers)
    assert {n for n in layers if kept[n] == layers[n].total} == {names[i] for i in dense}
    assert all(abs(kept[names[i]] - d * layers[names[i]].total) < 2 for i, d in rest.items())


@pytest.fixture(scope="module")
def resnet_50():
    """Its layers and their multiply-adds at 224 pixels."""
    import torch

    from lthbench.evaluation.counts import multiply_adds
    from lthbench.models import ModelSettings, create
    from lthbench.pruning.prunable import prunable

    with torch.device("meta"):
        net = create(ModelSettings.of("resnet_50", {}, (3, 224, 224), 1000))
        macs = multiply_adds(net, (3, 224, 224))
    weights = {n: w.parameter for n, w in prunable(net, "weights").items()}
    return {n: Layer("conv", w.numel(), w.numel(), tuple(w.shape)) for n, w in weights.items()}, macs


@given(dimensions, densities, st.data())
def test_what_a_layer_has_lost_bounds_its_count(shapes, density, data):
    """In proportion, as much as is there, and the exact total: whatever an earlier round has left of each layer."""
    alive = [data.draw(st.integers(1, prod((o, i, k, k)))) for o, i, k in shapes]
    layers = convolutions(shapes, alive)
    total = sum(layer.total for layer in layers.values())
    assume(0 < Density(density).kept(total) <= sum(layer.alive for layer in layers.values()))
    smart = Allocation("smart_ratio", {})
    for allocation in (ERK, Allocation("given", {}, layers={"conv": "0.3", "0": "1"}), smart):
        kept = counts(allocation, layers, Density(density))
        assert sum(kept.values()) == Density(density).kept(total)
        assert all(0 <= kept[name] <= layer.alive for name, layer in layers.items())


def test_given_densities_hold_as_they_are_where_they_meet_the_sparsity():
    layers = {"a": Layer("linear", 1000, 1000), "b": Layer("linear", 500, 500), "c": Layer("output", 50, 50)}
    assert counts(GIVEN, layers, Density(Fraction(400, 1550))) == {"a": 100, "b": 250, "c": 50}
    assert counts(GIVEN, layers, Density(Fraction(225, 1550))) == {"a": 56, "b": 141, "c": 28}
    more = counts(GIVEN, layers, Density(Fraction(800, 1550)))  # c is full, b becomes so
    assert more == {"a": 250, "b": 500, "c": 50}
    with pytest.raises(UserError, match=r"^allocation\.layers has no number for 'd', nor for 'conv' layers$"):
        groups(GIVEN, {**layers, "d": Layer("conv", 9, 9)}, Density(Fraction(1, 2)), 1)
    with pytest.raises(UserError, match=r"^allocation\.layers: this network has no 'b'; "):
        groups(GIVEN, {"a": Layer("linear", 9, 9)}, Density(Fraction(1, 2)), 1)
    nothing = Allocation("given", {}, layers={"conv": "0"})
    with pytest.raises(UserError, match=r"^allocation: densities of 0 leave no room for 4 weights$"):
        groups(nothing, {"a": Layer("conv", 9, 9)}, Density(Fraction(1, 2)), 1)


def test_in_proportion_until_full():
    sizes = {"a": Fraction(10), "b": Fraction(10), "c": Fraction(20)}
    assert proportional(sizes, {"a": 100, "b": 5, "c": 100}, 20) == {"a": 5, "b": 5, "c": 10}
    assert proportional(sizes, {"a": 100, "b": 5, "c": 100}, 35) == {"a": 10, "b": 5, "c": 20}
    assert proportional(sizes, {"a": 8, "b": 5, "c": 100}, 110) == {"a": 8, "b": 5, "c": 97}


def test_smart_ratios_fall_with_depth_and_spare_linear_layers():
    """Su et al.: (L-l+1)^2 + (L-l+1) for layer l of L, linear layers at 0.3."""
    layers = {f"c{i}": Layer("conv", 9000, 9000) for i in range(4)} | {"fc": Layer("output", 1001, 1001)}
    kept = counts(Allocation("smart_ratio", {}, linear="0.3"), layers, Density(Fraction(3, 40)))
    total = Density(Fraction(3, 40)).kept(37001)
    assert kept["fc"] == 300 and sum(kept.values()) == total
    ratios = [30, 20, 12, 6]
    for i, ratio in enumerate(ratios):
        assert abs(kept[f"c{i}"] - Fraction((total - 300) * ratio, sum(ratios))) < 1
    vgg = counts(Allocation("smart_ratio", {}, vgg=True), layers, Density(Fraction(3, 40)))
    ratios = [Fraction(30), Fraction(20, 4), Fraction(12, 9), Fraction(6, 16)]
    for i, ratio in enumerate(ratios):
        assert abs(vgg[f"c{i}"] - (total - 300) * ratio / sum(ratios)) < 1


def test_what_a_full_convolution_cannot_take_goes_forward():
    layers = {"a": Layer("conv", 10, 10), "b": Layer("conv", 1000, 1000), "c": Layer("conv", 5, 5)}
    kept = counts(Allocation("smart_ratio", {}), layers, Density(Fraction(508, 1015)))
    assert largest_remainder({"a": 10 * 12, "b": 1000 * 6, "c": 5 * 2}, 508) == {"a": 10, "b": 497, "c": 1}
    assert kept == {"a": 10, "b": 497, "c": 1}
    small = {"a": Layer("conv", 100, 100), "b": Layer("conv", 100, 100), "c": Layer("conv", 100, 100)}
    assert largest_remainder({"a": 12, "b": 6, "c": 2}, 240) == {"a": 144, "b": 72, "c": 24}
    assert counts(Allocation("smart_ratio", {}), small, Density(Fraction(4, 5))) == {"a": 100, "b": 100, "c": 40}
    full = counts(Allocation("smart_ratio", {}), layers | {"fc": Layer("output", 100, 100)}, Density(Fraction(1)))
    assert full == {"a": 10, "b": 1000, "c": 5, "fc": 100}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"fc": Layer("output", 100, 100)}, "allocation=smart_ratio needs convolutions: it fixes the density of"),
        (
            {"c": Layer("conv", 10, 10), "fc": Layer("output", 100, 100)},
            r"allocation=smart_ratio keeps 30 weights of linear layers \(allocation.linear=3/10\), more than the 11 ",
        ),
    ],
)
def test_where_there_is_no_smart_ratio(layers, message):
    with pytest.raises(UserError, match=f"^{message}"):
        groups(Allocation("smart_ratio", {}), layers, Density(Fraction(1, 10)), 1)


@pytest.mark.parametrize("name", ["global", "uniform", "erk", "smart_ratio"])
def test_a_target_that_leaves_no_weight_is_refused(name):
    layers = {"a": Layer("conv", 300, 300, (10, 10, 1, 3))}
    with pytest.raises(UserError, match=r"^sparsity: of 300 prunable weights less than one would stay$"):
        groups(Allocation(name, {}), layers, Density(Fraction(1, 1000)), 1)


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=30), st.sampled_from(["0", "0.25", "0.5", "1", "3"]))
def test_han_keeps_what_is_above_so_many_standard_deviations(values, quality):
    """O42: the exact count, and fewer with a higher threshold."""
    import statistics

    import torch

    values = [float(v) for v in values]
    std = statistics.pstdev(values)
    assume(all(abs(abs(v) - float(quality) * std) > 1e-5 for v in values))
    layers = {"a": Layer("linear", 50, len(values), (5, 10), torch.tensor(values))}
    kept = counts(Allocation("threshold", {}, quality=quality), layers)["a"]
    assert kept == sum(abs(v) >= float(quality) * std for v in values)
    higher = Allocation("threshold", {}, layers={"a": "2"}, quality=quality)
    assert counts(higher, layers)["a"] <= kept or float(quality) > 2
