"""A leaderboard: methods by sparsities, each cell the runs of its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lthbench.published import Paper, Published
from lthbench.report.claims import ClaimResult
from lthbench.report.quantities import QUANTITIES
from lthbench.report.verdicts import Verdict

Result = dict[str, Any]
ALIKE = 1.05  # epochs of training that differ by less are one budget: rewinding to step k saves k steps
NAMED = 4  # methods of the commonest budget are named up to this many
EVERYTHING = "runs"  # the name of the leaderboard that is no table: of all runs
LINES = 24  # more methods than this are too many for one picture


@dataclass
class Entry:
    """One cell: the runs of a method at a sparsity, and how many were asked for; the paper's number beside them.

    Its statistics are made when they are first asked for: fill it before.
    """

    label: str
    asked: str
    sparsity: float | None = None  # removed / total of the prunable weights, from the results
    runs: list[Result] = field(default_factory=list)
    planned: int = 0
    quantity: str = "accuracy"
    where: Mapping[str, Any] = field(default_factory=dict)  # the cell's place in the paper's words
    nominal: float | None = None  # the sparsity that was asked for, as a number
    counted: str = "prunable"  # what the paper's sparsity is over
    block: str = ""
    published: Published | None = None
    verdict: Verdict | None = None
    epochs: float | None = None  # of training that one of its runs rests on, shared or not
    stale: list[Result] = field(default_factory=list)  # the same settings, computed by an older version of a part

    @cached_property
    def values(self) -> list[float]:
        """The quantity of each run, by seed: accuracies in percent."""
        measure = QUANTITIES[self.quantity][1]
        return [measure(run) for run in self.runs]

    @cached_property
    def mean(self) -> float:
        return statistics.fmean(self.values) if self.runs else math.nan

    @cached_property
    def sd(self) -> float:
        """Sample standard deviation (n - 1); NaN for fewer than two runs."""
        return statistics.stdev(self.values) if len(self.runs) > 1 else math.nan

    @property
    def diverged(self) -> int:
        return sum(run["diverged_at"] is not None for run in self.runs)

    def number(self, value: float) -> str:
        """A value of this cell's quantity as a page shows it."""
        return f"{value:,.0f}" if self.quantity == "early_stop_iteration" else f"{value:.2f}"

    def text(self) -> str:
        """As a page shows it: mean ± sd, with n where seeds are missing and a dagger where runs diverged."""
        if not self.runs:
            return "stale" if self.stale else "not run"
        shown = self.number(self.mean) + (f" ± {self.number(self.sd)}" if len(self.runs) > 1 else "")
        if len(self.runs) < self.planned:
            shown += f" (n = {len(self.runs)} of {self.planned})"
        return shown + (f" †{self.diverged}" if self.diverged else "")


