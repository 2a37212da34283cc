"""`lthbench report`: pages from the JSONs that are there, of one folder or several."""

from __future__ import annotations

import gc
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lthbench.base.errors import UserError
from lthbench.cli.compose import Composer, Config, composer
from lthbench.cli.execute import leaderboard, say, terminal
from lthbench.cli.grid import expand
from lthbench.cli.results import Results
from lthbench.cli.subcommands import overrides_of, parser
from lthbench.cli.tables import names_of, text_of
from lthbench.programs.versions import outdated
from lthbench.report import write
from lthbench.report.board import EVERYTHING, Board, board
from lthbench.report.html import page

PLACES = ("out=", "store=", "data=")
_encode = json.JSONEncoder(sort_keys=True).encode  # made once: ten thousand results are encoded


def report(words: Sequence[str]) -> int:
    """Remake one leaderboard (of the command that is named) or all that have results, and the page of all."""
    arguments = parser(
        "report",
        "Remake leaderboards from the results, without computing anything; and index.html, the page of them all.\n\n"
        "  out=DIR,DIR       results of several machines as one; the leaderboards go to the first\n"
        "  pruner=FILE.py    all tables, with your own method in each\n"
        "  archive=DIR       one leaderboard and all runs it rests on, to keep: md, csv, png, runs.jsonl.gz\n"
        "  from=DIR,DIR      put the runs of such archives among the results first",
    )
    arguments.add_argument(
        "overrides", nargs="*", help="a command's overrides (table=NAME, out=DIR, -m ...); none: all tables"
    )
    if {"-h", "--help"} & set(words):
        arguments.print_help()
        return 0
    gc.disable()  # results are all values and no garbage
    overrides, multirun, extra_dir = overrides_of(words)
    keep, overrides = _word("archive", overrides)
    source, overrides = _word("from", overrides)
    with composer(extra_dir) as compose:
        places = [o for o in overrides if o.startswith(PLACES)]
        said = [o for o in overrides if o not in places]
        outs = out_folders(compose, places)
        archives = [Path(folder) for folder in (source or "").split(",") if folder]
        for folder in archives:
            if not (folder / write.RUNS).is_file():
                raise UserError(f"from: no {write.RUNS} in '{folder}'")
        for folder in archives:
            write.unpack(folder, outs[0] / "runs")
        for out in outs:
            if not (out / "runs").is_dir():
                raise UserError(f"no results in '{out}'; run something first, or say out=DIR")
        found = Results(outs)
        if said and not all(_own(o) for o in said):
            boards = [leaderboard(expand(compose, said, multirun), said, multirun, extra_dir, found)]
        elif keep is not None:
            raise UserError("archive: name the table (or the grid) to keep")
        else:
            boards = [*_tables(compose, said, extra_dir, found), _everything(found)]
    console = terminal()
    for made in boards:
        paths = write.archive(made, Path(keep)) if keep else write.write(made, outs[0] / "leaderboards")
        write.terminal(made, console)
        for path in paths:
            print(path)
    if not keep:
        index = outs[0] / "leaderboards" / "index.html"
        write.replace(index, page(boards, shlex.join(["python", "-m", "lthbench", "report", *words])).encode())
        print(index)
    for line in found.remarks:
        say(line)
    return 0


def out_folders(compose: Composer, places: Sequence[str]) -> list[Path]:
    """The folders that `out=A,B` names, or the default one."""
    named = [choice for line in places for choice in compose.values(line) if choice.key == "out"]
    outs = [choice.value for choice in named] or [compose.compose([])["out"]]
    if not all(isinstance(out, str) and out for out in outs):
        raise UserError("out: name a folder")
    return [Path(out) for out in dict.fromkeys(outs)]


def _own(override: str) -> bool:
    """Whether an override is about a method of the user's own: `pruner=FILE.py`, `pruner.KEY=VALUE`."""
    key, _, value = override.partition("=")
    return (key == "pruner" and value.endswith(".py")) or key.startswith("pruner.")


def _word(key: str, overrides: list[str]) -> tuple[str | None, list[str]]:
    """The value of a word that only `report` knows, and the other words."""
    found = [o for o in overrides if o.startswith(f"{key}=")]
    return (found[-1].partition("=")[2] if found else None), [o for o in overrides if o not in found]


# ---- all tables


