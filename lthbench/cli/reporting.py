"""`lthbench report` and `lthbench show`: pages and results from the JSONs that are there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lthbench.base.errors import UserError
from lthbench.cli.compose import Composer, composer
from lthbench.cli.execute import folders, leaderboard, say, terminal
from lthbench.cli.grid import expand
from lthbench.cli.planning import readable
from lthbench.cli.subcommands import overrides_of, parser
from lthbench.engine.store import state_file
from lthbench.programs import record
from lthbench.report import write
from lthbench.report.board import Board, board

PLACES = ("out=", "store=", "data=")


def report(words: Sequence[str]) -> int:
    """Remake one leaderboard (of the command that is named) or all that have results."""
    arguments = parser(
        "report",
        "Remake leaderboards from the results, without computing anything.\n\n"
        "  archive=DIR   one leaderboard and all runs it rests on, to keep: md, csv, png, runs.jsonl.gz\n"
        "  from=DIR      put the runs of such an archive among the results first",
    )
    arguments.add_argument(
        "overrides", nargs="*", help="a command's overrides (table=NAME, out=DIR, -m ...); none: all tables"
    )
    if {"-h", "--help"} & set(words):
        arguments.print_help()
        return 0
    overrides, multirun, extra_dir = overrides_of(words)
    keep, overrides = _word("archive", overrides)
    source, overrides = _word("from", overrides)
    with composer(extra_dir) as compose:
        out, _ = folders(compose.compose(c for o in overrides if o.startswith(PLACES) for c in compose.values(o)))
        if source is not None:
            if not (Path(source) / write.RUNS).is_file():
                raise UserError(f"from: no {write.RUNS} in '{source}'")
            write.unpack(Path(source), out / "runs")
        if not (out / "runs").is_dir():
            raise UserError(f"no results in '{out}'; run something first, or say out=DIR")
        if [o for o in overrides if not o.startswith(PLACES)]:
            grid = expand(compose, overrides, multirun)
            boards = [leaderboard(grid, overrides, multirun, extra_dir)]
        else:
            boards = [*_tables(compose, overrides, extra_dir), _everything(out / "runs")]
    if keep is not None and len(boards) != 1:
        raise UserError("archive: name the table (or the grid) to keep")
    console = terminal()
    for made in boards:
        paths = write.archive(made, Path(keep)) if keep else write.write(made, out / "leaderboards")
        write.terminal(made, console)
        for path in paths:
            print(path)
    return 0


def _word(key: str, overrides: list[str]) -> tuple[str | None, list[str]]:
    """The value of a word that only `report` knows, and the other words."""
    found = [o for o in overrides if o.startswith(f"{key}=")]
    return (found[-1].partition("=")[2] if found else None), [o for o in overrides if o not in found]


def _tables(compose: Composer, places: list[str], extra_dir: str | None) -> Iterator[Board]:
    """The leaderboards of all tables, at all scales, that have a result."""
    for scale in compose.loader.get_group_options("scale"):
        for table in compose.loader.get_group_options("table"):
            words = [f"table={table}", *([f"scale={scale}"] if scale != "paper" else []), *places]
            made = leaderboard(expand(compose, words, False), words, False, extra_dir)
            if any(entry.runs for entry in made.entries):
                yield made


def _everything(runs: Path) -> Board:
    """All results, by what they are: only runs that differ in seed alone share a cell."""
    found: list[tuple[str, str, str, dict[str, Any]]] = []
    for path in sorted(runs.glob("*.json")):
        try:
            result = record.read(path)
        except UserError as error:
            say(f"passed over: {error}")
            continue
        counted = result["sparsity"]["prunable"]
        config = result["config"]
        sparsity = f"{counted['removed'] / counted['total']:.6g}"
        found.append((describe(config), _method(config), sparsity, result))
    methods: dict[str, list[str]] = {}  # description -> what the settings are, in order of appearance
    for label, method, _, _ in found:
        if method not in methods.setdefault(label, []):
            methods[label].append(method)
    cells = []
    for label, method, sparsity, result in found:
        number = f" ({methods[label].index(method) + 1})" if len(methods[label]) > 1 else ""
        cells.append((label + number, sparsity, result))
    return board("runs", "All runs", sorted(cells, key=lambda cell: cell[0]), "python -m lthbench report")


def _method(config: dict[str, Any]) -> str:
    """All settings but the seed and how far pruning goes, as text."""
    apart = {k: v for k, v in config.items() if k not in ("seed", "rounds", "rates_applied")}
    rounds = config.get("rounds", [])
    apart["pruned in"] = rounds[0] if len(rounds) > 1 else "one round"
    return re.sub(r'"seed": \d+', "", json.dumps(apart, sort_keys=True))


def describe(config: dict[str, Any]) -> str:
    """A run's settings in a few words, without sparsity and seed."""
    words = [config["model"]["name"], "on", config["data"]["name"]]
    if "pruner" not in config:
        return " ".join([*words, "dense"])
    criterion = config["pruner"]["criterion"]
    words.append(criterion["name"] + (" (own)" if "source" in criterion else ""))
    if config["pruner"]["program"] != "after_training":
        words.append(config["pruner"]["program"])
    if "retrain" in config:
        words.append(_retraining(config["retrain"]))
    if config["control"] != "none":
        words.append(config["control"])
    return " ".join(words)


