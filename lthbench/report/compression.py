"""What a page says of compressed networks: sizes, rates and errors, and layer by layer beside what the paper prints."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from lthbench.report.board import Board, Entry
from lthbench.report.quantities import compression_rate
from lthbench.report.section import Section, Table

Run = dict[str, Any]
HEAD = ["", "rate", "without Huffman", "pruned", "file, bytes", "error before", "error after", "rise"]
LAYER = ["layer", "kept, %", "bits a weight", "... Huffman", "bits an index", "... Huffman", "size, %", "... Huffman"]
PRINTED = (
    "kept_percent", "weight_bits_pq", "weight_bits_pqh", "index_bits_pq", "index_bits_pqh", "size_percent_pq",
    "size_percent_pqh",
)  # fmt: skip


def section(board: Board) -> Section | None:
    """None where no result is a compressed network."""
    cells = [(e, runs) for e in board.entries if (runs := [run for run in e.runs if "compression" in run])]
    if not cells:
        return None
    parts: list[str | Table] = [
        "A rate is 32 bits for each weight and bias, over the bytes of the file (its head and checksum included); "
        "without Huffman codes; pruned only, with indices. Errors in percent on test images.",
        [HEAD, *([e.label, *_sizes(runs)] for e, runs in cells)],
    ]
    for e, runs in cells:
        beside = "; in brackets what the paper prints" if _printed(board, e) else ""
        parts += [f"{e.label}, by layer{beside}:", [LAYER, *_layers(board, e, runs)]]
    return Section("Compression", parts)


def _sizes(runs: Sequence[Run]) -> list[str]:
    def rate(stage: str) -> Callable[[Run], float]:
        return lambda run: float(run["compression"]["rate"][stage])

    return [
        _text(runs, compression_rate),
        _text(runs, rate("shared")),
        _text(runs, rate("pruned")),
        _text(runs, lambda run: run["compression"]["bytes"]["file"], 0),
        _text(runs, before),
        _text(runs, after),
        _text(runs, lambda run: after(run) - before(run)),
    ]


def before(run: Run) -> float:
    """Test error in percent of the network that was compressed."""
    return _error(run["compression"]["before"])


def after(run: Run) -> float:
    """Test error in percent of the network that the file holds."""
    return _error(run["metrics"]["test"])


def _error(metrics: Run) -> float:
    return math.nan if metrics["accuracy"] is None else 100 - 100 * float(metrics["accuracy"])


def _layers(board: Board, e: Entry, runs: Sequence[Run]) -> list[list[str]]:
    """One row a layer: means over runs, and the paper's numbers, which name layers in their own way, in their order."""
    printed = _printed(board, e)
    rows = []
    for number, name in enumerate(runs[0]["compression"]["layers"]):
        each = [run["compression"]["layers"][name] for run in runs]
        theirs = printed[number] if number < len(printed) else {}
        ours = [statistics.fmean(numbers) for numbers in zip(*map(numbers_of, each))]
        said = [
            f"{x:.2f}" + (f" ({theirs[key]:g})" if theirs.get(key) is not None else "") for x, key in zip(ours, PRINTED)
        ]
        rows.append([name, *said])
    return rows


def numbers_of(layer: Run) -> list[float]:
    """What a row of the table holds."""
    dense = layer["bytes"]["dense"]
    return [
        100 * layer["kept"] / layer["total"],
        layer["weight_bits"],
        layer["weight_bits_huffman"],
        layer["index_bits"],
        layer["index_bits_huffman"],
        100 * layer["bytes"]["shared"] / dense,
        100 * layer["bytes"]["huffman"] / dense,
    ]


def _printed(board: Board, e: Entry) -> list[Run]:
    """The rows of the paper's table of this network's layers."""
    if board.paper is None:
        return []
    tables = (t for t in board.paper.tables if {"layer", *PRINTED} <= set(t.columns))
    rows = (dict(zip(t.columns, row)) for t in tables for row in t.rows)
    return [row for row in rows if row["model"] == e.where.get("model") and row["layer"] != "total"]


def _text(runs: Sequence[Run], measure: Callable[[Run], float], digits: int = 2) -> str:
    """Mean and standard deviation."""
    values = list(map(measure, runs))
    spread = f" ± {statistics.stdev(values):,.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):,.{digits}f}{spread}"
