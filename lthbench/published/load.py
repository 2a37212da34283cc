"""Reading the files: only the paper that is asked for, checked as it is read."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lthbench.base.errors import UserError, near
from lthbench.base.settings import build
from lthbench.published.paper import Claim, Paper, Table, Trials

HERE = Path(__file__).parent
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def known(own: str | None = None) -> dict[str, Path]:
    """Paper -> file: ours, and those in `<own>/published` that hide none of them."""
    folders = [*([Path(own) / "published"] if own else []), HERE]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def load(paper: str, own: str | None = None) -> Paper:
    """A paper's numbers. Raises UserError for an unknown paper, or one line on what is wrong with its file."""
    files = known(own)
    if paper not in files:
        raise UserError(f"no published numbers of a paper '{paper}'{near(paper, files)}; see: list papers")
    return _read(files[paper], files[paper].stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(path: Path, _age: int) -> Paper:
    where = path.name
    try:
        text: Any = yaml.load(path.read_bytes(), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from None
    if not isinstance(text, dict):
        raise UserError(f"{where}: not 'key: value' pairs")
    try:
        parts = {
            "tables": tuple(_part(Table, entry, "tables") for entry in _list(text, "tables")),
            "claims": tuple(_part(Claim, entry, "claims") for entry in _list(text, "claims")),
        }
        paper = build(Paper, text | parts, "paper")
        if paper.paper != path.stem:
            raise UserError(f"paper: '{paper.paper}' is not the file's name")
        tables = [_with_trials(table, path.parent) if table.trials else table for table in paper.tables]
        _once([*paper.tables, *paper.claims])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return build(Paper, {**vars(paper), "tables": tuple(tables)}, "paper") if tables != list(paper.tables) else paper


def _list(text: dict[str, Any], key: str) -> list[Any]:
    found = text.get(key)
    if not isinstance(found, list):
        raise UserError(f"{key}: missing, or not a list")
    return found


def _part(cls: Any, entry: Any, where: str) -> Any:
    if not isinstance(entry, dict) or "id" not in entry:
        raise UserError(f"{where}: an entry has no id")
    return build(cls, entry, str(entry["id"]))


def _once(parts: Iterable[Table | Claim]) -> None:
    seen: set[str] = set()
    for part in parts:
        if part.id in seen:
            raise UserError(f"'{part.id}' stands twice")
        seen.add(part.id)


def _with_trials(table: Table, folder: Path) -> Table:
    """The table with its rows from the CSV: mean, standard deviation and number of the trials of each line."""
    trials: Trials = table.trials  # type: ignore[assignment]
    codes = {key: {str(k): v for k, v in names.items()} for key, names in trials.codes.items()}
    rows = []
    with open(folder / trials.file, newline="") as file:
        for line in csv.DictReader(file):
            if any(line[key] not in names for key, names in codes.items()):
                continue
            named = {key: names[line[key]] for key, names in codes.items()}
            scores = [100 * float(line[column]) for column in trials.scores if line[column]]
            named |= {
                "model": named.get("network"),
                "sparsity": round(1 - float(line["density"]), 6),
                "retrain_epochs": float(line["retrain_time"]),
                "n": len(scores),
                "value": round(statistics.fmean(scores), 4),
                "spread": round(statistics.stdev(scores), 4),
            }
            rows.append([named[column] for column in table.columns])
    return build(Table, {**{k: v for k, v in vars(table).items() if k != "text"}, "rows": rows}, table.id)
