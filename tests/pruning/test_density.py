import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.pruning.density import Density, parse_sparsity, rooted

sparsities = st.fractions(0, 1, max_denominator=10**6).filter(lambda s: s < 1)


@pytest.mark.parametrize(
    ("sparsity", "total", "kept"),
    [
        ("0.9", 100, 10),
        ("0.98", 270896, 5418),
        ("0.29", 100, 71),
        ("0.5", 1, 0),  # half an element goes: round half up of what goes
        ("0.5", 3, 1),
        ("0.999", 266200, 266),
        ("0", 266200, 266200),
        ("0.1", 2**60, 2**60 - 115292150460684698),
    ],
)
def test_counts_of_a_sparsity(sparsity, total, kept):
    assert Density(1 - parse_sparsity(sparsity)).kept(total) == kept


@given(sparsities, st.integers(1, 10**8))
def test_what_goes_is_rounded_half_up(sparsity, total):
    removed = total - Density(1 - sparsity).kept(total)
    assert removed == math.floor(sparsity * total + Fraction(1, 2))


@given(sparsities.filter(bool), st.integers(1, 12), st.data(), st.integers(1, 10**7))
def test_a_power_is_within_half_a_weight_and_decides_like_exact_roots(sparsity, root, data, total):
    base, power = 1 - sparsity, data.draw(st.integers(1, root))
    density = rooted(base, power, root)
    removed = total - density.kept(total)
    # removed - 1/2 <= total (1 - base^(power/root)) < removed + 1/2, decided in whole numbers
    low, high = Fraction(2 * removed - 1, 2), Fraction(2 * removed + 1, 2)
    exact = base**power * Fraction(total) ** root
    assert (total - low) ** root >= exact
    assert max(total - high, Fraction(0)) ** root < exact


@given(sparsities, st.integers(1, 6), st.integers(1, 6))
def test_the_text_of_a_density_is_read_back(sparsity, power, root):
    density = rooted(1 - sparsity, power, root)
    assert Density.parse(str(density)) == density
    assert math.isclose(float(density), float(1 - sparsity) ** (power / root))


@pytest.mark.parametrize(
    ("density", "text"),
    [
        (Density(Fraction("0.1")), "1/10"),
        (rooted(Fraction("0.1"), 3, 5), "(1/10)^(3/5)"),
        (rooted(Fraction("0.1"), 6, 10), "(1/10)^(3/5)"),
        (rooted(Fraction("0.1"), 5, 5), "1/10"),
        (rooted(Fraction("0.04"), 1, 2), "1/5"),
        (rooted(Fraction("0.04"), 3, 2), "1/125"),
        (rooted(Fraction(8, 27), 2, 3), "4/9"),
        (rooted(Fraction(4, 5), 1, 2), "(4/5)^(1/2)"),
        (Density(Fraction(1)), "1/1"),
    ],
)
def test_one_density_is_one_text(density, text):
    assert str(density) == text


@given(st.fractions(0, 1, max_denominator=1000).filter(bool), st.integers(1, 6), st.integers(1, 6))
def test_perfect_powers_become_plain_fractions(base, power, root):
    assert rooted(base**root, power, root) == Density(base**power)


@given(sparsities.filter(bool), st.integers(2, 20), st.integers(1, 10**6))
def test_equal_factors_lead_down_to_the_target(sparsity, rounds, total):
    base = 1 - sparsity
    kept = [rooted(base, r, rounds).kept(total) for r in range(1, rounds + 1)]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] == Density(base).kept(total)


@given(sparsities)
def test_a_sparsity_is_read_as_exact_text(sparsity):
    assert parse_sparsity(str(sparsity)) == sparsity
    assert parse_sparsity(f" {sparsity} ") == sparsity


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("0.9", Fraction(9, 10)),
        (0.9, Fraction(9, 10)),
        ("9e-1", Fraction(9, 10)),
        ("9/10", Fraction(9, 10)),
        (0, Fraction(0)),
        ("level:0", 0),
        ("level:25", 25),
    ],
)
def test_spellings_of_a_sparsity(value, meant):
    parsed = parse_sparsity(value)
    assert parsed == meant
    assert type(parsed) is type(meant)


@pytest.mark.parametrize("value", ["1", "1.0", "-0.1", "90", "nan", "inf", "1/0", "", "many", "0,9", True, None])
def test_what_is_no_sparsity(value):
    with pytest.raises(UserError, match=r"^sparsity: .*0 <= s < 1"):
        parse_sparsity(value)


@pytest.mark.parametrize("value", ["level:", "level:-1", "level:1.5", "level:ten", "level:²"])
def test_what_is_no_level(value):
    with pytest.raises(UserError, match=f"^sparsity: '{value}' is not level:n"):
        parse_sparsity(value)


def test_a_list_is_pointed_to_multirun():
    with pytest.raises(UserError, match="-m runs a list"):
        parse_sparsity([0.5, 0.9])


@given(st.integers(1, 10**6), st.integers(1, 8), st.integers(1, 8))
def test_irrational_densities_are_kept_apart(n, power, root):
    assume(math.gcd(power, root) == 1 and root > 1)
    base = Fraction(n, n + 1)  # neighbours: never both perfect powers
    assume(n > 0)
    assert str(rooted(base, power, root)) == f"({n}/{n + 1})^({power}/{root})"
