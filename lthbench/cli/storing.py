"""`lthbench store`: what the store holds, what an id is and who needs it, whether files are whole, what can go."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from lthbench.base.errors import UserError
from lthbench.base.units import readable
from lthbench.cli.compose import Composer, composer
from lthbench.cli.execute import folders, say
from lthbench.cli.grid import expand
from lthbench.cli.subcommands import parser
from lthbench.engine.keep import others, registered
from lthbench.engine.store import Damaged, Store
from lthbench.programs import record

ACTIONS = {
    "list": "how many stages of each kind, and their sizes; --all: one line a stage",
    "explain": "ID: settings and inputs of an id, and who needs it",
    "verify": "read every file; set aside what is damaged",
    "prune": "remove stages that no result needs (with --yes; else only say which); table=NAME: nor do that table's; "
    "older=DAYS: only what has not been touched for so long",
}
WORDS = {"prune": ("table=", "older=")}  # besides out= and store=


def run(words: Sequence[str]) -> int:
    """The store's subcommand."""
    lines = "\n".join(f"  {name:8} {what}" for name, what in ACTIONS.items())
    arguments = parser("store", f"What the store holds.\n\n{lines}")
    arguments.add_argument("action", choices=list(ACTIONS))
    arguments.add_argument("words", nargs="*", default=[], metavar="ID|out=DIR|store=DIR|...", help="what it is about")
    arguments.add_argument("--all", action="store_true", help="list: one line a stage")
    arguments.add_argument("--yes", action="store_true", help="prune: do it")
    parsed = arguments.parse_intermixed_args(words)
    places = [w for w in parsed.words if w.startswith(("out=", "store="))]
    own = [w for w in parsed.words if w.startswith(WORDS.get(parsed.action, ("?",)))]
    names = [w for w in parsed.words if "=" not in w]
    for word in parsed.words:
        if word not in [*places, *own] and not (word in names and parsed.action == "explain"):
            raise UserError(
                f"store {parsed.action}: '{word}' has no meaning here; the places are out=DIR and store=DIR"
            )
    with composer(None) as compose:
        out, store = folders(compose.compose(c for o in places for c in compose.values(o)))
        if not store.root.is_dir():
            raise UserError(f"no store at '{store.root}'; say out=DIR or store=DIR")
        if parsed.action == "prune":
            settings = dict(word.split("=", 1) for word in own)
            spared = _of_table(compose, settings.get("table"))
            return _prune(store, out, spared, _days(settings.get("older")), parsed.yes)
    if parsed.action == "list":
        return _list(store, parsed.all)
    if parsed.action == "verify":
        return _verify(store)
    if len(names) != 1:
        raise UserError("store explain takes one id")
    return _explain(store, out, names[0])


def _of_table(compose: Composer, table: str | None) -> set[str]:
    """The ids of a table's results, at all scales."""
    if table is None:
        return set()
    scales = compose.loader.get_group_options("scale")
    grids = [expand(compose, [f"table={table}", f"scale={scale}"], False) for scale in scales]
    return {e.id for grid in grids for e in grid.experiments}


def _days(text: str | None) -> float:
    try:
        days = float(text or 0)
    except ValueError:
        days = math.nan
    if not 0 <= days < math.inf:
        raise UserError(f"store prune: older={text} is no number of days")
    return days


def _list(store: Store, each: bool) -> int:
    kinds: dict[str, list[int]] = {}
    for ident in store.folders():
        kind, size, states, failed = _glance(store, ident)
        if kind is None:
            continue
        kinds.setdefault(kind, []).append(size)
        if each:
            print(f"{ident}  {kind:9} {readable(size):>9}" + (f"  {states} states" if states else "") + failed)
    for kind in sorted(kinds):
        print(f"{kind:9} {len(kinds[kind]):>8} stages {readable(sum(kinds[kind])):>9}")
    sizes = [size for found in kinds.values() for size in found]
    print(f"store: {len(sizes)} stages, {readable(sum(sizes))} in {store.root}")
    return 0


