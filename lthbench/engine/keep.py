"""What a finished command leaves behind.

`keep=all` keeps every state. `keep=needed` keeps results, curves and each run's final state, and drops what only
led there: initial weights, masks, rewinding points, optimiser states. Dropping wrongly costs time only: what is
asked for later is recomputed to the same bits.

States of other commands are safe: while a command runs, the ids of its graph stand in `<store>/plans/<token>/`
under a claim, and nothing in a living plan is dropped. Which results rest on a store that several folders share stands
in `<store>/results/`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lthbench.engine.claims import Claims
from lthbench.engine.graph import Ref, Stage, State
from lthbench.engine.store import Store, state_file

KEEPS = ("all", "needed")
SILENT_SECONDS = 86400.0  # a plan whose heart has stood still so long is dead, wherever its owner was


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
        if claims.owner(folder) is None or _silent(folder):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            ids |= set((folder / "stages").read_text().split())
        except FileNotFoundError:
            continue
    return ids


def _silent(folder: Path) -> bool:
    """Whether no claim in a plan's folder has been touched for long, by the clock of the file system it lies on.

    A claim of another host is only known to be dead after it was watched; commands do not watch for so long.
    """
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=folder.parent) as now:
        beats = [path.stat().st_mtime for path in folder.glob("claim.*")]
        return bool(beats) and Path(now.name).stat().st_mtime - max(beats) > SILENT_SECONDS
    return False


def register(store: Store, out: Path) -> None:
    """Note that the results in `out` rest on this store, so that pruning it spares what they need."""
    place = str(out.resolve())
    note = store.root / "results" / hashlib.sha256(place.encode()).hexdigest()[:16]
    if not note.exists():
        with suppress(OSError):  # a full disk: the command itself will say so
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(place)


def registered(store: Store) -> list[Path]:
    """The folders whose results rest on this store."""
    return sorted(Path(note.read_text()) for note in (store.root / "results").glob("*"))


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
