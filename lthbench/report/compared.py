"""The published side of a page in words: cells beside the paper's, claims, assumptions and deviations."""

from __future__ import annotations

from lthbench.published import Published
from lthbench.report.board import Board, Entry
from lthbench.report.claims import Case, ClaimResult
from lthbench.report.section import pipe_table

WHY = (
    "*Reproduced*: the 90 % interval of ours minus published lies within the margin. *Differs*: a t test at 5 %, "
    "Holm-adjusted over the table. Published numbers in parentheses are unverified and not judged."
)
WHY_CLAIMS = "A claim's cases are judged one by one; words are Holm-adjusted over the paper's claims."


def sections(board: Board) -> list[str]:
    """Lines of Markdown; none where nothing is to be said."""
    lines: list[str] = []
    cells = [e for e in board.entries if e.published is not None]
    if cells and board.paper is not None:
        lines += [f"## Beside {board.paper.reference}", "", f"{WHY} Margin {board.margin:g}.", ""]
        lines += [*pipe_table(["cell", "ours", "published", "difference", "verdict"], list(map(_cell, cells))), ""]
    if board.claims:
        head = ["claim", "says", "cases", "verdict"]
        lines += ["## Claims", "", WHY_CLAIMS, "", *pipe_table(head, list(map(_claim, board.claims))), ""]
    for title, texts in board.remarks:
        lines += [f"## {title}", "", *(f"- {text}" for text in texts), ""]
    return lines


def summary(board: Board) -> list[str]:
    """A few lines for the terminal."""
    counts = ", ".join(f"{n} {word}" for word, n in board.judged().items())
    lines = [f"beside {board.paper.reference}: {counts}"] if counts and board.paper is not None else []
    lines += [f"claim {c.id}: {_words(c.word, c.note)}: {c.text}" for c in board.claims]
    return lines + [f"deviation: {text}" for text in board.deviations] + board.tuned


def _cell(e: Entry) -> list[str]:
    assert e.published is not None and e.verdict is not None
    p, v = e.published, e.verdict
    place = f"{e.label}, {100 * (e.nominal or 0):.4g} %"
    return [
        place,
        e.text(),
        f"{theirs(e, p)}, {p.source}",
        interval(e, v.difference, v.low, v.high),
        _words(v.word, v.note),
    ]


def theirs(e: Entry, p: Published) -> str:
    """A published number with its spread and n, in parentheses where it is unverified."""
    text = e.number(p.value) + (f" ± {e.number(p.sd)}" if p.sd is not None else "") + (f" (n = {p.n})" if p.n else "")
    return f"({text})" if p.evidence == "unverified" else text


def interval(e: Entry, d: float | None, low: float | None, high: float | None) -> str:
    """A difference with its interval."""
    if d is None:
        return ""
    sign = "+" if d > 0 else ""
    between = "" if low is None or high is None else f" [{e.number(low)}, {e.number(high)}]"
    return f"{sign}{e.number(d)}{between}"


def _claim(c: ClaimResult) -> list[str]:
    return [c.id, c.text, "; ".join(map(case, c.cases)) or "no cell fits", _words(c.word, c.note)]


def case(c: Case) -> str:
    """One case of a claim in words."""
    against = f"{c.left} against {c.right}" if c.right else c.left
    if c.difference is None:
        return f"{against}: {_words(c.word, c.note)}"
    between = "" if c.low is None or c.high is None else f" [{c.low:.2f}, {c.high:.2f}]"
    paired = ", paired" if c.paired else ""
    return f"{against}: {c.difference:+.2f}{between}, n = {c.n}{paired}, {_words(c.word, c.note)}"


def _words(word: str, note: str) -> str:
    return f"{word} ({note})" if note else word
