"""A leaderboard as a LaTeX table in booktabs style, to be \\input."""

from __future__ import annotations

from lthbench.report.board import Board, Entry
from lthbench.report.quantities import QUANTITIES
from lthbench.report.write import grid

MARKS = {"reproduced": "r", "differs": "d", "undecided": "u"}
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "†": r"$\dagger$", "–": "--", "\u200b": "",
}  # fmt: skip


def latex(board: Board) -> str:
    """The table. Ours beside the published number in brackets; a letter is the verdict; the caption says which."""
    head, rows = grid(board, _cell)
    compared = any(e.published is not None for e in board.entries)
    scale = "" if board.scale == "paper" else f" Scale {board.scale}: not the published setting."
    letters = ", ".join(f"{letter} {word}" for word, letter in MARKS.items())
    beside = f" In brackets the published number; {letters}." if compared else ""
    what = f"{QUANTITIES[board.quantity][0]}, mean ± standard deviation, n = {board.seeds()}"
    budgets = f" {made}" if (made := board.budgets()) else ""
    caption = f"{board.title}. {what}.{scale}{beside}{budgets}"
    lines = [
        f"% {board.command}".replace("\n", " "),
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",  # no wider than the text
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        _line([escaped(title) for title in head]),
        r"\midrule",
        *(_line([escaped(first), *others]) for first, *others in rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """A text that LaTeX prints as it is; characters beyond Latin-1 as a question mark."""
    return "".join(_SPECIAL.get(c, c if c.isprintable() and ord(c) < 256 else "?") for c in text)


def _cell(e: Entry) -> str:
    shown = escaped(e.text())
    if e.verdict is not None and e.verdict.word in MARKS:
        shown += f"$^{{\\mathrm{{{MARKS[e.verdict.word]}}}}}$"
    if e.published is not None:
        shown += f" [{escaped(e.number(e.published.value))}]"
    return shown


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
