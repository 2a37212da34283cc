"""A paper's directional statements, judged on our runs.

A claim names two sides by the paper's words and the points where it holds. Every pair of cells that fits is a case,
judged alone by a one-sided test at 5 %: paired by seed where the two sides rest on a common trained stage, else
Welch. A claim is *supported* when at least its share of the judged cases is, *contradicted* when the rest can no
longer reach that: its p-value is the one of the case that decides. Those are Holm-adjusted over a paper's claims.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lthbench.published import Claim
from lthbench.report.cases import Pair, pairs, quantity_of
from lthbench.report.quantities import QUANTITIES, partly_collapsed
from lthbench.report.verdicts import ALPHA, holm

if TYPE_CHECKING:
    from lthbench.report.board import Entry


@dataclass(frozen=True)
class Case:
    """One pair of cells (or a cell and a number): left minus right with its 90 % interval."""

    left: str
    right: str
    word: str  # supported, contradicted, no difference, undecided, not run
    note: str = ""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    paired: bool = False
    p: float = 1.0  # of the claim being false
    against: float = 1.0  # of the claim being true


@dataclass(frozen=True)
class ClaimResult:
    """What our runs say of a claim: supported, contradicted, no difference, undecided, not run, not judged."""

    id: str
    text: str
    place: str
    relation: str
    quantity: str
    margin: float
    share: float
    evidence: str
    word: str
    note: str = ""
    cases: tuple[Case, ...] = field(default=())

    def count(self, word: str) -> int:
        """How many cases have a word."""
        return sum(case.word == word for case in self.cases)


def judge(claims: Iterable[Claim], entries: Sequence[Entry], quantity: str = "accuracy") -> list[ClaimResult]:
    """The claims of one paper on the cells of a table; `quantity` is compared where a claim names none."""
    made = []
    for claim in claims:
        about = quantity_of(claim, quantity)
        made.append(_result(claim, about, tuple(_case(claim, about, pair) for pair in pairs(claim, entries))))
    return _corrected(made)


# ---- one case


def _case(claim: Claim, quantity: str, pair: Pair) -> Case:
    measure = QUANTITIES.get(quantity, QUANTITIES["accuracy"])[1]
    left, right = pair.left, pair.right
    ours = {run["seed"]: measure(run) for run in left.runs}
    theirs = {run["seed"]: measure(run) for run in right.runs} if right else {}
    offset = f"{' + ' if right else ''}{pair.offset:g}" if pair.offset or not right else ""
    made = Case(_name(left), (_name(right) if right else "") + offset, "not run")
    if not ours or (right and not theirs):
        return made
    made = replace(made, word="undecided", n=min(len(ours), len(theirs)) if right else len(ours))
    if not all(map(math.isfinite, [*ours.values(), *theirs.values()])):
        return replace(made, note="a result is not finite")
    for entry in (left, right):
        if entry is not None and (note := partly_collapsed(entry.runs)):
            return replace(made, note=f"{_name(entry)}: {note}")
    paired = right is not None and set(ours) == set(theirs) and _share(left, right)
    others = [theirs[seed] for seed in ours] if paired else list(theirs.values())
    d, se, df = difference(list(ours.values()), others, paired)
    made = replace(made, paired=paired, difference=d - pair.offset)
    if not se:
        return replace(made, note="one run, no spread" if made.n < 2 else "no spread at all")
    return tested(made, claim.relation, claim.margin, d - pair.offset, se, df)


def difference(left: Sequence[float], right: Sequence[float], paired: bool) -> tuple[float, float, float]:
    """Mean of left minus right, its standard error and degrees of freedom; no error (0) where a side has one run.

    `right` may be empty: the mean of left alone.
    """
    if paired or not right:
        ds = [a - b for a, b in zip(left, right)] if paired else list(left)
        se = statistics.stdev(ds) / math.sqrt(len(ds)) if len(ds) > 1 else 0.0
        return statistics.fmean(ds), se, len(ds) - 1
    d = statistics.fmean(left) - statistics.fmean(right)
    if min(len(left), len(right)) < 2:
        return d, 0.0, 0
    a, b = (statistics.variance(side) / len(side) for side in (left, right))
    if a + b == 0:
        return d, 0.0, 0
    return d, math.sqrt(a + b), (a + b) ** 2 / (a**2 / (len(left) - 1) + b**2 / (len(right) - 1))


def tested(case: Case, relation: str, margin: float, d: float, se: float, df: float) -> Case:
    """The case with its word, interval and p-values."""
    from scipy.stats import t

    half = float(t.ppf(1 - ALPHA, df)) * se
    low, high = d - half, d + half

    def above(bound: float) -> float:
        """The p-value of a true difference at or below `bound`."""
        return float(t.sf((d - bound) / se, df))

    def below(bound: float) -> float:
        return float(t.cdf((d - bound) / se, df))

    note = ""
    if relation == "~":
        p, against = max(above(-margin), below(margin)), min(below(-margin), above(margin))
    else:
        bound = -margin if relation == ">=" else 0.0
        p, against = above(bound), below(bound)
        note = f"by at least {margin:g}" if relation == ">" and margin and low > margin else ""
    word = "supported" if p < ALPHA else "contradicted" if against < ALPHA else "undecided"
    if relation == ">" and word == "undecided" and -margin < low and high < margin:
        word = "no difference"
    return replace(case, word=word, note=note, low=low, high=high, p=p, against=against)


def _share(left: Entry, right: Entry) -> bool:
    """Whether the two sides' runs of each seed rest on a common trained stage."""

    def trained(run: Mapping[str, Any]) -> set[str]:
        return {ref.partition("@")[0] for ref in run["stages"].values() if "@" in ref}

    others = {run["seed"]: trained(run) for run in right.runs}
    return all(trained(run) & others[run["seed"]] for run in left.runs)


