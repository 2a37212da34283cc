"""Accuracy against sparsity (of one sparsity: by method), with the spread over seeds: as a file, and as a drawing in
the page."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from html import escape
from typing import Any

from lthbench.report.board import Board, Entry
from lthbench.report.quantities import QUANTITIES

# Okabe and Ito's colours, told apart with any colour vision; markers tell them apart in print.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000"]
MARKERS = "osD^vPX*"
INK = "#010203"  # in a drawing: becomes the page's own colour of text, light or dark


def plot(board: Board) -> bytes:
    """The picture as PNG: a line a method, bars of one standard deviation; the dense network as a dashed line."""
    scale = "" if board.scale == "paper" else f" (scale {board.scale})"
    figure = _figure(board, board.entries, f"{board.title}{scale}", COLOURS)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def drawing(board: Board, entries: Sequence[Entry], name: str) -> str:
    """The picture of some cells as an SVG element, whose text and axes have the colour of the text around it."""
    import matplotlib

    ink: Any = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": board.name, "figure.facecolor": "none"}
    with matplotlib.rc_context({**style, **ink, "axes.facecolor": "none", "grid.color": INK}):
        figure = _figure(board, entries, "", [*COLOURS[:-1], INK])
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    referred = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([\w.-]+)"', lambda m: m.group() if m[1] in referred else "", text)
    label = escape(f"{name}: {caption(board, entries)}")
    return text.replace(INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def caption(board: Board, entries: Sequence[Entry]) -> str:
    """What a picture of some cells shows."""
    shown = QUANTITIES[board.quantity][0]
    return f"{shown} by method" if _by_methods(entries) else f"{shown} against what remains of the prunable weights"


def _by_methods(entries: Sequence[Entry]) -> bool:
    """Whether all cells are of one sparsity, so that methods stand beside each other and there are no lines."""
    with_runs = [e for e in entries if e.runs]
    return len({e.asked for e in with_runs if e.sparsity}) == 1 and len({e.label for e in with_runs}) > 2


def _figure(board: Board, entries: Sequence[Entry], title: str, colours: Sequence[str]) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with_runs = [e for e in entries if e.runs]
    by_method = _by_methods(entries)
    height = max(4.6, 1.2 + 0.24 * len(with_runs)) if by_method else 4.6
    figure = Figure(figsize=(7.2, height), dpi=150, layout="constrained" if by_method else None)
    # a layout engine draws all twice: only where names of methods take the room that they need
    axes = figure.subplots() if by_method else figure.add_axes((0.105, 0.115, 0.875, 0.81 if title else 0.865))
    axes.grid(alpha=0.25)
    if by_method:
        _by_method(axes, with_runs, colours[0])
        axes.set_xlabel(QUANTITIES[board.quantity][0])
        axes.legend(fontsize=8, frameon=False, title=_spread(board), title_fontsize=8, loc="best")
        if title:
            figure.suptitle(_plain(title), x=0.01, horizontalalignment="left", fontsize=11)
        return figure
    by_label: dict[str, list[Entry]] = {}
    for e in with_runs:
        by_label.setdefault(e.label, []).append(e)
    style = 0
    for label, cells in by_label.items():
        pruned = sorted((e for e in cells if e.sparsity and e.sparsity < 1), key=lambda e: e.sparsity or 0)
        dense = [e for e in cells if not e.sparsity][:1]
        if dense and not pruned:
            _dense_line(axes, dense[0])
        elif pruned:
            turn = style // len(colours)  # a colour that comes again has another marker
            _line(axes, dense + pruned, label, colours[style % len(colours)], MARKERS[(style + turn) % len(MARKERS)])
            style += 1
    axes.set_xscale("log")
    axes.invert_xaxis()
    ticks = _thinned(sorted({_remains(e) for e in with_runs if e.sparsity != 1}))
    axes.set_xticks(ticks, [f"{d:.3g}" for d in ticks])
    axes.minorticks_off()
    axes.set_xlabel("prunable weights remaining, % (log scale)")
    axes.set_ylabel(QUANTITIES[board.quantity][0])
    axes.set_title(_plain(title), loc="left", fontsize=11)
    axes.legend(fontsize=8, frameon=False, title=_spread(board), title_fontsize=8, loc="best")
    return figure


def _by_method(axes: Any, cells: Sequence[Entry], colour: str) -> None:
    """A row a method, the dense network as a dashed line."""
    rows = [e for e in cells if e.sparsity]
    spreads = [0.0 if math.isnan(e.sd) else e.sd for e in rows]
    how: Any = {"fmt": "o", "color": colour, "markersize": 4.5, "capsize": 2.5}
    remains = f"{_remains(rows[0]):.3g} % of the weights"
    axes.errorbar([e.mean for e in rows], range(len(rows)), xerr=spreads, label=remains, **how)
    if paper := [(e.published.value, at) for at, e in enumerate(rows) if e.published is not None]:
        axes.plot(*zip(*paper), "D", color=colour, fillstyle="none", markersize=5.5, label="published")
    for dense in [e for e in cells if not e.sparsity][:1]:
        axes.axvline(dense.mean, color="0.5", linestyle="--", linewidth=1.2, label=_plain(dense.label))
    axes.set_yticks(range(len(rows)), [_plain(textwrap.shorten(e.label, 48)) for e in rows], fontsize=9)
    axes.invert_yaxis()


def _line(axes: Any, line: Sequence[Entry], label: str, colour: str, marker: str) -> None:
    """A method: its runs, and dotted the published numbers."""
    axes.errorbar(
        list(map(_remains, line)),
        [e.mean for e in line],
        yerr=[0.0 if math.isnan(e.sd) else e.sd for e in line],
        label=_plain(label),
        color=colour,
        marker=marker,
        markersize=4.5,
        linewidth=1.4,
        capsize=2.5,
    )
    if paper := [e for e in line if e.published is not None]:
        axes.plot(
            list(map(_remains, paper)),
            [e.published.value for e in paper if e.published],
            label=_plain(f"{label}, published"),
            color=colour,
            linestyle=":",
            linewidth=1.3,
            alpha=0.9,
        )


def _remains(e: Entry) -> float:
    return 100 * (1 - (e.sparsity or 0))


def _dense_line(axes: Any, dense: Entry) -> None:
    axes.axhline(dense.mean, color="0.5", linestyle="--", linewidth=1.2, label=_plain(dense.label))
    if not math.isnan(dense.sd):
        axes.axhspan(dense.mean - dense.sd, dense.mean + dense.sd, color="0.5", alpha=0.12, linewidth=0)


def _plain(text: str) -> str:
    """A text that Matplotlib takes as it is: no formula, and not hidden from the legend."""
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")


def _spread(board: Board) -> str:
    return "one seed" if board.seeds() == "1" else f"mean ± sd, n = {board.seeds()}"


def _thinned(ticks: list[float]) -> list[float]:
    """Ticks at least a factor 1.25 apart, so that their labels do not touch."""
    kept: list[float] = []
    for tick in reversed(ticks):
        if not kept or kept[-1] / tick > 1.25:
            kept.append(tick)
    return kept
