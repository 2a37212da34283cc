"""Grids: products of overrides, each point an experiment with a label; a table is a union of small ones.

The scale trims a table's seeds and sparsities unless the command line names them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lthbench.base.errors import UserError, near
from lthbench.cli.compose import Choice, Composer, Config
from lthbench.cli.own import loans, own_rows
from lthbench.cli.resolve import look_again, resolve
from lthbench.cli.tables import Row, Table, named, numbers, setting
from lthbench.cli.tuning import Trial, Tune, check, tuning
from lthbench.programs import Experiment, Run, experiment
from lthbench.programs.candidates import CHOOSING
from lthbench.programs.transfer import named as ticket_of
from lthbench.pruning.own import own
from lthbench.report.compare import Comparison, Place

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
    row: Row
    trial: str = ""  # of a tuned grid: the setting that is tried

    @property
    def pruned_by(self) -> Run:
        """The run whose sparsity the cell is about: the one that finds its ticket, where the table says which."""
        run = self.experiment.run
        return run.ticket.source if run.ticket and run.ticket.source else run

    @property
    def asked(self) -> str:
        """The sparsity that was asked for; a dense network is one, however it was asked, and so is an outcome."""
        run = self.pruned_by
        if run.method is not None and run.method.outcome and run.rounds:
            return f"outcome of {self.label}"  # each has a column of its own
        return self.sparsity if run.rounds else "ticket" if self.experiment.run.ticket else "0"


@dataclass(frozen=True)
class Grid:
    """What a command asks for: the composed settings of the command itself, and its cells."""

    name: str
    title: str
    config: Config
    cells: list[Cell]
    collapsed: int
    table: Table | None = None
    tune: Tune | None = None
    lent: Mapping[str, str] = field(default_factory=dict)  # row -> what follows the name of a method that borrows it
    held_out: bool = False  # validation images that nobody asked for

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
    look_again()
    tune, lines = tuning(composer, overrides)
    table, rest = named(composer, lines)
    explicit = {composer.parse(line).key_or_group for line in rest} | (tune.keys if tune else set())
    several = {values[0].key for line in rest if len(values := composer.values(line)) > 1}
    top = _top(composer, rest)
    if table is not None and (more := table.scales.get(top["scale"]["name"])):
        rest = [*(setting(key, value) for key, value in more.items() if key not in explicit), *rest]
        top = _top(composer, rest)
    lent: dict[str, str] = {}
    if table is None:
        if top["only"] is not None:
            raise UserError(f"only={top['only']} chooses rows of a table; name one with table=NAME")
        for line in rest:
            if not multirun and len(composer.values(line)) > 1:
                raise UserError(f"'{line}' is a list where one value belongs; -m runs a grid, one run a value")
        rows: list[Row] = [Row("", {}, {})]
        name, title = "grid", "Grid"
    else:
        rows, rest, lent = _rows(composer, table, rest, top["only"], tune is not None)
        name, title = table.name, table.title
    choices_said = [choice for line in rest for choice in composer.values(line)]
    chooses = any(choice.key == "soup" and choice.value in CHOOSING for choice in choices_said)
    hold_out = table is None and chooses and "dataset.validation" not in explicit
    scale = top["scale"]
    if scale["name"] != "paper":
        name += f".{scale['name']}"
    name += ".tuned" if tune else ""
    cells: dict[tuple[str, ...], Cell] = {}
    methods: set[str] = set()
    points = 0
    for row in rows:
        if tune and (fixed := tune.keys & set(row.own)):
            raise UserError(f"tune: {fixed.pop()} is what makes '{row.label}' this row")
        for choices in row.points(composer, rest, scale if table is not None else {}):
            config = composer.compose(choices)
            label = _varied(choices, several) if table is None else _marked(row, choices, several)
            methods |= {_method(config)} if tune else set()
            for trial in tune.of(_method(config)) or ("",) if tune else ("",):
                point = (*choices, composer.choice(trial)) if trial else choices
                config = composer.compose(point) if trial else config
                made = experiment(_run(composer, row, point, config, explicit, hold_out))
                if tune and not made.run.data.validation:
                    raise UserError("tune: settings are chosen on validation images; say dataset.validation=N")
                cell = Cell(label, str(config["sparsity"]), int(config["seed"]), made, row, trial)
                cells.setdefault((label, made.id, cell.asked, trial), cell)
                points += 1
    if tune:
        check(tune, (Trial(c.label, c.asked, c.trial, c.experiment.id) for c in cells.values()), methods)
    return Grid(name, title, top, list(cells.values()), points - len(cells), table, tune, lent, hold_out)


def _run(
    composer: Composer, row: Row, point: tuple[Choice, ...], config: Config, explicit: set[str], hold_out: bool
) -> Run:
    """The run at a point of a row, with the run that finds its ticket where the row says which."""
    run = resolve(config, explicit, {choice.key for choice in point}, hold_out)
    if row.ticket is None:
        return run
    told = row.source(composer, point)
    source = resolve(composer.compose(told), explicit, {choice.key for choice in told})
    return replace(run, ticket=ticket_of(experiment(source), str(config["ticket_output"])))


def _rows(
    composer: Composer, table: Table, rest: list[str], only: object, tuned: bool
) -> tuple[list[Row], list[str], dict[str, str]]:
    """The rows of a table that are asked for, the overrides that are about them, and what they lend."""
    rows = table.grids()
    added, others = own_rows(composer, rows, rest)
    lent = {} if added or tuned else {loan.row.label: loan.title for loan in loans(composer, rows, rest)}
    rows += added
    if only is not None:
        chosen = [row for row in rows if str(only) == row.label] or [row for row in rows if str(only) in row.label]
        if not chosen:
            labels = [row.label for row in rows]
            raise UserError(f"only={only}: no such row in table {table.name}{near(only, labels)}")
        rows = chosen
    return rows, others, lent


def _top(composer: Composer, lines: Sequence[str]) -> Config:
    """The settings of the command itself: of each axis the first value."""
    return composer.compose(choice for line in lines for choice in composer.values(line)[:1])


def comparison(grid: Grid, folder: str | None) -> Comparison | None:
    """What the paper says of a grid's cells; None where there is no paper, and of a tuned
    grid, which is no paper's. `folder` is the user's."""
    table = grid.table
    found = numbers(table, folder) if table and grid.tune is None else None
    if table is None or found is None:
        return None
    paper, tables, claims = found
    places = {
        (cell.label, cell.asked): Place(cell.row.where, _nominal(cell, table), cell.row.block) for cell in grid.cells
    }
    return Comparison(paper, tables, claims, table.quantity, table.margin, table.counted, places)


def _nominal(cell: Cell, table: Table) -> float | None:
    """The sparsity asked for as a number; None where nothing but the network's sizes tells it."""
    rounds = cell.pruned_by.rounds
    if not rounds:
        return 0.0
    if cell.asked in table.at:
        return table.at[cell.asked]
    return None if rounds[-1] is None else 1 - float(rounds[-1])


def _method(config: Config) -> str:
    """The criterion that a configuration prunes by, as `tune` names it."""
    name = str(config["pruner"].get("criterion"))
    return own(name)[1].name if name.endswith(".py") else name


def _tells(choice: Choice) -> bool:
    """Whether a setting may be part of a method's name: not where, how often and with what it is computed."""
    return choice.key.partition(".")[0] not in NOT_IN_LABELS


def _marked(row: Row, choices: Iterable[Choice], several: set[str]) -> str:
    """A row's label, and what the command line varies in it."""
    varied = [f"{c.key}={c.value}" for c in choices if c.key in several - set(row.own) and _tells(c)]
    return " ".join([row.label, *varied])


def _varied(choices: Iterable[Choice], several: set[str]) -> str:
    """What tells a point of a free grid from its neighbours, besides sparsity and seed."""
    varied = [c for c in choices if c.key in several and _tells(c)]
    shown = varied or list(filter(_tells, choices))
    return " ".join(f"{c.key}={c.value}" for c in shown) or "defaults"
