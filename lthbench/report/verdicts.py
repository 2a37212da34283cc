"""Our runs of a cell against the published number: reproduced, differs, undecided.

*Reproduced* is an equivalence test: the 90 % interval of the difference lies inside the margin, so that a true
difference of the margin's size passes in at most one of twenty cases, however noisy the runs. *Differs* is a t test
at 5 %, Holm-adjusted over the table's cells. Everything else is *undecided*.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lthbench.published import Published

ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """A word and what it rests on: ours minus published with its 90 % interval, runs on both sides, the margin."""

    word: str  # reproduced, differs, undecided, not run, not judged
    note: str = ""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    n_p: int | None = None
    margin: float | None = None
    p: float | None = None  # of no difference, two-sided, before Holm


@dataclass(frozen=True)
class Spread:
    """A standard deviation and its degrees of freedom."""

    sd: float
    df: float


def pooled(groups: Sequence[Sequence[float]]) -> Spread | None:
    """The common standard deviation of several groups of runs; None if no group has two."""
    several = [group for group in groups if len(group) > 1]
    df = sum(len(group) - 1 for group in several)
    if not df:
        return None
    return Spread(math.sqrt(sum((len(g) - 1) * statistics.variance(g) for g in several) / df), df)


def verdict(ours: Sequence[float], theirs: Published, margin: float, siblings: Spread | None = None) -> Verdict:
    """The verdict before Holm. `siblings`: the spread pooled over neighbouring cells, this one included."""
    n = len(ours)
    made = Verdict("undecided", n=n, n_p=theirs.n, margin=margin)
    if n == 0:
        return replace(made, word="not run")
    if not all(map(math.isfinite, ours)):
        return replace(made, note="a result is not finite")
    d = statistics.fmean(ours) - theirs.value
    made = replace(made, difference=d)
    own = pooled([ours])
    spread = siblings if siblings and (own is None or siblings.df > own.df) else own
    if spread is None:
        return replace(made, note="one run, no spread")
    se, df = standard_error(spread, n, theirs)
    if not se:
        return replace(made, note="no spread at all")
    from scipy.stats import t

    half = float(t.ppf(1 - ALPHA, df)) * se
    made = replace(made, low=d - half, high=d + half, p=float(2 * t.sf(abs(d) / se, df)))
    if theirs.statistic == "best":
        return replace(made, note="the published number is a best of several runs", p=None)
    differs = made.p is not None and made.p < ALPHA
    if abs(d) + half < margin:
        return replace(made, word="reproduced", note="shifted" if differs else "")
    return replace(made, word="differs") if differs else made


def standard_error(spread: Spread, n: int, theirs: Published) -> tuple[float, float]:
    """Standard error of the difference, and its degrees of freedom (Welch-Satterthwaite where both are measured)."""
    a = spread.sd**2 / n
    factor = 1.57 if theirs.statistic == "median" else 1.0  # the variance of a median, for many runs
    b = factor * (spread.sd if theirs.sd is None else theirs.sd) ** 2 / (theirs.n or 1)
    df = spread.df
    if theirs.sd is not None and theirs.n is not None and theirs.n > 1 and a + b > 0:
        df = (a + b) ** 2 / (a**2 / spread.df + b**2 / (theirs.n - 1))
    return math.sqrt(a + b + theirs.rounding), df


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def corrected(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of a table's cells, where `differs` has to survive Holm over all that have a p-value."""
    family = [v.p for v in verdicts if v.p is not None]
    adjusted = iter(holm(family))
    made = []
    for v in verdicts:
        p = next(adjusted) if v.p is not None else None
        if v.word == "differs" and p is not None and p >= ALPHA:
            v = replace(v, word="undecided", note="differs alone, not among the table's cells")
        made.append(v)
    return made


def attainable(n: int, theirs: Published, margin: float, sd: float | None = None) -> str:
    """The best verdict that `n` runs can reach, were there no difference: `reproduced`, or `undecided` and why.

    `sd` is the spread to expect of our runs; without it the published one.
    """
    if theirs.evidence == "unverified":
        return "not judged"
    if theirs.statistic == "best":
        return "undecided (the published number is a best of several runs)"
    expected = theirs.sd if sd is None else sd
    if expected is None:
        return "reproduced (if the spread is small)" if n > 1 else "undecided (one run, no spread)"
    if n < 2:
        return "undecided (one run, no spread)"
    from scipy.stats import t

    se, df = standard_error(Spread(expected, n - 1), n, theirs)
    half = float(t.ppf(1 - ALPHA, df)) * se
    return "reproduced" if half < margin else f"undecided (interval ± {half:.2g}, margin {margin:g})"
