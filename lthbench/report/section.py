"""A part of a leaderboard's page with tables of its own, in Markdown and in HTML the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

Table = Sequence[Sequence[str]]  # the head first


@dataclass(frozen=True)
class Section:
    """Text and tables under a title, in their order."""

    title: str
    parts: Sequence[Union[str, Table]]

    def lines(self) -> list[str]:
        """In Markdown."""
        made = [f"## {self.title}", ""]
        for part in self.parts:
            made += [*([part] if isinstance(part, str) else pipe_table(part[0], part[1:])), ""]
        return made


def pipe_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown: the first column to the left, the others to the right."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(head), line(["---", *["---:"] * (len(head) - 1)]), *map(line, rows)]
