"""What is compared: numbers that a run's JSON holds or that its measured points give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]


def accuracy(run: Result) -> float:
    """Test accuracy of the reported state, in percent."""
    return 100 * _number(run["metrics"]["test"]["accuracy"])


def early_stop_iteration(run: Result) -> float:
    """The iteration of smallest validation loss among the measured points; NaN where none were measured."""
    points = {int(step): _number(point["loss"]) for step, point in run["curves"].get("val", {}).items()}
    finite = {step: loss for step, loss in points.items() if math.isfinite(loss)}
    return float(min(finite, key=lambda step: (finite[step], step))) if finite else math.nan


def accuracy_at_early_stop(run: Result) -> float:
    """Test accuracy, in percent, at the iteration of smallest validation loss."""
    step = early_stop_iteration(run)
    point = None if math.isnan(step) else run["curves"].get("test", {}).get(str(int(step)))
    return math.nan if point is None else 100 * _number(point["accuracy"])


def ood_accuracy(run: Result) -> float:
    """Mean accuracy on corrupted test images, in percent; NaN where none were looked at."""
    found = run["metrics"].get("cifar_c")
    return math.nan if found is None else 100 * _number(found["accuracy"])


def error_barrier(run: Result) -> float:
    """How far test error rises on the line between two copies above the mean of its ends, in percentage points."""
    line = run.get("line")
    return math.nan if line is None or "test" not in line else 100 * _number(line["test"]["barrier"])


def compression_rate(run: Result) -> float:
    """Bytes of the dense network over those of its file; NaN where it was not compressed."""
    found = run.get("compression")
    return math.nan if found is None else _number(found["rate"]["file"])


QUANTITIES: dict[str, tuple[str, Callable[[Result], float]]] = {
    "accuracy": ("Test accuracy in percent", accuracy),
    "accuracy_at_early_stop": ("Test accuracy in percent at the smallest validation loss", accuracy_at_early_stop),
    "ood_accuracy": ("Accuracy in percent on corrupted test images", ood_accuracy),
    "error_barrier": ("Test error barrier in percentage points", error_barrier),
    "compression": ("Compression rate, dense bytes over those of the file", compression_rate),
    "early_stop_iteration": ("Iteration of smallest validation loss", early_stop_iteration),
}


def _number(value: Any) -> float:
    """JSON has no NaN: null stands for it."""
    return math.nan if value is None else float(value)


def partly_collapsed(runs: Sequence[Result]) -> str:
    """How many runs have collapsed, in words, where some have and others have not: their mean is that of nothing."""
    fallen = collapsed(runs)
    return f"collapsed {fallen}/{len(runs)}" if 0 < fallen < len(runs) else ""


def collapsed(runs: Iterable[Mapping[str, Any]]) -> int:
    """How many runs are below twice the accuracy of chance."""
    fallen = 0
    for run in runs:
        accuracy, classes = run["metrics"]["test"]["accuracy"], run["config"]["data"]["classes"]
        fallen += accuracy is not None and accuracy < 2 / classes
    return fallen
