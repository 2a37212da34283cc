"""`lthbench report` and `lthbench show`: pages and results from the JSONs that are there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from lthbench.base.errors import UserError
from lthbench.cli.compose import Composer, composer
from lthbench.cli.execute import folders, leaderboard, say, terminal
from lthbench.cli.grid import expand
from lthbench.cli.planning import readable
from lthbench.cli.subcommands import overrides_of, parser
from lthbench.cli.tables import datasets, names_of, read
from lthbench.engine.store import Gone, Store, state_file
from lthbench.programs import record
from lthbench.report import layers, write
from lthbench.report.board import Board, board

DATA = re.compile(rb'"data": \{.*?"name": "([^"]+)"', re.DOTALL)  # of a run's settings; parsing it all takes far longer
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
            boards = [*_tables(compose, overrides, extra_dir, out / "runs"), _everything(out / "runs")]
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


def _tables(compose: Composer, places: list[str], extra_dir: str | None, runs: Path) -> Iterator[Board]:
    """The leaderboards of all tables, at all scales, that have a result."""
    there = {found[1] for path in runs.glob("*.json") if (found := DATA.search(path.read_bytes()))}
    for table in map(partial(read, compose), names_of(compose)):
        named = {name.encode() for name in datasets(compose, table)}
        if table.needs or not there & (named | {b"standin_" + name for name in named}):
            continue
        for scale in compose.loader.get_group_options("scale"):
            words = [f"table={table.name}", *([f"scale={scale}"] if scale != "paper" else []), *places]
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
        return " ".join([*words, config["soup"]["name"] if "soup" in config else "dense"])
    words.append(config["pruner"]["criterion"]["name"])
    if config["pruner"]["program"] != "after_training":
        words.append(config["pruner"]["program"])
    if "retrain" in config:
        words.append(_retraining(config["retrain"]))
    if structure := config["pruner"].get("structure"):
        words.append({"nm": f"{structure['n']}:{structure['m']}"}.get(structure["name"], f"{structure['name']}s"))
    if "soup" in config:
        words.append(f"soup {config['soup']['name']} of {len(config['retrain'])}")
    if config["control"] != "none":
        words.append(config["control"])
    return " ".join(words)


def _retraining(retrain: dict[str, Any] | list[dict[str, Any]]) -> str:
    """Rewinding and retraining in the command line's words; of several rounds or copies, those of the first."""
    while isinstance(retrain, list):
        retrain = retrain[0]
    if retrain["from"] != "end":
        return "rewind to init" if retrain["from"] == 0 else f"rewind to step {retrain['from']}"
    if retrain["batches"] != "its own":
        return "learning-rate rewinding"
    kind = retrain["recipe"]["schedule"]["kind"]
    return "fine-tuning" if kind == "constant" else f"{'adaptive ' if 'adapt' in retrain else ''}{kind} retraining"


def show(words: Sequence[str]) -> int:
    """Print one result, or how far the masks of two agree."""
    arguments = parser("show", "One result: settings, metrics, sparsities, layers, where each number comes from.")
    arguments.add_argument("id", help="a result's id, or its first letters")
    arguments.add_argument("words", nargs="*", default=[], help="out=DIR; a second id: how far the two masks agree")
    arguments.add_argument("--json", action="store_true", help="the whole file")
    arguments.add_argument("--chart", metavar="FILE.png", help="write a bar chart of the layers")
    parsed = arguments.parse_intermixed_args(words)
    parsed.place = [word for word in parsed.words if word.startswith(PLACES)]
    others = [word for word in parsed.words if word not in parsed.place]
    if len(others) > 1 or any("=" in word for word in others):
        raise UserError(f"show: '{others[-1]}' has no meaning here; it takes an id, or two, and out=DIR")
    with composer(None) as compose:
        out, store = folders(compose.compose(c for o in parsed.place for c in compose.values(o)))
    result = found(parsed.id, out)
    if parsed.json:
        print(json.dumps(result, indent=1))
        return 0
    if others:
        return _agree(store, result, found(others[0], out))
    if parsed.chart:
        Path(parsed.chart).write_bytes(layers.chart(result))
        print(parsed.chart)
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
    if "diagnosis" in result:
        _diagnose(result)
    terminal().print(layers.table(result))
    print(f"weights sha256 {result['final_weights_sha256']}")
    for role, ref in result["stages"].items():
        print(f"  {role}: {ref}")
    ident, name = place(result["stages"]["final"])
    print(f"the network: {store.folder(ident) / name}")
    cost = result["cost"]
    peak = readable(cost.get("peak_memory", 0))
    print(f"training {cost['train_seconds']} s, peak memory {peak}; {json.dumps(result['environment'])}")
    print("settings: " + json.dumps(result["config"], indent=1))
    return 0


def found(prefix: str, out: Path) -> dict[str, Any]:
    """The result whose id begins so. Raises UserError unless there is exactly one."""
    paths = sorted((out / "runs").glob(f"{prefix}*.json"))
    if len(paths) != 1:
        several = f"{len(paths)} results begin with" if paths else "no result begins with"
        raise UserError(f"{several} '{prefix}' in '{out / 'runs'}'")
    return record.read(paths[0])


def place(ref: str) -> tuple[str, str]:
    """The stage and the file that hold a state (`id@step`), or a stage's only output."""
    ident, _, step = ref.partition("@")
    return ident, state_file(int(step)) if step.isdigit() else f"{step}.safetensors" if step else "out.safetensors"


def _diagnose(result: dict[str, Any]) -> None:
    """What is wrong with the mask, if anything is."""
    diagnosis, parameters = result["diagnosis"], result["parameters"]
    print(f"parameters: {parameters['nonzero']:,} nonzero of {parameters['dense']:,}")
    if (effective := diagnosis["effective"]) is None:
        print(f"on a path from input to output: not known, paths cannot be followed through {diagnosis['unfollowed']}")
    else:
        print(f"off every path from input to output: {effective['removed'] / effective['total']:.4%}")
    if diagnosis["collapsed"]:
        print(f"layers without a weight: {', '.join(diagnosis['collapsed'])}")


def _agree(store: Store, one: dict[str, Any], other: dict[str, Any]) -> int:
    """Print, layer by layer, how much of the first mask the second keeps too, and how much chance would."""
    from lthbench.training.checkpoint import Checkpoint

    try:
        a, b = (Checkpoint.unpack(store.read(*place(r["stages"]["final"]))).mask for r in (one, other))
    except Gone:
        raise UserError(f"the masks are no longer in '{store.root}'; the runs' commands make them again") from None
    names = [name for name in one["layers"] if name in a and name in b and a[name].shape == b[name].shape]
    if not names:
        raise UserError("show: these two results have no pruned layer in common")
    table = Table("layer", box=None)
    for title in ("first keeps", "second keeps", "both", "of the first", "by chance"):
        table.add_column(title, justify="right")
    counts = {name: (int(a[name].sum()), int(b[name].sum()), int((a[name] & b[name]).sum())) for name in names}
    size = {name: a[name].numel() for name in names}
    expected = {name: counts[name][0] * counts[name][1] / size[name] for name in names}
    counts["all"] = tuple(map(sum, zip(*counts.values())))  # type: ignore[assignment]
    expected["all"] = sum(expected.values())
    for name, (first, second, both) in counts.items():
        shares = (f"{both / first:.2%}", f"{expected[name] / first:.2%}") if first else ("", "")
        table.add_row(name, f"{first:,}", f"{second:,}", f"{both:,}", *shares)
    terminal().print(table)
    return 0
