"""What a page says of networks beyond accuracy, where corrupted images were looked at: calibration, the worst class,
and accuracy by corruption."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lthbench.report.board import Board, Entry
from lthbench.report.quantities import ood_accuracy
from lthbench.report.section import Section

Run = dict[str, Any]


def section(board: Board) -> Section | None:
    """None where no result holds accuracies on corrupted images."""
    cells = [e for e in board.entries if any("cifar_c" in run["metrics"] for run in e.runs)]
    if not cells:
        return None
    several = len({e.asked for e in cells if e.sparsity}) > 1
    names = [f"{e.label}, {100 * (e.sparsity or 0):.4g} %" if several else e.label for e in cells]
    by_corruption: dict[str, Any] = {name: None for e in cells for run in e.runs for name in _by_corruption(run)}
    head = ["", "accuracy", "worst class", "calibration error", "corrupted images"]
    measures: list[Callable[[Run], float]] = [
        lambda run: _percent(run["metrics"]["test"]["accuracy"]),
        lambda run: _percent(run["metrics"]["test"].get("worst_class")),
        lambda run: _percent(run["metrics"]["test"].get("ece")),
        ood_accuracy,
    ]
    rows = [[name, *(_text(e, measure) for measure in measures)] for name, e in zip(names, cells)]
    each = [[c, *(_text(e, partial(_under, c), 1) for e in cells)] for c in by_corruption]
    about = f"In percent, on test images; calibration error over 15 bins (Guo et al. 2017). {_how(cells)}"
    by = "By corruption, the mean over severities:"
    return Section("Robustness", [about, [head, *rows], by, [["", *names], *each]])


def _how(cells: Sequence[Entry]) -> str:
    """Which corrupted images, in words."""
    said = next(run["config"]["corruptions"] for e in cells for run in e.runs if "corruptions" in run["config"])
    images = f"{said['images']:,} of them, drawn by seed {said['seed']}" if said["images"] else "all of them"
    source = "the published files" if said["version"] == "official" else "computed with the published constants"
    severities = ", ".join(map(str, said["severities"]))
    return (
        f"Corrupted as in CIFAR-C (Hendrycks and Dietterich 2019), {source}: {len(said['corruptions'])} corruptions at "
        f"severities {severities}, {images}."
    )


def _by_corruption(run: Run) -> dict[str, list[float]]:
    found: dict[str, list[float]] = run["metrics"].get("cifar_c", {}).get("by_corruption", {})
    return found


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100 * value


def _under(corruption: str, run: Run) -> float:
    """Accuracy under a corruption, in percent: the mean over severities."""
    values = _by_corruption(run).get(corruption)
    return 100 * statistics.fmean(values) if values else math.nan


def _text(e: Entry, measure: Callable[[Run], float], digits: int = 2) -> str:
    """Mean and standard deviation over the runs that have it."""
    values = [value for value in map(measure, e.runs) if math.isfinite(value)]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"
