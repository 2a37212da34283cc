"""Errors that a user can mend: one line each, shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """What is wrong, where, and the nearest right thing, in one line (exit code 2)."""


def near(word: object, words: Iterable[object], above: str = "") -> str:
    """The tail of an error about an unknown name: the closest known one, below the keys `above` it, or all of them."""
    known = sorted(map(str, words))
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    if match:
        return f"; did you mean '{above}{match[0]}'?"
    return f"; choose from {', '.join(known)}" if known else ""