def _name(entry: Entry) -> str:
    return f"dense ({entry.label})" if entry.nominal == 0 else f"{entry.label} at {100 * (entry.nominal or 0):.4g} %"


# ---- the claim


def _result(claim: Claim, quantity: str, cases: tuple[Case, ...]) -> ClaimResult:
    made = ClaimResult(
        id=claim.id,
        text=claim.statement,
        place=claim.place,
        relation=claim.relation,
        quantity=quantity,
        margin=claim.margin,
        share=claim.share,
        evidence=claim.evidence.level,
        word="not run",
        cases=cases,
    )
    if claim.evidence.level == "unverified":
        return replace(made, word="not judged", note="unverified: not known to be what the paper says")
    judged = [case for case in cases if case.word != "not run"]
    if not judged:
        return made
    needed = math.ceil(claim.share * len(judged))
    if sum(case.word == "no difference" for case in judged) >= needed:
        return replace(made, word="no difference")
    p, against = _deciding(made)
    return replace(made, word="supported" if p < ALPHA else "contradicted" if against < ALPHA else "undecided")


def _deciding(claim: ClaimResult) -> tuple[float, float]:
    """The p-values of a claim: of the last case that its share needs, for it and against it."""
    judged = [case for case in claim.cases if case.word != "not run"]
    needed = math.ceil(claim.share * len(judged))
    return sorted(c.p for c in judged)[needed - 1], sorted(c.against for c in judged)[len(judged) - needed]


def _corrected(results: list[ClaimResult]) -> list[ClaimResult]:
    """The words that survive Holm over the paper's claims."""
    tested = [i for i, r in enumerate(results) if r.word in ("supported", "contradicted", "undecided")]
    for side, word in enumerate(("supported", "contradicted")):
        for i, p in zip(tested, holm([_deciding(results[i])[side] for i in tested])):
            if results[i].word == word and p >= ALPHA:
                results[i] = replace(results[i], word="undecided", note=f"{word} alone, not among the paper's claims")
    return results
