"""Ratios from interleaved blocks: A, B, A, B, ..., the ratio block by block, its median and the interval of that."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the bench: a figure with its 90 % interval, over `n` blocks; `aim` says what it should be, `note` of
    what it is."""

    name: str
    value: float
    low: float
    high: float
    n: int
    unit: str  # "x" for a ratio, "s", "%"
    note: str = ""
    aim: str = ""


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def ratio(name: str, ours: Callable[[], object], other: Callable[[], object], blocks: int, note: str = "") -> Row:
    """Time of `ours` over time of `other`, after one unmeasured block of each."""
    pairs = [(seconds(ours), seconds(other)) for _ in range(blocks + 1)][1:]
    a, b = (1e3 * statistics.median(times) for times in zip(*pairs))
    times = f"{a:.3g} against {b:.3g} ms"
    return row(name, [a / b for a, b in pairs], "x", f"{note}{'; ' if note else ''}a block: {times}")


def row(name: str, values: Sequence[float], unit: str, note: str = "") -> Row:
    """The median of measured values, with the interval of the median."""
    low, high = median_interval(values)
    return Row(name, statistics.median(values), low, high, len(values), unit, note)


def median_interval(values: Sequence[float], level: float = 0.9) -> tuple[float, float]:
    """The order statistics that hold the median with at least this probability (all values, where n is too small)."""
    ordered, n = sorted(values), len(values)
    below, k = 0.0, 0
    while k < n // 2 and below + math.comb(n, k) / 2**n <= (1 - level) / 2:
        below += math.comb(n, k) / 2**n
        k += 1
    return ordered[max(0, k - 1)], ordered[min(n - 1, n - k)]
