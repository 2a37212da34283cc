"""Tuning at equal budgets: `tune=KEY:VALUE,VALUE,...`, a small grid that each method is tried on.

Each value is a trial: all runs of the method with it. A cell shows the trial of best mean accuracy on the held-out
validation images; what it shows is that trial's test accuracy, which chose nothing. Methods with settings of their own
are named, `tune=grasp/pruner.temperature:1,200;snip/pruner.batch:64,128`, and have the same number of trials each; a
method that is not named is not tuned, and the page says so. Tuned methods stand beside each other, not beside a paper.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.cli.compose import Composer

FORM = "it is KEY:VALUE,VALUE or CRITERION/KEY:VALUE,VALUE;..."
GROUPS = ("allocation", "compress", "pruner", "recalibrate", "retrain", "rewind", "schedule", "soup", "train")
OTHERS = {"compress", "pruner", "pruner.criterion", "soup"}  # with another of these it is another method
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Tune:
    """The overrides that are the trials of each criterion; of `` those of all."""

    trials: Mapping[str, tuple[str, ...]]

    @property
    def budget(self) -> int:
        """Trials of a method."""
        return len(next(iter(self.trials.values())))

    @property
    def keys(self) -> set[str]:
        """The settings that are tried."""
        return {line.partition("=")[0] for lines in self.trials.values() for line in lines}

    def of(self, criterion: str) -> tuple[str, ...]:
        """The trials of a criterion; none: it is not tuned."""
        return self.trials.get(criterion, self.trials.get("", ()))


def tuning(composer: Composer, overrides: Sequence[str]) -> tuple[Tune | None, list[str]]:
    """What `tune=` says, and the other overrides. Raises UserError where it cannot be read, or is not fair."""
    said = [line for line in overrides if line.startswith("tune=")]
    rest = [line for line in overrides if line not in said]
    if not said:
        return None, rest
    trials: dict[str, tuple[str, ...]] = {}
    for part in said[-1].removeprefix("tune=").split(";"):
        name, colon, values = part.partition(":")
        criterion, _, key = name.rpartition("/")
        if not key or not colon or not values.strip(",") or criterion in trials:
            raise UserError(f"tune: cannot read '{part}'; {FORM}")
        if key.partition(".")[0] not in GROUPS or key in OTHERS:
            raise UserError(f"tune: {key} is no setting of a method; those are in {', '.join(GROUPS)}")
        trials[criterion] = tuple(choice.line for choice in composer.values(f"{key}={values}"))
        if len(set(trials[criterion])) < max(2, len(trials[criterion])):
            raise UserError(f"tune: '{part}' needs two values or more, each once")
    if len({len(each) for each in trials.values()}) > 1:
        counts = ", ".join(f"{len(each)} of {name or 'all'}" for name, each in trials.items())
        raise UserError(f"tune: {counts}: each method has the same number of trials")
    return Tune(trials), rest


@dataclass(frozen=True)
class Trial:
    """One point of a tuned grid: its cell, what is tried, the run's id, and its result if it is there."""

    label: str
    asked: str
    trial: str
    run: str
    result: Result | None = None


def check(tune: Tune, trials: Iterable[Trial], methods: Collection[str]) -> None:
    """Raise a UserError where a criterion is not in the grid, or has fewer trials in truth than others.

    Trials that are all one run are none: the setting has no effect on that method, which is then not tuned.
    """
    for name in tune.trials:
        if name and name not in methods:
            raise UserError(f"tune: nothing here prunes by '{name}'{near(name, methods)}")
    for (label, _), tried in _by_cell(trials).items():
        distinct = {tuple(sorted(t.run for t in each)) for each in tried.values()}
        if 1 < len(distinct) < len(tried):
            raise UserError(f"tune: {len(tried)} trials of {label} are {len(distinct)} different ones")


def chosen(tune: Tune, trials: Iterable[Trial]) -> tuple[list[tuple[str, str, Any]], list[str]]:
    """The cells to show (label, sparsity, result), and what was chosen how, a line a cell.

    A cell whose trials are not all there shows none.
    """
    shown: list[tuple[str, str, Any]] = []
    lines = [
        f"settings are chosen on validation images, by the mean over seeds; {tune.budget} trials a method and sparsity"
    ]
    for (label, asked), tried in _by_cell(trials).items():
        scores = {trial: _validation(each) for trial, each in tried.items()}
        missing = [trial for trial, score in scores.items() if score is None]
        if missing:
            shown += [(label, asked, None) for _ in next(iter(tried.values()))]
            lines.append(f"{label}, sparsity={asked}: {len(missing)} of {len(tried)} trials are not run")
            continue
        best = max(scores, key=lambda trial: scores[trial] or 0.0)
        shown += [(label, asked, t.result) for t in tried[best]]
        how = f"tuned, {best} ({100 * (scores[best] or 0):.2f} % on validation)"
        if len({t.run for each in tried.values() for t in each}) == len(tried[best]):
            how = "not tuned, what is tried has no effect there" if len(tried) > 1 else "not tuned"
        lines.append(f"{label}, sparsity={asked}: {how}")
    return shown, lines


def _by_cell(trials: Iterable[Trial]) -> dict[tuple[str, str], dict[str, list[Trial]]]:
    cells: dict[tuple[str, str], dict[str, list[Trial]]] = {}
    for t in trials:
        cells.setdefault((t.label, t.asked), {}).setdefault(t.trial, []).append(t)
    return cells


def _validation(trials: Sequence[Trial]) -> float | None:
    """Mean validation accuracy; None where a result is missing."""
    found = [t.result["metrics"]["val"]["accuracy"] or 0.0 for t in trials if t.result is not None]
    return statistics.fmean(found) if len(found) == len(trials) else None
