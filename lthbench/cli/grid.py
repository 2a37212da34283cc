"""Grids and tables: a union of small products of overrides, each point an experiment with a label.

A table is a YAML in the group `table`: `settings` hold for every row; the command line's overrides win over
them; what a row itself sets wins over both, because that is what its `label` says. The scale trims the table's
seeds and sparsities unless the command line names them. `published` columns stand beside ours at paper scale.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.cli.compose import Choice, Composer, Config
from lthbench.cli.own import own_rows
from lthbench.cli.resolve import resolve
from lthbench.programs import Experiment, experiment

TABLE_KEYS = ("title", "settings", "rows", "published")
NOT_IN_LABELS = {
    "seed",
    "sparsity",
    "out",
    "store",
    "data",
    "device",
    "jobs",
    "keep",
    "threads",
    "tracking",
    "launcher",
    "only",
}


@dataclass(frozen=True)
class Cell:
    """One point of a grid: a method at a sparsity with a seed. `sparsity` is what was asked, as text."""

    label: str
    sparsity: str
    seed: int
    experiment: Experiment


@dataclass(frozen=True)
class Grid:
    """What a command asks for: the composed settings of the command itself, and its cells."""

    name: str
    title: str
    config: Config
    cells: list[Cell]
    collapsed: int
    published: list[Config]  # columns of a paper's numbers: label, values (percent) by sparsity as it is asked

    @property
    def experiments(self) -> list[Experiment]:
        """The distinct experiments, in order."""
        return list({cell.experiment.id: cell.experiment for cell in self.cells}.values())


def expand(composer: Composer, overrides: Sequence[str], multirun: bool) -> Grid:
    """Compose and check every point of a command before anything is computed."""
    collecting = gc.isenabled()
    gc.disable()  # a large grid is millions of objects that stay: looking for garbage among them is a tenth of the time
    try:
        return _expand(composer, overrides, multirun)
    finally:
        if collecting:
            gc.enable()


def _expand(composer: Composer, overrides: Sequence[str], multirun: bool) -> Grid:
    table, rest = _table(composer, overrides)
    top = composer.compose(choice for line in rest for choice in composer.values(line)[:1])
    explicit = {composer.parse(line).key_or_group for line in rest}  # a scale does not touch these
    several = {values[0].key for line in rest if len(values := composer.values(line)) > 1}
    if table is None:
        if top["only"] is not None:
            raise UserError(f"only={top['only']} chooses rows of a table; name one with table=NAME")
        for line in rest:
            if not multirun and len(composer.values(line)) > 1:
                raise UserError(f"'{line}' is a list where one value belongs; -m runs a grid, one run a value")
        rows = [Row("", {}, {})]
        name, title = "grid", "Grid"
    else:
        rows = [Row.of(row, table["settings"]) for row in table["rows"]]
        added, rest = own_rows(composer, rows, rest)
        rows += added
        name, title = table["name"], table["title"]
        if top["only"] is not None:
            chosen = [row for row in rows if str(top["only"]) in row.label]
            if not chosen:
                labels = [row.label for row in rows]
                raise UserError(f"only={top['only']}: no such row in table {name}{near(top['only'], labels)}")
            rows = chosen
    scale = top["scale"]
    if scale["name"] != "paper":
        name += f".{scale['name']}"
    cells: dict[tuple[str, str, str], Cell] = {}
    points = 0
    for row in rows:
        for choices in row.points(composer, rest, scale if table is not None else {}):
            config = composer.compose(choices)
            made = experiment(resolve(config, explicit))
            label = _varied(choices, several) if table is None else _marked(row, choices, several)
            cell = Cell(label, str(config["sparsity"]), int(config["seed"]), made)
            cells.setdefault((label, made.id, cell.sparsity if cell.experiment.run.rounds else ""), cell)
            points += 1
    published = table["published"] if table is not None and scale["name"] == "paper" else []
    return Grid(name, title, top, list(cells.values()), points - len(cells), published)


@dataclass(frozen=True)
class Row:
    """One small grid of a table: a label, the table's settings, and the row's own, each by key."""

    label: str
    settings: dict[str, Any]
    own: dict[str, Any]

    @classmethod
    def of(cls, row: dict[str, Any], settings: dict[str, Any]) -> Row:
        """A row as the table's file writes it."""
        return cls(str(row["label"]), settings, {key: value for key, value in row.items() if key != "label"})

    def points(self, composer: Composer, rest: Sequence[str], scale: Config) -> Iterable[tuple[Choice, ...]]:
        """The product of all axes: settings, then the command line, then the row's own."""

        def axis(key: str, value: Any) -> list[Choice]:
            return composer.values(f"{key}={'null' if value is None else value}")

        said = {values[0].key: values for values in map(composer.values, rest)}
        axes = {key: axis(key, value) for key, value in self.settings.items()} | said
        axes |= {key: axis(key, value) for key, value in self.own.items()}
        for key, most in (("seed", scale.get("seeds")), ("sparsity", scale.get("sparsities"))):
            if most and key not in said and key in axes:
                axes[key] = _spread(axes[key], most)
        return itertools.product(*axes.values())


def _spread(values: list[Choice], most: int) -> list[Choice]:
    """At most so many of the values, evenly spread, the first included."""
    if len(values) <= most:
        return values
    return [values[i * (len(values) - 1) // max(1, most - 1)] for i in range(most)]


def _table(composer: Composer, overrides: Sequence[str]) -> tuple[Config | None, list[str]]:
    """The table that is named (with or without `+`), and the other overrides."""
    lines = [line for line in overrides if line.lstrip("+").split("=", 1)[0] == "table"]
    rest = [line for line in overrides if line not in lines]
    if not lines:
        return None, rest
    choices = composer.values(lines[-1])
    if len(choices) > 1:
        raise UserError(f"'{lines[-1]}': one table a command")
    name = choices[0].value
    if name is None:
        return None, rest
    table = composer.compose([composer.choice(f"table={name}")]).get("table") or {}
    for key in table:
        if key not in TABLE_KEYS:
            raise UserError(f"table {name}: unknown key '{key}'{near(key, TABLE_KEYS)}")
    made = {"settings": {}, "title": name, "rows": None, "published": [], **table, "name": name}
    made["settings"] = made["settings"] or {}
    if not isinstance(made["settings"], dict):
        raise UserError(f"table {name}: settings are no 'key: value' pairs")
    if not isinstance(made["rows"], list) or not made["rows"]:
        raise UserError(f"table {name} has no rows")
    for number, row in enumerate(made["rows"], 1):
        if not isinstance(row, dict) or "label" not in row:
            raise UserError(f"table {name}: row {number} has no label")
    return made, rest


def _marked(row: Row, choices: Iterable[Choice], several: set[str]) -> str:
    """A row's label, and what the command line varies in it."""
    varied = [f"{c.key}={c.value}" for c in choices if c.key in several - set(row.own) and c.key not in NOT_IN_LABELS]
    return " ".join([row.label, *varied])


def _varied(choices: Iterable[Choice], several: set[str]) -> str:
    """What tells a point of a free grid from its neighbours, besides sparsity and seed."""
    varied = [c for c in choices if c.key in several and c.key not in NOT_IN_LABELS]
    shown = varied or [c for c in choices if c.key not in NOT_IN_LABELS]
    return " ".join(f"{c.key}={c.value}" for c in shown) or "defaults"
