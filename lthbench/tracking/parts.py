"""How far the mirror of each run is: noted in `<out>/wandb/sent/`, so that what goes on sends the rest, and that once.

Offline a run is kept in parts, a folder each time that it went on. A part whose process was killed is torn: nothing
of it is noted, so the next part has its rows again, and it is cleared away.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any


def sent(out: Path, ident: str) -> dict[str, Any]:
    """Up to which `step` a run's history is safe, whether it is `done`, and the names of its closed `parts`."""
    try:
        found: dict[str, Any] = json.loads((out / "wandb" / "sent" / f"{ident}.json").read_text())
        return found
    except (OSError, ValueError):
        return {"step": -1, "done": False, "parts": []}


def note(out: Path, ident: str, part: Path, **what: Any) -> None:
    """Note that a part was closed, and what is safe with it."""
    folder = out / "wandb" / "sent"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{ident}.{os.getpid()}"
    temporary.write_text(json.dumps(what | {"parts": [*sent(out, ident)["parts"], part.name]}))
    os.replace(temporary, folder / f"{ident}.json")


def clear_torn(out: Path, ident: str) -> None:
    """Take away what was not closed of a run that nobody has open."""
    closed = sent(out, ident)["parts"]
    for part in (out / "wandb").glob(f"offline-run-*-{ident}"):
        if part.name not in closed:
            shutil.rmtree(part, ignore_errors=True)