def _tables(compose: Composer, said: list[str], extra_dir: str | None, found: Results) -> Iterator[Board]:
    """The leaderboards of all tables, at all scales, that have a result."""
    there = {(r["config"]["model"]["name"], r["config"]["data"]["name"]) for r in found.everything}
    names = _Names(compose)
    for table in names_of(compose):
        try:
            uses = names.uses(table)
        except UserError as error:
            say(f"passed over: {error}")
            continue
        for scale in compose.options("scale"):
            standin = bool(compose.compose([compose.choice(f"scale={scale}")])["scale"]["standin"])
            if not any(_fits(uses, model, data, standin) for model, data in there):
                continue
            words = [f"table={table}", *([f"scale={scale}"] if scale != "paper" else []), *said]
            try:
                made = leaderboard(expand(compose, words, False), words, False, extra_dir, found)
            except UserError as error:
                say(f"passed over: table {table}: {error}")
                continue
            if any(entry.runs or entry.stale for entry in made.entries):
                yield made


class _Names:
    """What networks and data sets a table can have results of, read off its YAML: composing it takes far longer."""

    def __init__(self, compose: Composer) -> None:
        self.compose = compose

    def uses(self, table: str) -> dict[str, set[str] | None]:
        """Names by group, of all rows together; None where they cannot be told."""
        text = text_of(self.compose, table)
        layers = [[text.get("settings") or {}], text.get("blocks") or [], text.get("rows") or []]
        layers.append(list((text.get("scales") or {}).values()))
        if text.get("needs"):  # not yet runnable
            return {group: set() for group in DEFAULTS}
        return {group: self._named(group, layers) for group in DEFAULTS}

    def _named(self, group: str, layers: Sequence[Any]) -> set[str] | None:
        names: set[str] = set()
        parts = [part for layer in layers for part in layer if isinstance(part, dict)]
        said = {str(part[group]) for part in parts if group in part}
        if not any(layer and all(group in part for part in layer) for layer in layers[:3]):
            said.add(DEFAULTS[group])
        for option in {option for text in said for option in text.split(",")}:
            name = self._read(group, option.strip()).get("name")
            if name in (None, "???") or any(f"{group}.name" in part for part in parts):
                return None
            names.add(str(name))
        return names

    def _read(self, group: str, option: str) -> Config:
        text = yaml.load(self.compose.file(group, option) or "", LOADER)
        return text if isinstance(text, dict) else {}


DEFAULTS = {"model": "lenet_300_100", "dataset": "digits"}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _fits(uses: dict[str, set[str] | None], model: str, data: str, standin: bool) -> bool:
    """Whether a result on these can be one of a table that uses those."""
    if data.startswith("standin_") != standin:
        return False
    given = {"model": model, "dataset": data.removeprefix("standin_")}
    return all((names := uses[group]) is None or name in names for group, name in given.items())


# ---- all runs


def _everything(found: Results) -> Board:
    """All results, by what they are: only runs that differ in seed alone share a cell."""
    cells: list[tuple[str, str, str, dict[str, Any]]] = []
    for result in found.everything:
        counted = result["sparsity"]["prunable"]
        sparsity = f"{counted['removed'] / counted['total']:.6g}"
        old = outdated(result)
        label = describe(result["config"]) + (f" (stale: {', '.join(old)})" if old else "")
        cells.append((label, _method(result["config"], old), sparsity, result))
    methods: dict[str, dict[str, int]] = {}  # description -> what the settings are -> its number
    for label, method, _, _ in cells:
        known = methods.setdefault(label, {})
        known.setdefault(method, len(known) + 1)
    named = []
    for label, method, sparsity, result in cells:
        number = f" ({methods[label][method]})" if len(methods[label]) > 1 else ""
        named.append((label + number, sparsity, result))
    return board(EVERYTHING, "All runs", sorted(named, key=lambda cell: cell[0]), "python -m lthbench report")


def _method(config: dict[str, Any], old: list[str]) -> str:
    """All settings but the seed and how far pruning goes, and the versions that are old, as text."""
    apart = {k: v for k, v in config.items() if k not in ("seed", "rounds", "rates_applied")}
    rounds = config.get("rounds", [])
    apart["pruned in"] = rounds[0] if len(rounds) > 1 else "one round"
    apart["stale"] = old
    return re.sub(r'"seed": \d+', "", _encode(apart))


def describe(config: dict[str, Any]) -> str:
    """A run's settings in a few words, without sparsity and seed."""
    words = [config["model"]["name"], "on", config["data"]["name"]]
    if "pruner" not in config:
        return " ".join([*words, config["soup"]["name"] if "soup" in config else "dense", *_compressed(config)])
    criterion = config["pruner"]["criterion"]
    words.append(criterion["name"] + (" (own)" if "source" in criterion else ""))
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
    return " ".join([*words, *_compressed(config)])


def _compressed(config: dict[str, Any]) -> list[str]:
    return ["compressed"] if "compress" in config else []


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
