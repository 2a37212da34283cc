"""Tables: a YAML in the group `table` is a union of small grids, and what a paper says of them.

`settings` hold for every row; the command line's overrides win over them; what a block or a row itself sets wins over
both, because that is what its `label` says. `blocks` (networks, data sets) are crossed with `rows` (methods).
`where` says in the paper's words where settings, block or row stand: by that and by sparsity the cells of the tables
in `published` and the sides of the `claims` are found. A row's `ticket: {key: value}` trains a ticket that was found
elsewhere: by the run that the row would be with these settings.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, build, coerce
from lthbench.cli.compose import Choice, Composer, Config, conf_dir
from lthbench.published import Claim, Paper, load
from lthbench.report.cases import names, quantity_of, understood
from lthbench.report.compare import Part
from lthbench.report.quantities import QUANTITIES

COUNTS = ("prunable", "weights", "parameters")


@dataclass(frozen=True)
class Table(Settings):
    """What a table's file says.

    `published` names tables of the paper: by id, or as {table: id, word: value} where one is about a part of the rows.
    `quantity` is what is compared, `margin` in its unit how near is the same, fixed before anything is run. The
    paper's sparsity is over `counted` weights (one of a result's three counts); `at` gives what a `level:n` comes to
    where that is not what was asked: rates by kind of layer, weights that are counted and not pruned. `scales` are
    settings for scales other than paper. `assumptions` are printed beside the results. `needs`: why it cannot run yet.
    `cost`: epochs at paper scale, of all runs and of each run `alone`; a test keeps it true.
    """

    name: str
    title: str
    rows: tuple[dict[str, Any], ...]
    blocks: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    paper: str | None = None
    published: tuple[Any, ...] = ()
    claims: tuple[str, ...] = ()
    quantity: str = "accuracy"
    margin: float | None = None
    counted: str = "prunable"
    at: dict[str, float] = field(default_factory=dict)
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    cost: dict[str, float] = field(default_factory=dict)
    needs: str | None = None

    def __post_init__(self) -> None:
        where = f"table {self.name}"
        if not self.rows and not self.needs:
            raise UserError(f"{where} has no rows")
        if self.quantity not in QUANTITIES:
            raise UserError(f"{where}: quantity: unknown '{self.quantity}'{near(self.quantity, QUANTITIES)}")
        if self.counted not in COUNTS:
            raise UserError(f"{where}: counted: unknown '{self.counted}'{near(self.counted, COUNTS)}")
        if (self.published or self.claims) and self.paper is None:
            raise UserError(f"{where}: published and claims need a paper")
        if self.published and (self.margin is None or self.margin <= 0):
            raise UserError(f"{where}: published numbers need a margin above 0")

    def grids(self) -> list[Row]:
        """The small grids: blocks crossed with rows."""
        return [Row.of(self, dict(block), dict(row)) for block in self.blocks or ({"label": ""},) for row in self.rows]


@dataclass(frozen=True)
class Row:
    """One small grid of a table: a label, the table's settings, and its own, each by key.

    `ticket`: what is set otherwise in the run that finds the ticket; None: the row trains none from elsewhere.
    """

    label: str
    settings: Mapping[str, Any]
    own: Mapping[str, Any]
    where: Mapping[str, Any] = field(default_factory=dict)
    block: str = ""
    ticket: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, table: Table, block: dict[str, Any], row: dict[str, Any]) -> Row:
        """A row of a block; what the row sets wins."""
        labels = [str(part.pop("label")) for part in (row, block)]
        where = dict(table.where)
        for part in (block, row):
            where |= coerce(part.pop("where", None) or {}, dict[str, Any], f"table {table.name}: {labels[0]}: where")
        own = block | row
        ticket = own.pop("ticket") if isinstance(own.get("ticket"), dict) else None
        return cls(", ".join(filter(None, labels)), table.settings, own, where, labels[1], ticket)

    def points(self, composer: Composer, rest: Sequence[str], scale: Config) -> Iterable[tuple[Choice, ...]]:
        """The product of all axes: settings, then the command line, then the row's own."""
        said = {values[0].key: values for values in map(composer.values, rest)}
        axes = {key: _axis(composer, key, value) for key, value in self.settings.items()} | said
        axes |= {key: _axis(composer, key, value) for key, value in self.own.items()}
        for key, most in (("seed", scale.get("seeds")), ("sparsity", scale.get("sparsities"))):
            if most and key not in said and key in axes:
                axes[key] = axes[key][:most]
        return itertools.product(*axes.values())

    def source(self, composer: Composer, point: Sequence[Choice]) -> tuple[Choice, ...]:
        """The point of the run that finds the ticket which the row trains at a point of its own."""
        axes = [_axis(composer, key, value) for key, value in (self.ticket or {}).items()]
        for values in axes:
            if len(values) > 1:
                raise UserError(f"{self.label}: ticket: {values[0].key} has several values; one run finds a ticket")
        return (*point, *(values[0] for values in axes))


