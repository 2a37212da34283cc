"""A leaderboard beside its paper: each cell's published number and verdict, and the paper's claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lthbench.published import Claim, Paper, Published, Table, alike, is_at
from lthbench.report.board import Board, Entry
from lthbench.report.claims import judge
from lthbench.report.quantities import partly_collapsed
from lthbench.report.verdicts import Spread, Verdict, corrected, pooled, verdict

COUNTED = 1.05  # printed sparsities are rounded; another way of counting is further off
NEIGHBOURS = 2  # sparsities on each side whose runs tell the spread of a cell


@dataclass(frozen=True)
class Place:
    """Where a cell stands: its coordinates in the paper's words, its sparsity as a number, the block of the table."""

    where: Mapping[str, Any]
    nominal: float | None
    block: str = ""


@dataclass(frozen=True)
class Part:
    """A table of the paper, and which places it is about where its columns do not say so."""

    about: Mapping[str, Any]
    table: Table


@dataclass(frozen=True)
class Comparison:
    """What a table is compared with, fixed before anything is run."""

    paper: Paper
    tables: tuple[Part, ...]
    claims: tuple[Claim, ...]
    quantity: str
    margin: float | None
    counted: str  # the paper's sparsity is over: prunable, weights, parameters
    places: Mapping[tuple[str, str], Place]  # (label, sparsity as asked)


def compare(board: Board, comparison: Comparison) -> None:
    """Put the published numbers, the verdicts and the claims beside the results of a board."""
    board.paper, board.quantity, board.margin = comparison.paper, comparison.quantity, comparison.margin
    for entry in board.entries:
        place = comparison.places[entry.label, entry.asked]
        entry.where, entry.nominal, entry.block = place.where, place.nominal, place.block
        entry.quantity, entry.counted = comparison.quantity, comparison.counted
        entry.published = beside(comparison.tables, place)
    judged = [e for e in board.entries if e.published is not None]
    for entry, made in zip(judged, corrected([_judged(e, board) for e in judged])):
        entry.verdict = made
    board.claims = judge(comparison.claims, board.entries, comparison.quantity)
    if any(_standin(e) for e in board.entries):
        board.claims = [replace(c, word="not judged", note="made-up data") for c in board.claims]


def beside(tables: Sequence[Part], place: Place) -> Published | None:
    """The published number of a place: of the first table that has one there."""
    if place.nominal is None:
        return None
    for part in tables:
        if all(is_at(place.where, key, value) for key, value in part.about.items()):
            found = part.table.find(place.where, place.nominal)
            if found:
                return part.table.published(found[0])
    return None


def deviations(board: Board) -> list[str]:
    """Where the runs are not what the paper ran, as far as the results tell."""
    made = []
    unjudged = ": no verdicts on cells" if board.paper else ""
    if board.scale != "paper":
        made.append(f"scale {board.scale}, not the published length, width or number of seeds{unjudged}")
    for name, version in sorted({_data(run) for e in board.entries for run in e.runs}):
        if version == "rebuilt":
            made.append(f"{name} is a rebuilt copy: a few images are not exact")
        elif version in UNLIKE:
            made.append(f"{name} is {UNLIKE[version]}{unjudged}")
        if name.startswith("standin_"):
            made.append(f"{name}: made-up images; numbers mean nothing")
    return made


UNLIKE = {"partial": "a part of the training images", "pooled": "not split as published"}


def _data(run: Mapping[str, Any]) -> tuple[str, str]:
    data = run["config"]["data"]
    return data["name"], data["version"]


def _standin(entry: Entry) -> bool:
    return any(_data(run)[0].startswith("standin_") for run in entry.runs)


def _judged(entry: Entry, board: Board) -> Verdict:
    theirs, margin = entry.published, board.margin
    assert theirs is not None and margin is not None
    made = Verdict("not judged", n=len(entry.runs), n_p=theirs.n, margin=margin)
    if entry.runs:
        made = replace(made, difference=entry.mean - theirs.value)
    if theirs.evidence == "unverified":
        return replace(made, note="unverified")
    if board.scale != "paper":
        return replace(made, note=f"scale {board.scale}")
    if not entry.runs:
        return replace(made, word="not run", note="stale" if entry.stale else "")
    if _standin(entry) or any(_data(run)[1] in UNLIKE for run in entry.runs):
        return replace(made, note="other data")
    if note := _unfit(entry):
        return replace(made, word="undecided", note=note)
    made = verdict(entry.values, theirs, margin, _siblings(entry, board.entries))
    notes = [made.note] if made.note else []
    if len(entry.runs) < entry.planned:
        notes.append(f"{len(entry.runs)} of {entry.planned} seeds")
    if any(_data(run)[1] == "rebuilt" for run in entry.runs):
        notes.append("rebuilt data")
    return replace(made, note="; ".join(notes))


def _unfit(entry: Entry) -> str:
    """Why the runs of a cell can say nothing for or against the published number; empty: they can."""
    counts = [run["sparsity"][entry.counted] for run in entry.runs]
    if len({count["total"] for count in counts}) > 1:
        return "runs that count different weights"
    for ours in (count["removed"] / count["total"] for count in counts):
        if entry.nominal is not None and not alike(ours, entry.nominal, COUNTED):
            return f"sparsity {ours:.4g}, published for {entry.nominal:.4g}"
    if len(entry.runs) > 1 and len({run["final_weights_sha256"] for run in entry.runs}) == 1:
        return "identical runs: the seed is not used"
    return partly_collapsed(entry.runs)


def _siblings(entry: Entry, entries: Sequence[Entry]) -> Spread | None:
    """The spread over seeds in the cells of the same method at neighbouring sparsities, collapsed ones left out."""
    row = sorted((e for e in entries if e.label == entry.label and e.runs), key=lambda e: e.nominal or 0.0)
    at = row.index(entry)
    near = row[max(0, at - NEIGHBOURS) : at + NEIGHBOURS + 1]
    return pooled([e.values for e in near if not _unfit(e)])
