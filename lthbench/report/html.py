"""The page of all leaderboards: one HTML file that needs no network, sorted and filtered by DataTables.

Every text from a file goes through Jinja's escaping; the page's own policy lets it fetch nothing. With the same
results it is the same, byte for byte.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lthbench.base.units import duration, readable
from lthbench.report import compared
from lthbench.report.board import EVERYTHING, LINES, Board, Entry
from lthbench.report.plot import caption, drawing
from lthbench.report.quantities import QUANTITIES
from lthbench.report.write import beyond

if TYPE_CHECKING:
    from jinja2 import Template

GOOD = {"reproduced", "supported"}
BAD = {"differs", "contradicted"}
DETAILED = 300  # more cells than this are too many for tables of their layers and their costs
IDS = 3  # runs of a cell that are named
Row = dict[str, Any]


def page(boards: Sequence[Board], command: str) -> str:
    """The HTML text."""
    from markupsafe import Markup

    sections = [_section(board) for board in boards]
    parts = {name: Markup(_asset(f"page.{end}")) for name, end in (("style", "css"), ("script", "js"))}
    return _template().render(
        sections=sections,
        total=_total(boards),
        command=command,
        why=re.sub(r"\*(\w+)\*", r"\1", compared.WHY),
        library=Markup(_asset("dataTables.min.js")),
        **parts,
    )


@cache
def _template() -> Template:
    from jinja2 import Environment

    return Environment(autoescape=True, trim_blocks=False).from_string(_asset("page.html"))


def _asset(name: str) -> str:
    return (files("lthbench.report") / "page" / name).read_text()


# ---- the overview


def _total(boards: Sequence[Board]) -> Row:
    """Cells that are run, the share that is reproduced, and claims by verdict, over all tables."""
    tables = [board for board in boards if board.name != EVERYTHING] or boards  # its runs are theirs
    entries = [e for board in tables for e in board.entries]
    words = [e.verdict.word for e in entries if e.verdict is not None]
    claims = [claim.word for board in boards for claim in board.claims]
    judged = ("supported", "contradicted", "no difference", "undecided")
    return {
        "run": f"{sum(bool(e.runs) for e in entries):,} of {len(entries):,}",
        "reproduced": _share(words),
        "claims": [(word, claims.count(word)) for word in judged if word in claims],
    }


def _share(words: Sequence[str]) -> str:
    """How many of the judged cells are reproduced, with the 95 % Wilson interval."""
    reproduced = words.count("reproduced")
    judged = reproduced + words.count("differs") + words.count("undecided")
    if not judged:
        return "none judged"
    from scipy.stats import binomtest

    interval = binomtest(reproduced, judged).proportion_ci(method="wilson")
    return f"{reproduced} of {judged} ({reproduced / judged:.0%}; {interval.low:.0%} to {interval.high:.0%})"


# ---- a table


def _section(board: Board) -> Row:
    words = [e.verdict.word for e in board.entries if e.verdict is not None]
    counts = {word: words.count(word) for word in ("reproduced", "differs", "undecided")}
    judged = sum(counts.values())
    compared_here = any(e.published is not None for e in board.entries)
    methods = {e.label for e in board.entries if e.runs}
    commands = [(label, line) for label, line in board.commands.items() if label]
    return {
        "anchor": "table-" + re.sub(r"[^\w-]", "-", board.name),
        "title": board.title,
        "scale": board.scale,
        "quantity": f"{QUANTITIES[board.quantity][0]}, n = {board.seeds()}",
        "paper": board.paper.reference if board.paper else "",
        "margin": f"{board.margin:g}" if board.margin and compared_here else "",
        "compared": compared_here,
        "cells": list(map(_cell, board.entries)),
        "run": sum(bool(e.runs) for e in board.entries),
        "reproduced": _share(words),
        "reproduced_share": counts["reproduced"] / judged if judged else -1,
        "differs": counts["differs"],
        "undecided": counts["undecided"],
        "claims": [_claim(c) for c in board.claims],
        "claims_in_short": ", ".join(f"{n} {word}" for word, n in _counted(c.word for c in board.claims)),
        "budgets": board.budgets(),
        "diverged": any(e.diverged for e in board.entries),
        "remarks": board.remarks,
        "pictures": _pictures(board) if board.drawn else [],
        "no_picture": f"{len(methods)} methods are too many for a picture" if len(methods) > LINES else "",
        "beyond": [
            {"title": section.title, "parts": [{"text" if isinstance(p, str) else "table": p} for p in section.parts]}
            for section in beyond(board)
        ],
        "layers": _layers(board) if len(board.entries) <= DETAILED else [],
        "cost": _cost(board) if len(board.entries) <= DETAILED else [],
        "made_with": board.made_with(),
        "command": board.command,
        "commands": commands,
    }


def _counted(words: Iterable[str]) -> list[tuple[str, int]]:
    said = list(words)
    return [(word, said.count(word)) for word in dict.fromkeys(said)]


def _cell(e: Entry) -> Row:
    known = e.sparsity if e.sparsity is not None else e.nominal
    ids = [run["id"][:8] for run in e.runs[:IDS]]
    made: Row = {
        "label": e.label,
        "sparsity": "" if known is None else f"{known:.6g}",
        "sparsity_text": e.asked if known is None else f"{100 * known:.4g}",
        "mean": f"{e.mean:.6g}" if e.runs and math.isfinite(e.mean) else "",
        "ours": _ours(e),
        "n": len(e.runs),
        "n_text": f"{len(e.runs)}" if len(e.runs) >= e.planned else f"{len(e.runs)} of {e.planned}",
        "ids": " ".join(ids) + (" …" if len(e.runs) > IDS else ""),
    }
    p, v = e.published, e.verdict
    if p is not None:
        made |= {
            "published": compared.theirs(e, p),
            "theirs": f"{p.value:.6g}",
            "unverified": p.evidence == "unverified",
        }
    if v is not None:
        made |= {
            "difference": "" if v.difference is None else f"{v.difference:.6g}",
            "difference_text": compared.interval(e, v.difference, v.low, v.high),
            "shade": _shade(v.difference, v.margin),
            **_verdict(v.word),
            "verdict": v.word,
            "note": v.note,
        }
    return made


def _ours(e: Entry) -> str:
    """Mean ± sd; how many runs that is stands beside it."""
    if not e.runs:
        return e.text()
    spread = f" ± {e.number(e.sd)}" if len(e.runs) > 1 else ""
    return e.number(e.mean) + spread + (f" †{e.diverged}" if e.diverged else "")


def _shade(difference: float | None, margin: float | None) -> str:
    """The class of a difference: its sign, and whether it takes half the margin, all of it, or more."""
    if not difference or not margin or not math.isfinite(difference):
        return ""
    size = abs(difference) / margin
    return ("up" if difference > 0 else "down") + ("1" if size <= 0.5 else "2" if size <= 1 else "3")


def _verdict(word: str) -> Row:
    return {"verdict_class": "good" if word in GOOD else "bad" if word in BAD else ""}


def _claim(c: Any) -> Row:
    return {
        "id": c.id,
        "text": c.text,
        "word": c.word,
        "note": c.note,
        "cases": list(map(compared.case, c.cases)),
    } | _verdict(c.word)


def _pictures(board: Board) -> list[Row]:
    """One picture a block of the table, as SVG in the page's ink."""
    from markupsafe import Markup

    made = []
    for block in dict.fromkeys(e.block for e in board.entries):
        entries = [e for e in board.entries if e.block == block]
        if any(e.runs for e in entries):
            name = f"{board.title}{', ' if block else ''}{block}"
            says = f"{block + ': ' if block else ''}{caption(board, entries)}."
            made.append({"svg": Markup(drawing(board, entries, name)), "caption": says})
    return made