def _axis(composer: Composer, key: str, value: Any) -> list[Choice]:
    """What a table's file sets a key to: one choice, or several."""
    return composer.values(setting(key, value))


def setting(key: str, value: Any) -> str:
    """What a table's file sets a key to, as the command line says it."""
    return f"{key}={'null' if value is None else value}"


def named(composer: Composer, overrides: Sequence[str]) -> tuple[Table | None, list[str]]:
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
    table = read(composer, name)
    if table.needs:
        raise UserError(f"table {name} is not yet runnable: {table.needs}")
    return table, rest


def read(composer: Composer, name: str) -> Table:
    """A table's file, checked, its published numbers and claims as well."""
    text = text_of(composer, name)
    text.pop("defaults", None)
    known = [f.name for f in fields(Table) if f.name != "name"]
    for key in text:
        if key not in known:
            raise UserError(f"table {name}: unknown key '{key}'{near(key, known)}")
    if not isinstance(text.get("settings") or {}, dict):
        raise UserError(f"table {name}: settings are no 'key: value' pairs")
    if not isinstance(text.get("rows"), list) and not text.get("needs"):
        raise UserError(f"table {name} has no rows")
    for what in ("rows", "blocks"):
        for number, part in enumerate(text.get(what) or [], 1):
            if not isinstance(part, dict) or "label" not in part:
                raise UserError(f"table {name}: {what.removesuffix('s')} {number} has no label")
    made = {key: value for key, value in text.items() if value is not None}
    table = build(Table, {"title": name, "rows": [], **made, "name": name}, f"table {name}")
    for row in table.grids():
        if any(isinstance(value, dict) for value in row.own.values()):
            raise UserError(
                f"table {name}: {row.label}: a setting is a group; name one setting a key, group.key: value"
            )
    numbers(table, composer.extra_dir)
    return table


def text_of(composer: Composer, name: str) -> dict[str, Any]:
    """A table's file over those that its `defaults` name, as Hydra would compose it, in a hundredth of the time."""
    options = names_of(composer)
    if name not in options:
        raise UserError(f"no option '{name}' in group 'table'{near(name, options)}")
    folders = [folder for folder in (conf_dir(), composer.extra_dir) if folder]
    path = next(p for folder in folders if (p := Path(folder) / "table" / f"{name}.yaml").is_file())
    try:
        text = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"table {name}: {' '.join(str(error).split())}") from None
    if not isinstance(text, dict):
        raise UserError(f"table {name} has no rows")
    made: dict[str, Any] = {}
    for base in text.get("defaults") or []:
        _merge(made, text_of(composer, str(base)))
    return _merge(made, text)


def names_of(composer: Composer) -> list[str]:
    """The tables there are."""
    return composer.options("table")


def datasets(composer: Composer, table: Table) -> list[str]:
    """The data sets that a table's rows name."""
    rows = table.grids()
    points = [point for row in rows for point in row.points(composer, [], {})]
    chosen = {next((c.value for c in point if c.key == "dataset"), "digits") for point in points}
    chosen |= {row.ticket["dataset"] for row in rows if row.ticket and "dataset" in row.ticket}
    return sorted(map(str, chosen))


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged, everything else is replaced."""
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(under.get(key), dict)
        under[key] = _merge(dict(under[key]), value) if both else value
    return under


def numbers(table: Table, own: str | None) -> tuple[Paper, tuple[Part, ...], tuple[Claim, ...]] | None:
    """The paper a table is compared with, its tables and claims; a UserError where they do not fit the table."""
    if table.paper is None:
        return None
    paper = load(table.paper, own)
    where = f"table {table.name}"
    tables = []
    for entry in table.published:
        about = dict(entry) if isinstance(entry, dict) else {"table": entry}
        theirs = paper.table(str(about.pop("table", None)))
        if theirs.quantity is None or (theirs.quantity == "accuracy") != table.quantity.startswith("accuracy"):
            raise UserError(f"{where}: {theirs.id} holds {theirs.metric} ({theirs.unit}), not {table.quantity}")
        tables.append(Part(about, theirs))
    claims = tuple(paper.claim(ident) for ident in table.claims)
    places = [row.where for row in table.grids()]
    for claim in claims:
        for key, value in names(claim):
            ours = [v for place in places if key in place for v in _list(place[key])]
            if value not in ours and (key, value) != ("method", "dense"):
                raise UserError(
                    f"{where}: claim {claim.id}: no row has {key} '{value}'{near(str(value), map(str, ours))}"
                )
        if not understood(claim):
            raise UserError(f"{where}: claim {claim.id} is about {quantity_of(claim)}, which results do not hold")
    return paper, tuple(tables), claims


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
