"""The subcommands: list, plan, report, store, show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lthbench.base.errors import UserError, near

SUBCOMMANDS: dict[str, Callable[[Sequence[str]], int]] = {}


def unknown(word: str) -> int:
    raise UserError(f"unknown subcommand '{word}'{near(word, SUBCOMMANDS)}; settings are key=value")
