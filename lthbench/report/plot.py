"""Accuracy against sparsity, with the spread over seeds."""

from __future__ import annotations

import io
import math

from lthbench.report.board import Board, Entry
from lthbench.report.quantities import QUANTITIES

# Okabe and Ito's colours, told apart with any colour vision; markers tell them apart in print.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000"]
MARKERS = "osD^vPX*"


def plot(board: Board) -> bytes:
    """The picture as PNG: a line a method, bars of one standard deviation; the dense network as a dashed line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    pruned = [e for e in board.entries if e.runs and e.sparsity and e.sparsity < 1]
    densities = {e.asked: 100 * (1 - (e.sparsity or 0)) for e in pruned}
    style = 0
    for label in board.labels:
        entries = sorted((e for e in pruned if e.label == label), key=lambda e: -(e.sparsity or 0))[::-1]
        dense = next((e for e in board.entries if e.label == label and e.runs and not e.sparsity), None)
        if dense is not None and not entries:
            _dense_line(axes, dense)
            continue
        if not entries:
            continue
        line = ([dense] if dense else []) + entries
        axes.errorbar(
            [100 * (1 - (e.sparsity or 0)) for e in line],
            [e.mean for e in line],
            yerr=[0.0 if math.isnan(e.sd) else e.sd for e in line],
            label=label,
            color=COLOURS[style % len(COLOURS)],
            marker=MARKERS[style % len(MARKERS)],
            markersize=4.5,
            linewidth=1.4,
            capsize=2.5,
        )
        if paper := [e for e in line if e.published is not None]:
            axes.plot(
                [100 * (1 - (e.sparsity or 0)) for e in paper],
                [e.published.value for e in paper if e.published],
                label=f"{label}, published",
                color=COLOURS[style % len(COLOURS)],
                linestyle=":",
                linewidth=1.0,
                alpha=0.6,
            )
        style += 1
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks = sorted(
        set(densities.values()) | ({100.0} if any(e.runs and not e.sparsity for e in board.entries) else set())
    )
    axes.set_xticks(_thinned(ticks), [f"{d:.3g}" for d in _thinned(ticks)])
    axes.minorticks_off()
    axes.set_xlabel("prunable weights remaining, % (log scale)")
    axes.set_ylabel(QUANTITIES[board.quantity][0])
    scale = "" if board.scale == "paper" else f" (scale {board.scale})"
    axes.set_title(f"{board.title}{scale}", loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, title=_spread(board), title_fontsize=8, loc="best")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _dense_line(axes, dense: Entry) -> None:  # type: ignore[no-untyped-def]
    axes.axhline(dense.mean, color="0.35", linestyle="--", linewidth=1.2, label=dense.label)
    if not math.isnan(dense.sd):
        axes.axhspan(dense.mean - dense.sd, dense.mean + dense.sd, color="0.35", alpha=0.12, linewidth=0)


def _spread(board: Board) -> str:
    return "one seed" if board.seeds() == "1" else f"mean ± sd, n = {board.seeds()}"


def _thinned(ticks: list[float]) -> list[float]:
    """Ticks at least a factor 1.25 apart, so that their labels do not touch."""
    kept: list[float] = []
    for tick in reversed(ticks):
        if not kept or kept[-1] / tick > 1.25:
            kept.append(tick)
    return kept
