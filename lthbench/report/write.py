"""A leaderboard as Markdown, CSV, a picture, and in the terminal."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lthbench.report import compared, compression, robustness
from lthbench.report.board import Board, Entry
from lthbench.report.lines import barriers, plot_barriers
from lthbench.report.quantities import QUANTITIES
from lthbench.report.section import Section, pipe_table

RUNS = "runs.jsonl.gz"
WIDE = 8  # more sparsities than this stand in rows


def write(board: Board, folder: Path) -> list[Path]:
    """Write `<name>.md`, `.csv`, `.tex` and, where there are results, `.png` and `.cost.csv`; returns their paths."""
    from lthbench.report.latex import latex

    folder.mkdir(parents=True, exist_ok=True)
    made = {"md": markdown(board).encode(), "csv": table_csv(board).encode(), "tex": latex(board).encode()}
    if any(e.runs for e in board.entries):
        made |= {"png": _picture(board)} if board.drawn else {}
        made |= {"cost.csv": cost_csv(board).encode()}
    for kind, data in made.items():
        replace(folder / f"{board.name}.{kind}", data)
    return [folder / f"{board.name}.{kind}" for kind in made]


def _picture(board: Board) -> bytes:
    """Accuracy against sparsity, or barriers against the step at which copies part."""
    from lthbench.report.plot import plot

    rows = barriers(run for e in board.entries for run in e.runs if "line" in run)
    return plot_barriers(board.title, rows) if board.quantity == "error_barrier" and rows else plot(board)


def archive(board: Board, folder: Path) -> list[Path]:
    """Write a leaderboard and, beside it, the runs it rests on as one compressed JSONL; same runs, same bytes."""
    runs = {run["id"]: run for entry in board.entries for run in entry.runs}
    lines = "".join(json.dumps(runs[ident], sort_keys=True) + "\n" for ident in sorted(runs))
    paths = write(board, folder)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write(lines.encode())
    replace(folder / RUNS, packed.getvalue())
    return [*paths, folder / RUNS]


def unpack(folder: Path, runs: Path) -> None:
    """Write the runs of an archived leaderboard as the JSONs they were."""
    runs.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / RUNS, "rt") as file:
        for line in file:
            run = json.loads(line)
            (runs / f"{run['id']}.json").write_text(line)


def grid(board: Board, text: Callable[[Entry], str] = Entry.text) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the page's table: methods by sparsities, or the other way round where those are many."""
    columns = board.columns
    texts = {(e.label, e.asked): text(e) for e in board.entries}
    if len(columns) <= WIDE:
        head = ["method", *map(board.column_title, columns)]
        return head, [[label, *(texts.get((label, c), "") for c in columns)] for label in board.labels]
    head = ["sparsity", *board.labels]
    return head, [[board.column_title(c), *(texts.get((label, c), "") for label in board.labels)] for c in columns]


def markdown(board: Board) -> str:
    """The page."""
    head, rows = grid(board)
    lines = [f"# {board.title}", ""]
    if board.scale != "paper":
        lines += [f"**Scale {board.scale}: not the published setting.**", ""]
    lines += [
        f"{QUANTITIES[board.quantity][0]}, mean ± standard deviation over seeds (n = {board.seeds()}). "
        "Sparsity is the share of the prunable weights that was removed.",
        "",
        *pipe_table(head, rows),
        "",
        *([f"![{_against(board)}]({board.name}.png)", ""] if board.drawn else []),
        *(["† runs whose training diverged", ""] if any(e.diverged for e in board.entries) else []),
        *([budgets, ""] if (budgets := board.budgets()) else []),
        *[f"{label}: not the paper's; a file of sha256 {sha[:16]}…\n" for label, sha in board.own.items()],
        *[line for section in beyond(board) for line in section.lines()],
        *compared.sections(board),
        f"    {board.command}",
        "",
        *([f"Made with {'; '.join(made)}."] if (made := board.made_with()) else []),
    ]
    return "\n".join(lines) + "\n"


def beyond(board: Board) -> list[Section]:
    """What there is to say besides the cells: robustness, compression."""
    return [made for of in (robustness, compression) if (made := of.section(board)) is not None]


def _against(board: Board) -> str:
    return "barrier against k" if board.quantity == "error_barrier" else "accuracy against sparsity"


def table_csv(board: Board) -> str:
    """One line a cell, deterministic columns only."""
    head = ["method", "asked", "sparsity", "n", "mean", "sd", "values", "diverged"]
    compared = board.paper is not None
    if compared:
        head += ["published", "published_sd", "published_n", "evidence", "difference", "low", "high", "verdict", "note"]
    lines = [[*head, "runs"]]
    for e in board.entries:
        each = " ".join(f"{x:.4f}" for x in e.values)
        sparsity = "" if e.sparsity is None else f"{e.sparsity:.6f}"
        line = [e.label, e.asked, sparsity, str(len(e.runs)), _exact(e.mean), _exact(e.sd), each, str(e.diverged)]
        lines.append([*line, *(_beside(e) if compared else []), " ".join(run["id"] for run in e.runs)])
    return _csv(lines)


def _beside(e: Entry) -> list[str]:
    if e.published is None or e.verdict is None:
        return [""] * 9
    p, v = e.published, e.verdict
    numbers = [_exact(x) for x in (p.value, p.sd)] + ["" if p.n is None else str(p.n), p.evidence]
    return [*numbers, *(_exact(x) for x in (v.difference, v.low, v.high)), v.word, v.note]


def cost_csv(board: Board) -> str:
    """One line a run: what it took, and on what. Never the same twice."""
    lines = [
        ["method", "asked", "seed", "run", "train_seconds", "peak_memory", "device", "processor", "threads", "torch"]
    ]
    for e in board.entries:
        for run in e.runs:
            cost, made = run["cost"], run["environment"]
            line = [e.label, e.asked, run.get("seed"), run["id"], cost.get("train_seconds"), cost.get("peak_memory")]
            lines.append([str(x) for x in [*line, *(made[k] for k in ("device", "processor", "threads", "torch"))]])
    return _csv(lines)


def _exact(value: float | None) -> str:
    return repr(round(value, 6)) if value is not None and math.isfinite(value) else ""


def _csv(lines: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def terminal(board: Board, console: Console) -> None:
    """Print the leaderboard."""
    best = _best(board)

    def shown(entry: Entry) -> str:
        text = escape(entry.text())
        return f"[bold]{text}[/bold]" if (entry.label, entry.asked) in best else text

    head, rows = grid(board, shown)
    what = QUANTITIES[board.quantity][0]
    console.print(f"{board.title}: {what}, n = {board.seeds()}", markup=False, highlight=False)
    table = Table()
    table.add_column(head[0], overflow="fold")
    for column in head[1:]:
        table.add_column(escape(column), justify="right")
    for row in rows:
        table.add_row(escape(row[0]), *row[1:])
    console.print(table)
    if budgets := board.budgets():
        console.print(budgets, markup=False, highlight=False)
    for line in compared.summary(board):
        console.print(line, markup=False, highlight=False)


def _best(board: Board) -> set[tuple[str, str]]:
    """The best cell of each sparsity, where there are several methods to compare."""
    best = set()
    for column in board.columns:
        entries: list[Entry] = [e for e in board.entries if e.asked == column and e.runs]
        if len(entries) > 1:
            winner = max(entries, key=lambda e: e.mean)
            best.add((winner.label, winner.asked))
    return best


def replace(path: Path, data: bytes) -> None:
    """Write a file: all or nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    os.replace(part, path)
