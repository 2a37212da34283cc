"""A leaderboard: methods by sparsities, each cell the runs of its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Result = dict[str, Any]


@dataclass
class Entry:
    """One cell: the runs of a method at a sparsity, and how many were asked for."""

    label: str
    asked: str
    sparsity: float | None = None  # removed / total of the prunable weights, from the results
    runs: list[Result] = field(default_factory=list)
    planned: int = 0
    published: float | None = None  # a paper's number, in percent, to stand beside ours

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies in percent, by seed."""
        return [100 * run["metrics"]["test"]["accuracy"] for run in self.runs]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies) if self.runs else math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation (n - 1); NaN for fewer than two runs."""
        return statistics.stdev(self.accuracies) if len(self.runs) > 1 else math.nan

    @property
    def diverged(self) -> int:
        return sum(run["diverged_at"] is not None for run in self.runs)

    def text(self) -> str:
        """As a page shows it: mean ± sd, with n where seeds are missing and a dagger where runs diverged."""
        if self.published is not None:
            return f"{self.published:.2f}"
        if not self.runs:
            return "not run"
        shown = f"{self.mean:.2f}" + (f" ± {self.sd:.2f}" if len(self.runs) > 1 else "")
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

    def seeds(self) -> str:
        counts = {len(e.runs) for e in self.entries if e.runs}
        return f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}" if counts else "0"


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
    return (entry.sparsity if entry.sparsity is not None else 1.0, entry.asked)
