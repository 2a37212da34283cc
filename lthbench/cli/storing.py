"""`lthbench store`: what the store holds, what an id is and who needs it, whether files are whole, what can go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from lthbench.base.errors import UserError
from lthbench.cli.compose import composer
from lthbench.cli.execute import folders
from lthbench.cli.planning import readable
from lthbench.cli.subcommands import parser
from lthbench.engine.store import Damaged, Store
from lthbench.programs import record

ACTIONS = {
    "list": "stages by kind, with their sizes",
    "explain": "settings and inputs of an id, and who needs it",
    "verify": "read every file; set aside what is damaged",
    "prune": "remove stages that no result needs (with --yes; else only say which)",
}


def run(words: Sequence[str]) -> int:
    """The store's subcommand."""
    lines = "\n".join(f"  {name:8} {what}" for name, what in ACTIONS.items())
    arguments = parser("store", f"What the store holds.\n\n{lines}")
    arguments.add_argument("action", choices=list(ACTIONS))
    arguments.add_argument(
        "words", nargs="*", default=[], metavar="ID|out=DIR|store=DIR", help="an id for explain; the places"
    )
    arguments.add_argument("--yes", action="store_true", help="prune: do it")
    parsed = arguments.parse_intermixed_args(words)
    places = [w for w in parsed.words if "=" in w]
    names = [w for w in parsed.words if "=" not in w]
    for word in parsed.words:
        if not word.startswith(("out=", "store=")) and not (word in names and parsed.action == "explain"):
            raise UserError(
                f"store {parsed.action}: '{word}' has no meaning here; the places are out=DIR and store=DIR"
            )
    with composer(None) as compose:
        out, store = folders(compose.compose(c for o in places for c in compose.values(o)))
    if not store.root.is_dir():
        raise UserError(f"no store at '{store.root}'; say out=DIR or store=DIR")
    if parsed.action == "list":
        return _list(store)
    if parsed.action == "explain":
        if len(names) != 1:
            raise UserError("store explain takes one id")
        return _explain(store, out, names[0])
    if parsed.action == "verify":
        return _verify(store)
    return _prune(store, out, parsed.yes)


def _list(store: Store) -> int:
    total = count = 0
    for ident in store.ids():
        described = store.describe(ident)
        size = store.size(ident)
        kind = described["kind"] if described else "unknown"
        states = sum(name.startswith("s0") for name in store.names(ident))
        failed = "  failed" if "failed.json" in store.names(ident) else ""
        print(f"{ident}  {kind:9} {readable(size):>9}" + (f"  {states} states" if states else "") + failed)
        total, count = total + size, count + 1
    print(f"store: {count} stages, {readable(total)} in {store.root}")
    return 0


def _explain(store: Store, out: Path, prefix: str) -> int:
    found = [ident for ident in store.ids() if ident.startswith(prefix)]
    if len(found) != 1:
        raise UserError(f"{len(found) or 'no'} stages begin with '{prefix}' in '{store.root}'")
    ident = found[0]
    described = store.describe(ident)
    if described is None:
        raise UserError(f"{ident}: its stage.json is missing or was altered; nothing here will be used")
    print(f"{ident}: {described['kind']}, version {described['version']}")
    print("settings: " + json.dumps(described["settings"], indent=1))
    for role, ref in described["inputs"].items():
        print(f"input {role}: {ref}")
    for name in sorted(store.names(ident)):
        print(f"file {name}: {readable((store.folder(ident) / name).stat().st_size)}")
    if "failed.json" in store.names(ident):
        print(f"failed: {store.read_json(ident, 'failed.json')['error']}")
    consumers = [
        i
        for i in store.ids()
        if any(r.startswith(ident) for r in (store.describe(i) or {"inputs": {}})["inputs"].values())
    ]
    for consumer in consumers:
        print(f"needed by stage: {consumer} ({(store.describe(consumer) or {})['kind']})")
    for run_id in _runs_that_need(store, out, ident):
        print(f"needed by run: {run_id}")
    return 0


def _needs(store: Store, refs: Sequence[str]) -> set[str]:
    """All stages that these references rest on."""
    needed: set[str] = set()
    todo = [ref.split("@")[0] for ref in refs]
    while todo:
        ident = todo.pop()
        if ident not in needed:
            needed.add(ident)
            described = store.describe(ident)
            todo += [ref.split("@")[0] for ref in described["inputs"].values()] if described else []
    return needed


def _runs_that_need(store: Store, out: Path, ident: str) -> list[str]:
    runs = [record.read(path) for path in sorted((out / "runs").glob("*.json"))]
    return [run["id"] for run in runs if ident in _needs(store, list(run["stages"].values()))]


def _verify(store: Store) -> int:
    bad = files = 0
    for ident in store.ids():
        if store.describe(ident) is None:
            print(f"{ident}: stage.json is missing or was altered; the folder is never used")
            bad += 1
        for name in sorted(store.names(ident) - {"stage.json"}):
            files += 1
            try:
                store.read_json(ident, name) if name.endswith(".json") else store.read(ident, name)
            except Damaged as error:
                print(f"set aside: {error}")
                bad += 1
    print(f"verify: {files} files read, {bad} damaged")
    return 1 if bad else 0


def _prune(store: Store, out: Path, really: bool) -> int:
    refs = [ref for path in (out / "runs").glob("*.json") for ref in record.read(path)["stages"].values()]
    needed = _needs(store, refs)
    gone = [ident for ident in store.ids() if ident not in needed]
    size = sum(store.size(ident) for ident in gone)
    damaged = store.root / "damaged"
    for ident in gone:
        print(f"{'removed' if really else 'not needed'}: {ident}")
        if really:
            shutil.rmtree(store.folder(ident))
    if really and damaged.is_dir():
        shutil.rmtree(damaged)
    print(f"prune: {len(gone)} stages, {readable(size)}" + ("" if really else "; --yes removes them"))
    return 0
