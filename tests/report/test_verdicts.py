"""Verdicts on cells: the golden error rates by simulation, and what must never be judged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lthbench.published import Published
from lthbench.report.verdicts import Spread, Verdict, attainable, corrected, holm, pooled, verdict

DRAWS = 1200


def published(value: float, sd: float | None = None, n: int | None = None, **more: object) -> Published:
    settings = {"spread": "std", "low": None, "high": None, "statistic": "mean", "evidence": "verified", "source": "T"}
    return Published(value=value, sd=sd, n=n, **(settings | more))  # type: ignore[arg-type]


def rates(gap: float, sd: float, n: int, n_p: int, printed: str, margin: float = 1.0) -> tuple[float, float]:
    """Shares of `reproduced` and `differs` when the truths are `gap` apart and single runs scatter by `sd`."""
    draw = np.random.default_rng(n + 10 * n_p)
    words = []
    for _ in range(DRAWS):
        theirs, ours = draw.normal(90, sd, n_p), draw.normal(90 + gap, sd, n)
        siblings = None
        if printed == "nothing":
            siblings = pooled([list(ours), *(list(draw.normal(0, sd, 3)) for _ in range(7))])
        beside = published(
            theirs.mean(),
            theirs.std(ddof=1) if printed != "nothing" else None,
            n_p if printed == "both" else None,
        )
        words.append(verdict([float(x) for x in ours], beside, margin, siblings).word)
    return words.count("reproduced") / DRAWS, words.count("differs") / DRAWS


@pytest.mark.parametrize(
    ("sd", "n", "n_p", "printed", "expected"),
    [  # gap 0, 0.5, 1, 2: (reproduced, differs) of 4,000 draws, before Holm, margin 1
        (0.15, 3, 3, "both", [(1.00, 0.00), (0.92, 0.05), (0.037, 0.96), (0, 1)]),
        (0.25, 3, 3, "both", [(0.96, 0.00), (0.57, 0.17), (0.037, 0.86), (0, 1)]),
        (0.25, 3, 3, "sd", [(0.60, 0.00), (0.22, 0.05), (0.010, 0.41), (0, 0.94)]),
        (0.25, 3, 3, "nothing", [(0.98, 0.00), (0.52, 0.25), (0.011, 0.96), (0, 1)]),
        (0.25, 5, 5, "both", [(1.00, 0.00), (0.89, 0.11), (0.048, 0.95), (0, 1)]),
        (0.40, 3, 3, "both", [(0.53, 0.01), (0.28, 0.13), (0.042, 0.51), (0, 0.97)]),
        (0.40, 5, 5, "both", [(0.94, 0.01), (0.55, 0.27), (0.042, 0.89), (0, 1)]),
        (0.80, 3, 3, "both", [(0.06, 0.04), (0.05, 0.06), (0.022, 0.17), (0.00, 0.52)]),
    ],
)
def test_golden_error_rates(sd, n, n_p, printed, expected):
    for gap, (reproduced, differs) in zip((0, 0.5, 1.0, 2.0), expected):
        found = rates(gap, sd, n, n_p, printed)
        for share, golden in zip(found, (reproduced, differs)):
            noise = math.sqrt(max(golden * (1 - golden), 0.01) * (1 / DRAWS + 1 / 4000))
            # differs counts what no equivalence holds for, so it may fall short where both are true
            assert abs(share - golden) < 4 * noise + 0.06 * (gap == 0.5), (gap, found)


def test_a_true_gap_of_one_point_is_seldom_called_reproduced():
    for sd in (0.1, 0.2, 0.3, 0.5, 0.8):
        assert rates(1.0, sd, 3, 3, "both")[0] < 0.1


def test_a_margin_is_open():
    theirs = published(90.0, 0.0, 3)
    assert verdict([91.0, 91.0 + 1e-12, 91.0], theirs, 1.0).word == "differs"
    assert verdict([90.5, 90.5 + 1e-12, 90.5], theirs, 1.0).word == "reproduced"


def test_a_significant_difference_within_the_margin_is_marked():
    made = verdict([90.5, 90.51, 90.49], published(90.0, 0.01, 3), 1.0)
    assert (made.word, made.note) == ("reproduced", "shifted")
    assert made.difference == pytest.approx(0.5)


def test_no_run_and_one_run():
    assert verdict([], published(90.0, 0.1, 3), 1.0).word == "not run"
    alone = verdict([90.0], published(90.0, 0.1, 3), 1.0)
    assert (alone.word, alone.low) == ("undecided", None)
    assert verdict([90.0], published(90.0, 0.1, 3), 1.0, Spread(0.1, 8)).word == "reproduced"


def test_runs_that_all_agree_tell_no_spread():
    assert verdict([90.0, 90.0, 90.0], published(90.0), 1.0).word == "undecided"
    assert verdict([90.0, 90.0, 90.0], published(90.0, rounding=0.01), 1.0).word == "reproduced"


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_undecided(wrong):
    made = verdict([90.0, wrong, 90.1], published(90.0, 0.1, 3), 1.0)
    assert (made.word, made.difference) == ("undecided", None)


def test_the_best_of_several_runs_is_compared_but_not_judged():
    made = verdict([80.0, 80.1, 80.2], published(90.0, 0.1, 3, statistic="best"), 1.0)
    assert (made.word, made.p) == ("undecided", None)
    assert made.difference == pytest.approx(-9.9)


def test_a_median_scatters_more_than_a_mean():
    ours = [90.0, 90.3, 90.6]
    mean, median = (verdict(ours, published(90.0, 0.3, 3, statistic=s), 1.0) for s in ("mean", "median"))
    assert median.high - median.low > mean.high - mean.low


@given(
    ours=st.lists(st.floats(80, 95), min_size=3, max_size=6, unique=True),
    theirs=st.lists(st.floats(80, 95), min_size=3, max_size=6, unique=True),
)
def test_the_interval_is_welchs(ours, theirs):
    beside = published(float(np.mean(theirs)), float(np.std(theirs, ddof=1)), len(theirs))
    made = verdict(ours, beside, 1.0)
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.9)
    assert made.low == pytest.approx(expected.low, rel=1e-6, abs=1e-6)
    assert made.high == pytest.approx(expected.high, rel=1e-6, abs=1e-6)
    assert made.p == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False).pvalue, rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_the_textbooks(ps):
    """Reject in order of p while p_(i) (m - i + 1) < alpha; an adjusted p is the smallest alpha that rejects."""
    adjusted = holm(ps)
    for alpha in (0.01, 0.05, 0.3):
        rejected, order = set(), sorted(range(len(ps)), key=lambda i: ps[i])
        for rank, i in enumerate(order):
            if ps[i] * (len(ps) - rank) >= alpha:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p < alpha} == rejected


def test_differs_has_to_survive_the_table():
    cells = [Verdict("differs", p=0.03), *[Verdict("undecided", p=0.5)] * 4, Verdict("not run")]
    made = corrected(cells)
    assert made[0].word == "undecided"
    assert "alone" in made[0].note
    assert corrected([Verdict("differs", p=0.001), *cells[1:]])[0].word == "differs"
    assert corrected([Verdict("reproduced", p=0.03), *cells[1:]])[0].word == "reproduced"


def test_faithful_tables_seldom_differ():
    """30 cells of a faithful reproduction: plain p < 0.05 would damn two tables of three."""
    draw = np.random.default_rng(1)
    false, tables = 0, 60
    for _ in range(tables):
        cells = []
        for _ in range(30):
            theirs, ours = draw.normal(90, 0.3, 3), draw.normal(90, 0.3, 3)
            cells.append(verdict(list(map(float, ours)), published(theirs.mean(), theirs.std(ddof=1), 3), 0.3))
        false += any(v.word == "differs" for v in corrected(cells))
    assert false <= 5


def test_pooling():
    assert pooled([]) is None
    assert pooled([[1.0], [2.0]]) is None
    assert pooled([[1.0, 3.0], [5.0], [0.0, 2.0]]) == Spread(math.sqrt(2), 2)


def test_the_best_verdict_that_can_be_reached():
    assert attainable(3, published(90, 0.2, 3), 1.0) == "reproduced"
    assert attainable(3, published(90, 0.8, 3), 1.0).startswith("undecided (interval")
    assert attainable(1, published(90, 0.2, 3), 1.0) == "undecided (one run, no spread)"
    assert attainable(3, published(90, evidence="unverified"), 1.0) == "not judged"
    assert attainable(3, published(90, 0.2, 3, statistic="best"), 1.0).startswith("undecided")
    assert attainable(3, published(90), 1.0) == "reproduced (if the spread is small)"
