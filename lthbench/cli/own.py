"""A method of one's own in a table: `table=NAME pruner=my_pruner.py` adds rows, and leaves the paper's as they are.

Each row of the table that prunes lends its recipe: the same network, training, schedule, sparsities and seeds, with
the user's criterion in place of the row's, in the same program (before or after training). Rows that differ in their
pruner alone lend one recipe. Controls and tickets from elsewhere lend none: they ask something of a ticket, not of a
method. What the command
line says of the pruner (`pruner.KEY=VALUE`) is said of these rows only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lthbench.base.errors import UserError
from lthbench.cli.compose import Composer
from lthbench.pruning.own import own

if TYPE_CHECKING:
    from lthbench.cli.tables import Row

PROGRAMS = ("after_training", "at_init")  # those that any criterion can be used in
AXES = ("sparsity", "seed")
DENSE = {"0", "0.0", "level:0"}


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
    lent = _recipes(composer, rows, others)
    if not lent:
        raise UserError(f"'{named[-1]}': no row of this table prunes in a way that another criterion can")
    added = []
    for choice in files:
        name = f"{own(choice.value)[1].name} (own)"
        for row, program in lent:
            recipes = {other.label for other, _ in lent if other.block == row.block}
            label = f"{name}, as {row.label}" if len(recipes) > 1 else ", ".join(filter(None, (name, row.block)))
            settings = {"pruner.program": program} | _without(row.settings) | said
            mine = _without(row.own) | {"pruner": choice.value}
            where = {**row.where, "method": name}  # no place of the paper's
            added.append(replace(row, label=label, settings=settings, own=mine, where=where))
    return added, others


def _recipes(composer: Composer, rows: Sequence[Row], rest: Sequence[str]) -> list[tuple[Row, str]]:
    """The rows whose recipe is lent, with the program each prunes in. Those that only ask for other sparsities
    bear the label of the first."""
    found: dict[tuple[str, ...], tuple[Row, str]] = {}
    labels: dict[str, str] = {}
    for row in rows:
        points = list(row.points(composer, rest, {}))
        config = composer.compose(points[-1])
        program = config["pruner"].get("program")
        dense = {str(c.value) for choices in points for c in choices if c.key == "sparsity"} <= DENSE
        if dense or row.ticket is not None or program not in PROGRAMS or config["control"]["name"] != "none":
            continue
        recipe = {key: value for key, value in config.items() if key not in ("pruner", *AXES)} | {"program": program}
        label = labels.setdefault(json.dumps(recipe, sort_keys=True, default=str), row.label)
        asked = (str({**row.settings, **row.own}.get(axis)) for axis in AXES)
        found.setdefault((label, *asked), (replace(row, label=label), program))
    return list(found.values())


def _without(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without what they say of the pruner."""
    return {k: v for k, v in settings.items() if k != "pruner" and not k.startswith("pruner.")}


def _key(line: str) -> str:
    return line.lstrip("+").partition("=")[0]
