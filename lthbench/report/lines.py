"""Lines between networks: error and loss on the way, and barriers against the step from which two copies part."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lthbench.report.plot import COLOURS, MARKERS

STABLE = 2.0  # percentage points: below, Frankle et al. call a network stable


@dataclass
class Barriers:
    """The barriers of one network at one sparsity, parting at step `k`, over seeds. In percentage points."""

    network: str
    sparsity: float
    k: int
    barriers: dict[str, list[float]] = field(default_factory=dict)  # by split
    accuracies: list[float] = field(default_factory=list)

    def text(self, split: str) -> str:
        """Mean and sample standard deviation."""
        return mean_and_sd(self.barriers.get(split, []))


def mean_and_sd(values: list[float], digits: str = ".2f") -> str:
    """Mean and sample standard deviation as text."""
    if not values:
        return "none"
    spread = f" ± {statistics.stdev(values):{digits}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{digits}}{spread}"


def barriers(results: Iterable[dict[str, Any]]) -> list[Barriers]:
    """Gather the results of instability analysis, each once, by network, sparsity and k."""
    found: dict[tuple[str, float, int], Barriers] = {}
    for result in {result["id"]: result for result in results}.values():
        counted, retrain = result["sparsity"]["prunable"], result["config"]["retrain"]
        begun = (retrain[0] if isinstance(retrain, list) else retrain)["from"]
        k = result["config"]["steps"] if begun == "end" else begun
        network = f"{result['config']['model']['name']} on {result['config']['data']['name']}"
        key = (network, counted["removed"] / counted["total"], k)
        row = found.setdefault(key, Barriers(*key))
        row.accuracies.append(100 * result["metrics"]["test"]["accuracy"])
        for split, line in result["line"].items():
            if isinstance(line, dict) and line.get("barrier") is not None:
                row.barriers.setdefault(split, []).append(100 * line["barrier"])
    return [found[key] for key in sorted(found)]


def table(rows: list[Barriers]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the barriers, as text."""
    splits = sorted({split for row in rows for split in row.barriers})
    head = ["network", "sparsity", "k", "n", *(f"barrier on {split}, points" for split in splits), "test accuracy, %"]
    cells = []
    for row in rows:
        n = len(row.accuracies)
        shown = [row.text(split) for split in splits]
        place = [row.network, f"{100 * row.sparsity:.4g} %", str(row.k), str(n)]
        cells.append([*place, *shown, mean_and_sd(row.accuracies)])
    return head, cells


def markdown(title: str, rows: list[Barriers], command: str, picture: str, made: list[str]) -> str:
    """The barriers as a page; `made` says with what."""
    head, cells = table(rows)
    lines = [f"# {title}", "", f"![barrier against k]({picture})", ""]
    lines += ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *cells)]
    lines += [
        "",
        f"Barrier: the highest error on the line less the mean error of its ends; below {STABLE:g} points the",
    ]
    lines += ["networks are called stable (Frankle et al. 2020). Mean ± sd over n seeds.", "", f"    {command}", ""]
    lines += [f"Made with {'; '.join(made)}.", ""]
    return "\n".join(lines)


def plot_barriers(title: str, rows: list[Barriers], split: str = "test") -> bytes:
    """Barrier against k as PNG, a line a network and sparsity, bars of one standard deviation."""
    figure, axes = _figure()
    one = len({row.network for row in rows}) == 1
    for number, (network, sparsity) in enumerate(sorted({(row.network, row.sparsity) for row in rows})):
        line = [row for row in rows if (row.network, row.sparsity) == (network, sparsity) and row.barriers.get(split)]
        each = [row.barriers[split] for row in line]
        pruned = "dense" if not sparsity else f"{100 * sparsity:.3g} % pruned"
        axes.errorbar(
            [row.k for row in line],
            [statistics.fmean(values) for values in each],
            yerr=[statistics.stdev(values) if len(values) > 1 else 0.0 for values in each],
            label=pruned if one else f"{network}, {pruned}",
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4.5,
            linewidth=1.4,
            capsize=2.5,
        )
    axes.axhline(STABLE, color="0.5", linestyle=":", linewidth=1.2, label="stable below")
    ends = [row.k for row in rows if row.k] or [1]
    axes.set_xscale("symlog", linthresh=min(ends))
    axes.set_xlim(-0.2 * min(ends), 1.3 * max(ends))
    axes.set_xlabel("step k at which the copies part")
    axes.set_ylabel(f"{split} error barrier, percentage points")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(fontsize=8, frameon=False, title=f"mean ± sd, n = {_counts(rows)}", title_fontsize=8)
    return png(figure)


def plot_line(title: str, found: dict[str, Any]) -> bytes:
    """Error along a line as PNG, by split; dashed where BatchNorm's statistics are made anew at every point."""
    figure, axes = _figure()
    for style, lines in (("-", found), ("--", found.get("recalibrated", {}))):
        for number, split in enumerate(splits(lines)):
            errors = [100 * (1 - accuracy) for accuracy in lines[split]["accuracy"]]
            name = f"{split}{', statistics anew' if style == '--' else ''}"
            axes.plot(found["alphas"], errors, style, color=COLOURS[number], marker=".", label=name, linewidth=1.4)
    axes.set_xlabel("position on the line")
    axes.set_ylabel("error, %")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(fontsize=8, frameon=False)
    return png(figure)


def splits(lines: dict[str, Any]) -> list[str]:
    """The splits on which a line was measured."""
    return [name for name in ("train", "val", "test") if name in lines]


def _counts(rows: list[Barriers]) -> str:
    counts = sorted({len(row.accuracies) for row in rows})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _figure() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    return figure, axes


def png(figure: Any) -> bytes:
    """A figure as the bytes of a PNG file, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def finite(value: float | None) -> str:
    """A number for the terminal."""
    return "not a number" if value is None or math.isnan(value) else f"{value:.4g}"
