"""Tuning at equal budgets: `tune=KEY:VALUE,VALUE,...`, a small grid that each method is tried on.

Each value is a trial: all runs of the method with it. A cell shows the trial of best mean accuracy on the held-out
validation images; what it shows is that trial's test accuracy, which chose nothing. Methods with settings of their own
are named, `tune=grasp/pruner.temperature:1,200;snip/pruner.batch:64,128`, and have the same number of trials each; a
method that is not named is not tuned, and the page says so. Tuned methods stand beside each other, not beside a paper.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lthbench.base.errors import UserError

FORM = "it is KEY:VALUE,VALUE or CRITERION/KEY:VALUE,VALUE;..."
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Tune:
    """The overrides that are the trials of each criterion; of `` those of all."""

    trials: Mapping[str, tuple[str, ...]]

    @property
    def budget(self) -> int:
        """Trials of a method."""
        return len(next(iter(self.trials.values())))

    def of(self, criterion: str) -> tuple[str, ...]:
        """The trials of a criterion; none: it is not tuned."""
        return self.trials.get(criterion, self.trials.get("", ()))


def tuning(overrides: Sequence[str]) -> tuple[Tune | None, list[str]]:
    """What `tune=` says, and the other overrides. Raises UserError where it cannot be read, or is not fair."""
    said = [line for line in overrides if line.startswith("tune=")]
    rest = [line for line in overrides if line not in said]
    if not said:
        return None, rest
    trials: dict[str, tuple[str, ...]] = {}
    for part in said[-1].removeprefix("tune=").split(";"):
        name, colon, values = part.partition(":")
        criterion, _, key = name.rpartition("/")
        if not key or not colon or not all(values.split(",")) or criterion in trials:
            raise UserError(f"tune: cannot read '{part}'; {FORM}")
        trials[criterion] = tuple(f"{key}={value}" for value in values.split(","))
    if len({len(each) for each in trials.values()}) > 1:
        counts = ", ".join(f"{len(each)} of {name or 'all'}" for name, each in trials.items())
        raise UserError(f"tune: {counts}: each method has the same number of trials")
    return Tune(trials), rest


@dataclass(frozen=True)
class Trial:
    """One point of a tuned grid and its result, if it is there."""

    label: str
    asked: str
    trial: str
    result: Result | None


def chosen(tune: Tune, trials: Iterable[Trial]) -> tuple[list[tuple[str, str, Any]], list[str]]:
    """The cells to show (label, sparsity, result), and what was chosen how, a line a cell.

    A cell whose trials are not all there shows none.
    """
    cells: dict[tuple[str, str], dict[str, list[Result | None]]] = {}
    for t in trials:
        cells.setdefault((t.label, t.asked), {}).setdefault(t.trial, []).append(t.result)
    shown: list[tuple[str, str, Any]] = []
    lines = [
        f"settings are chosen on validation images, by the mean over seeds; {tune.budget} trials a method and sparsity"
    ]
    for (label, asked), tried in cells.items():
        scores = {trial: _validation(results) for trial, results in tried.items()}
        missing = [trial for trial, score in scores.items() if score is None]
        if missing:
            shown += [(label, asked, None) for _ in next(iter(tried.values()))]
            lines.append(f"{label}, sparsity={asked}: {len(missing)} of {len(tried)} trials are not run")
            continue
        best = max(scores, key=lambda trial: scores[trial] or 0.0)
        shown += [(label, asked, result) for result in tried[best]]
        how = f"tuned, {best} ({100 * (scores[best] or 0):.2f} % on validation)" if best else "not tuned"
        lines.append(f"{label}, sparsity={asked}: {how}")
    return shown, lines


def _validation(results: Sequence[Result | None]) -> float | None:
    """Mean validation accuracy; None where a result is missing."""
    found = [r["metrics"]["val"]["accuracy"] or 0.0 for r in results if r is not None]
    return statistics.fmean(found) if len(found) == len(results) else None