def _retraining(retrain: dict[str, Any]) -> str:
    """Rewinding and retraining in the command line's words."""
    if retrain["from"] != "end":
        return "rewind to init" if retrain["from"] == 0 else f"rewind to step {retrain['from']}"
    return "fine-tuning" if retrain["batches"] == "its own" else "learning-rate rewinding"


def show(words: Sequence[str]) -> int:
    """Print one result."""
    arguments = parser("show", "One result: settings, metrics, sparsities, where each number comes from.")
    arguments.add_argument("id", help="a result's id, or its first letters")
    arguments.add_argument("place", nargs="*", default=[], help="out=DIR")
    arguments.add_argument("--json", action="store_true", help="the whole file")
    parsed = arguments.parse_intermixed_args(words)
    for word in parsed.place:
        if not word.startswith(PLACES):
            raise UserError(f"show: '{word}' has no meaning here; it takes an id and out=DIR")
    with composer(None) as compose:
        out, store = folders(compose.compose(c for o in parsed.place for c in compose.values(o)))
    found = sorted((out / "runs").glob(f"{parsed.id}*.json"))
    if len(found) != 1:
        several = f"{len(found)} results begin with" if found else "no result begins with"
        raise UserError(f"{several} '{parsed.id}' in '{out / 'runs'}'")
    result = record.read(found[0])
    if parsed.json:
        print(json.dumps(result, indent=1))
        return 0
    counts = ", ".join(f"{n} {c['removed'] / c['total']:.4%}" for n, c in result["sparsity"].items())
    print(f"{result['id']}  {describe(result['config'])}, seed {result['seed']}")
    for split, metrics in result["metrics"].items():
        print(f"{split}: accuracy {metrics['accuracy']:.4%}, loss {metrics['loss']}")
    print(f"removed of: {counts}")
    flops = result["flops"]
    print(
        f"multiply-adds: {flops['nonzero']:,} of {flops['dense']:,}, theoretical speed-up {flops['speedup'] or 0:.2f}"
    )
    if result["diverged_at"] is not None:
        print(f"diverged at step {result['diverged_at']}")
    for name, layer in result["layers"].items():
        print(f"  {name}: {layer['kept']:,} of {layer['total']:,}")
    print(f"weights sha256 {result['final_weights_sha256']}")
    for role, ref in result["stages"].items():
        print(f"  {role}: {ref}")
    ident, _, step = result["stages"]["final"].partition("@")
    name = state_file(int(step)) if step.isdigit() else f"{step}.safetensors" if step else "out.safetensors"
    print(f"the network: {store.folder(ident) / name}")
    cost = result["cost"]
    peak = readable(cost.get("peak_memory", 0))
    print(f"training {cost['train_seconds']} s, peak memory {peak}; {json.dumps(result['environment'])}")
    print("settings: " + json.dumps(result["config"], indent=1))
    return 0