_KIND = re.compile(rb'"kind":"(\w+)"')


def _glance(store: Store, ident: str) -> tuple[str | None, int, int, str]:
    """Kind, bytes, number of states and a mark of failure, from one look at the folder; no kind: nothing there."""
    size = states = 0
    kind, failed = None, ""
    with os.scandir(f"{store.root}/{ident[:2]}/{ident}") as entries:  # plain calls: a store may hold 100,000 of them
        for entry in entries:
            name, here = entry.name, entry.stat(follow_symlinks=False).st_size
            size += here
            if name == "stage.json":
                file = os.open(entry.path, os.O_RDONLY)
                found = _KIND.search(os.read(file, here))
                os.close(file)
                kind = found[1].decode() if found else "unknown"
            elif name == "failed.json":
                failed = "  failed"
            elif name.startswith("s0"):
                states += 1
    return kind, size, states, failed


def _explain(store: Store, out: Path, prefix: str) -> int:
    found = [ident for ident in store.ids(prefix[:2]) if ident.startswith(prefix)]
    if len(found) != 1:
        raise UserError(f"{len(found) or 'no'} stages begin with '{prefix}' in '{store.root}'")
    ident = found[0]
    described = store.describe(ident)
    if described is None:
        raise UserError(f"{ident}: its stage.json is missing or was altered; run what needs it, and it is mended")
    print(f"{ident}: {described['kind']}, version {described['version']}")
    print("settings: " + json.dumps(described["settings"], indent=1))
    for role, ref in described["inputs"].items():
        print(f"input {role}: {ref}")
    for name in sorted(store.names(ident)):
        print(f"file {name}: {readable((store.folder(ident) / name).stat().st_size)}")
    if "failed.json" in store.names(ident):
        failure = store.read_json(ident, "failed.json")
        print(f"failed: {failure['error']}\n{failure['trace']}")
    texts = {path.stem: text for path in (out / "runs").glob("*.json") if ident in (text := path.read_text())}
    consumers: dict[str, str] = {}
    for text in texts.values():  # a run's JSON names all its stages: no other folder is looked into
        for ref in json.loads(text)["stages"].values():
            consumer = store.describe(ref.split("@")[0])
            if consumer and any(r.startswith(ident) for r in consumer["inputs"].values()):
                consumers[ref.split("@")[0]] = consumer["kind"]
    for consumer_id, kind in sorted(consumers.items()):
        print(f"needed by stage: {consumer_id} ({kind})")
    for run_id in sorted(texts):
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


def _verify(store: Store) -> int:
    bad = files = 0
    for ident in store.ids():
        if store.describe(ident) is None:
            print(f"{ident}: stage.json is missing or was altered; it is mended when the stage is needed")
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


def _prune(store: Store, out: Path, spared: set[str], days: float, really: bool) -> int:
    sharing = {out.resolve(), *registered(store)}
    for folder in sorted(sharing):
        if not (folder / "runs").is_dir():
            say(f"results in '{folder}' are not here: what only they need counts as not needed")
    paths = [path for folder in sharing for path in (folder / "runs").glob("*.json")]
    results = [record.read(path) for path in paths if path.stem not in spared]
    needed = _needs(store, [ref for result in results for ref in result["stages"].values()])
    needed |= others(store, "")  # what running commands work on
    before = time.time() - 86400 * days
    gone = [i for i in store.ids() if i not in needed and (not days or _touched(store, i) < before)]
    size = sum(store.size(ident) for ident in gone)
    for ident in gone:
        print(f"{'removed' if really else 'not needed'}: {ident}")
        if really:
            shutil.rmtree(store.folder(ident))
    if really:
        shutil.rmtree(store.root / "damaged", ignore_errors=True)
    print(f"prune: {len(gone)} stages, {readable(size)}" + ("" if really else "; --yes removes them"))
    return 0


def _touched(store: Store, ident: str) -> float:
    """When a stage's newest file was written."""
    return max((entry.stat().st_mtime for entry in os.scandir(store.folder(ident))), default=0.0)
