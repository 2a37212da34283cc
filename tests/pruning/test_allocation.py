from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.pruning.allocation import Allocation, Layer, groups, largest_remainder
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


@given(layer_sizes, densities)
def test_global_ranks_all_layers_together(sizes, density):
    layers = {str(i): Layer("conv", n, n) for i, n in enumerate(sizes)}
    ((names, kept),) = groups(Allocation("global", {}), layers, Density(density), 1)
    assert names == list(layers)
    assert kept == Density(density).kept(sum(sizes))


@given(layer_sizes, densities)
def test_uniform_keeps_the_exact_total_and_each_layer_within_one_of_its_share(sizes, density):
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
    ],
)
def test_allocations_that_mean_nothing_are_refused(name, rates, message):
    with pytest.raises(UserError) as error:
        Allocation(name, rates)
    assert str(error.value) == message


def test_an_allocation_can_be_a_key():
    assert hash(LTH) == hash(Allocation("by_kind", dict(LTH.rates)))
