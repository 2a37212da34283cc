"""What a finished command leaves behind.

`keep=all` keeps every state. `keep=needed` keeps results, curves and each run's final state, and drops what only
led there: initial weights, masks, rewinding points, optimiser states. Dropping wrongly costs time only: what is
asked for later is recomputed to the same bits.

States of other commands are safe: while a command runs, the ids of its graph stand in `<store>/plans/<token>/`
under a claim, and nothing in a living plan is dropped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lthbench.engine.claims import Claims
from lthbench.engine.graph import Ref, Stage, State
from lthbench.engine.store import Store, state_file

KEEPS = ("all", "needed")


@contextmanager
def living_plan(store: Store, stages: Iterable[Stage], token: str) -> Iterator[None]:
    """Register the graph of a running command, so that no other drops what it works on."""
    others(store, token)  # sweeps what dead commands left
    folder = store.root / "plans" / token
    claims = Claims()
    try:
        with suppress(OSError):  # a full disk: then nobody is told, which costs time only
            claims.take(folder)
            (folder / "stages").write_text("\n".join(stage.id for stage in stages))
        yield
    finally:
        claims.close()
        shutil.rmtree(folder, ignore_errors=True)


def others(store: Store, token: str) -> set[str]:
    """The ids in the living plans of other commands; plans of dead ones are swept."""
    claims = Claims()
    ids: set[str] = set()
    for folder in sorted((store.root / "plans").glob("*")):
        if folder.name == token:
            continue
        if claims.owner(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            ids |= set((folder / "stages").read_text().split())
        except FileNotFoundError:
            continue
    return ids


def drop(store: Store, stages: Iterable[Stage], finals: Iterable[Ref], token: str) -> int:
    """Drop what is not needed once all results are there; returns the bytes that went."""
    spared = others(store, token)
    kept: dict[str, set[str]] = {}
    for ref in finals:
        name = state_file(ref.step) if isinstance(ref, State) else "out.safetensors"
        kept.setdefault(ref.stage.id, set()).add(name)
    gone = 0
    for stage in stages:
        if stage.id in spared:
            continue
        for name in store.names(stage.id) - kept.get(stage.id, set()):
            if name.endswith(".safetensors"):
                path: Path = store.folder(stage.id) / name
                gone += path.stat().st_size
                path.unlink(missing_ok=True)
    return gone
