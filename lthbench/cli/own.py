"""A method of one's own in a table: `table=NAME pruner=my_pruner.py` adds rows, and leaves the paper's as they are.

Each row of the table that prunes lends its recipe: the same network, training, schedule, sparsities and seeds, with
the user's criterion in place of the row's, in the same program (before or after training). Rows that differ in their
pruner alone lend one recipe. Controls and tickets from elsewhere lend none: they ask something of a ticket, not of a
method. What the command
line says of the pruner (`pruner.KEY=VALUE`) is said of these rows only.

Results of such rows stay in the table's leaderboard when the file is not named: what was computed by a row's recipe
with another criterion is told by its settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lthbench.base.errors import UserError
from lthbench.base.settings import canonical
from lthbench.cli.compose import Composer
from lthbench.programs.identity import identity
from lthbench.pruning.own import own

if TYPE_CHECKING:
    from lthbench.cli.grid import Cell, Grid
    from lthbench.cli.tables import Row

PROGRAMS = ("after_training", "at_init")  # those that any criterion can be used in
AXES = ("sparsity", "seed")
DENSE = {"0", "0.0", "level:0"}
Result = dict[str, Any]


@dataclass(frozen=True)
class Loan:
    """A row that lends its recipe, the program it prunes in, and what follows the borrower's name in a label."""

    row: Row
    program: str
    title: str


def own_rows(composer: Composer, rows: Sequence[Row], rest: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows that the user's files add to a table, and the overrides that remain for the table's own."""
    named = [line for line in rest if _key(line) == "pruner" and any(c.file for c in composer.values(line))]
    if not named:
        return [], list(rest)
    files = composer.values(named[-1])
    for choice in files:
        if not choice.file:
            raise UserError(
                f"'{named[-1]}': {choice.value} is no file; a table takes methods of your own as pruner=FILE.py"
            )
    about = [line for line in rest if _key(line) == "pruner" or _key(line).startswith("pruner.")]
    others = [line for line in rest if line not in about]
    said = {_key(line): line.partition("=")[2] for line in about if _key(line) != "pruner"}
    lent: dict[tuple[str, ...], Loan] = {}  # rows that only ask for other sparsities or seeds are not the same
    for loan in loans(composer, rows, others):
        asked = (str({**loan.row.settings, **loan.row.own}.get(axis)) for axis in AXES)
        lent.setdefault((loan.row.block, loan.title, *asked), loan)
    if not lent:
        raise UserError(f"'{named[-1]}': no row of this table prunes in a way that another criterion can")
    added = []
    for choice in files:
        name = _marked(own(choice.value)[1].name)
        for loan in lent.values():
            settings = {"pruner.program": loan.program} | _without(loan.row.settings) | said
            mine = _without(loan.row.own) | {"pruner": choice.value}
            added.append(replace(_borrowed(loan.row, name, loan.title), settings=settings, own=mine))
    return added, others


def loans(composer: Composer, rows: Sequence[Row], rest: Sequence[str]) -> list[Loan]:
    """The rows whose recipe is lent. Rows of one recipe have the title of the first."""
    found: list[tuple[Row, str, str]] = []
    labels: dict[str, str] = {}
    for row in rows:
        points = list(row.points(composer, rest, {}))
        config = composer.compose(points[-1])
        program = config["pruner"].get("program")
        dense = {str(c.value) for choices in points for c in choices if c.key == "sparsity"} <= DENSE
        if dense or row.ticket is not None or program not in PROGRAMS or config["control"]["name"] != "none":
            continue
        recipe = {key: value for key, value in config.items() if key not in ("pruner", *AXES)} | {"program": program}
        found.append((row, program, labels.setdefault(json.dumps(recipe, sort_keys=True, default=str), row.label)))
    made = []
    for row, program, label in found:
        several = len({other for another, _, other in found if another.block == row.block}) > 1
        made.append(Loan(row, program, f", as {label}" if several else f", {row.block}" if row.block else ""))
    return made


def own_cells(grid: Grid, results: Iterable[Result]) -> list[tuple[Cell, Result]]:
    """Results of methods of one's own that a grid's rows have lent their recipe to, with a cell for each.

    Two methods of one name (the file was edited, another argument) are told apart in the label.
    """
    lenders: dict[str, Cell] = {}
    for cell in grid.cells if grid.lent else ():
        if cell.row.label in grid.lent and cell.experiment.run.rounds:
            lenders.setdefault(_recipe(json.loads(canonical(identity(cell.experiment.run)))), cell)
    found = [(lenders.get(_recipe(result["config"])), result) for result in results] if lenders else []
    borrowed = [(cell, result) for cell, result in found if cell is not None]
    names = _names([result["config"]["pruner"] for _, result in borrowed])
    return [
        (replace(cell, row=(row := _borrowed(cell.row, name, grid.lent[cell.row.label])), label=row.label), result)
        for (cell, result), name in zip(borrowed, names)
    ]


def borrowing(result: Result) -> list[str]:
    """What a command says to run the method of a result in a table. Where its file lies is not known."""
    args = result["config"]["pruner"]["criterion"].get("args", {})
    return ["pruner=FILE.py", *(f"pruner.{key}={value}" for key, value in args.items())]


def _recipe(config: Mapping[str, Any]) -> str:
    """What a run is but for its criterion, as text."""
    pruner = config["pruner"]
    kept = {"program": pruner["program"], "structure": pruner.get("structure")}
    return json.dumps({**config, "pruner": kept}, sort_keys=True)


def _names(pruners: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The name of each method, and the settings that tell it from others of that name."""
    told = [dict(_leaves({**pruner["criterion"], **(pruner.get("scoring") or {})})) for pruner in pruners]
    values: dict[tuple[str, str], set[str]] = {}
    for mine in told:
        for key, value in mine.items():
            values.setdefault((mine["name"], key), set()).add(str(value))
    for mine in told:
        apart = [key for key in mine if key != "seed" and len(values[mine["name"], key]) > 1]
        yield " ".join([_marked(mine["name"]), *(f"{key}={str(mine[key])[:8]}" for key in apart)])


def _leaves(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values in nested settings, each by its last key."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield key, value


def _marked(name: str) -> str:
    return f"{name} (own)"


def _borrowed(row: Row, name: str, title: str) -> Row:
    """A row with a method in it that has no place in the paper."""
    return replace(row, label=f"{name}{title}", where={**row.where, "method": name})


def _without(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what they say of the pruner."""
    return {k: v for k, v in settings.items() if k != "pruner" and not k.startswith("pruner.")}


def _key(line: str) -> str:
    return line.lstrip("+").partition("=")[0]