@dataclass
class Board:
    """A leaderboard of one table at one scale. `command` makes it again."""

    name: str
    title: str
    entries: list[Entry]
    command: str
    scale: str = "paper"
    quantity: str = "accuracy"
    margin: float | None = None
    paper: Paper | None = None
    claims: list[ClaimResult] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)  # what the paper does not say, and what was taken
    deviations: list[str] = field(default_factory=list)  # where the runs are not what the paper ran
    tuned: list[str] = field(default_factory=list)  # which settings were chosen, and how
    commands: Mapping[str, str] = field(default_factory=dict)  # of each method

    @property
    def drawn(self) -> bool:
        """Whether there is something for a picture, and not too much."""
        return 0 < len({e.label for e in self.entries if e.runs}) <= LINES

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(e.label for e in self.entries))

    @property
    def columns(self) -> list[str]:
        """The sparsities that were asked for, sparsest last; results tell what they came to."""
        by_asked = {e.asked: e for e in sorted(self.entries, key=_order)}
        return list(by_asked)

    @property
    def own(self) -> dict[str, str]:
        """The methods that are a user's own and not the paper's: label -> sha256 of the file."""
        found = ((e.label, run.get("config", {}).get("pruner", {})) for e in self.entries for run in e.runs[:1])
        return {label: p["criterion"]["source"] for label, p in found if "source" in p.get("criterion", {})}

    def cell(self, label: str, asked: str) -> Entry | None:
        return next((e for e in self.entries if e.label == label and e.asked == asked), None)

    def column_title(self, asked: str) -> str:
        """The sparsity of a column in percent, or as it was asked where no run tells it."""
        found = {f"{100 * e.sparsity:.4g} %" for e in self.entries if e.asked == asked and e.sparsity is not None}
        return found.pop() if len(found) == 1 else f"sparsity={asked}"

    def made_with(self) -> list[str]:
        """Versions and hardware of the runs."""
        return made_with(run for e in self.entries for run in e.runs)

    def seeds(self) -> str:
        counts = {len(e.runs) for e in self.entries if e.runs}
        return f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}" if counts else "0"

    def budgets(self) -> str:
        """Epochs of training by method, in words, where methods of one sparsity differ in them; empty where not."""
        beside: dict[tuple[str, str], list[float]] = {}
        spans: dict[str, list[float]] = {}
        for e in self.entries:
            if e.epochs is not None:
                beside.setdefault((e.block, e.asked), []).append(e.epochs)
                spans.setdefault(e.label, []).append(e.epochs)
        if not any(max(each) > ALIKE * min(each) for each in beside.values()):
            return ""
        methods: dict[str, list[str]] = {}
        for label, each in spans.items():
            low, high = (f"{epochs:.4g}" for epochs in (min(each), max(each)))
            methods.setdefault(low if low == high else f"{low} to {high}", []).append(label)
        *few, (span, labels) = sorted(methods.items(), key=lambda item: len(item[1]))
        others = labels if len(labels) <= NAMED else ["all others"]
        said = [f"{epochs} ({'; '.join(those)})" for epochs, those in [*few, (span, others)]]
        return f"Budgets differ; epochs of training that a run rests on: {', '.join(said)}."

    @property
    def early(self) -> list[str]:
        """Where each early ticket was drawn, a line a cell."""
        lines = []
        for e in self.entries:
            if found := [each for run in e.runs for each in run.get("early", {}).get("searches", [])]:
                epochs = ", ".join(f"{each['epoch']:.4g}" for each in found)
                ways = [each["drawn"] for each in found]
                rule = ways.count("by the rule")
                how = f"{rule} of {len(ways)} by the rule, others at the limit" if len(set(ways)) > 1 else ways[0]
                lines.append(f"{e.label}, sparsity={e.asked}: drawn after epoch {epochs}, {how}.")
        return [*lines, "The epochs of the search are part of each budget."] if lines else []

    @property
    def remarks(self) -> list[tuple[str, list[str]]]:
        """What is said beside the numbers, under headings."""
        said = [
            ("Early tickets", self.early),
            ("Assumptions", self.assumptions),
            ("Deviations", self.deviations),
            ("Tuning", self.tuned),
        ]
        return [(title, lines) for title, lines in said if lines]

    def judged(self) -> dict[str, int]:
        """How many cells have which verdict."""
        words = [e.verdict.word for e in self.entries if e.verdict is not None]
        return {word: words.count(word) for word in dict.fromkeys(words)}


def made_with(runs: Iterable[Result]) -> list[str]:
    """Versions and hardware of runs."""
    form = "lthbench {lthbench}, torch {torch}, {device} ({processor}, {threads} thread(s))"
    return sorted({form.format_map(run["environment"]) for run in runs})


def board(
    name: str, title: str, cells: Iterable[tuple[str, str, Result | None]], command: str, scale: str = "paper"
) -> Board:
    """Gather (label, sparsity asked, result or None) into a leaderboard."""
    entries: dict[tuple[str, str], Entry] = {}
    for label, asked, result in cells:
        entry = entries.setdefault((label, asked), Entry(label, asked))
        entry.planned += 1
        if result is not None:
            entry.runs.append(result)
            counted = result["sparsity"]["prunable"]
            entry.sparsity = counted["removed"] / counted["total"]
    return Board(name, title, list(entries.values()), command, scale)


def _order(entry: Entry) -> tuple[float, str]:
    known = entry.sparsity if entry.sparsity is not None else entry.nominal
    return (known if known is not None else 1.0, entry.asked)