def _layers(board: Board) -> list[Row]:
    """The share kept of each layer, mean over runs, a group for each network."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for e in board.entries:
        names = tuple(e.runs[0]["layers"]) if e.runs and e.sparsity else ()
        if not names:
            continue
        runs = [run["layers"] for run in e.runs if tuple(run["layers"]) == names]
        shares = [100 * statistics.fmean(r[n]["kept"] / r[n]["total"] for r in runs) for n in names]
        each = [{"text": f"{s:.3g}", "width": f"{s:.3g}"} for s in shares]
        groups.setdefault(names, []).append(
            {"label": e.label, "sparsity": f"{100 * (e.sparsity or 0):.4g}", "shares": each}
        )
    return [{"names": names, "rows": rows} for names, rows in groups.items()]


def _cost(board: Board) -> list[Row]:
    """Time and memory of each method's runs."""
    costs: dict[str, list[Row]] = {}
    for e in board.entries:
        costs.setdefault(e.label, []).extend(run["cost"] for run in e.runs)
    made = []
    for label, runs in costs.items():
        if runs:
            memory = max(cost.get("peak_memory") or 0 for cost in runs)
            seconds = duration(statistics.fmean(cost["train_seconds"] for cost in runs))
            made.append(
                {"label": label, "runs": len(runs), "seconds": seconds, "memory": readable(memory) if memory else ""}
            )
    return made
