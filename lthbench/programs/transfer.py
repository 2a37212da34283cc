"""One ticket to win them all (Morcos et al. 2019, arXiv 1906.02773): found on one task, trained on another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lthbench.base.errors import UserError
from lthbench.engine.graph import Ref, Stage, recalled
from lthbench.programs.identity import identity
from lthbench.programs.run import Experiment, Found, Run
from lthbench.stages import train as trajectory
from lthbench.stages.ticket import ticket
from lthbench.stages.train import train


def transfer(run: Run, source: Experiment | None = None) -> Experiment:
    """The ticket's mask and initial weights, trained once with this run's recipe and data; `source` finds it first."""
    start = _ticket(run, source)
    net = train(start, run.recipe, run.data, run.seed, teacher=run.taught).at(run.steps)
    return Experiment(run).add("ticket", start).add("net 1", net).finish(net)


def _ticket(run: Run, source: Experiment | None) -> Stage:
    """The ticket as a state to train from."""
    found = run.ticket
    assert found is not None
    how = run.model, found.output, run.initialiser, run.seed
    if found.file is not None:
        return ticket(*how, file=(found.file, found.path or ""))
    if source is not None:
        return ticket(*how, found=found_by(source))
    start, mask = (recalled(text) for text in found.texts)
    _, _, step = (found.start or "").partition("@")
    return ticket(*how, found=(start.at(int(step)) if step else start, mask))


def named(source: Experiment, output: str) -> Found:
    """The ticket of a run that is computed first."""
    start, mask = found_by(source)
    return Found(output, start.ref, mask.ref, source=source.run)


def found_by(source: Experiment) -> tuple[Ref, Stage]:
    """The ticket that a run finds: its initial state and its mask."""
    role, step, mask = parts("ticket: the run that finds it", source.roles, identity(source.run))
    start = source.roles[role]
    return trajectory.at(start.stage, step) if step else start, source.roles[mask].stage


def parts(name: str, roles: Iterable[str], said: Mapping[str, Any]) -> tuple[str, int, str]:
    """Where in a run its ticket is: the role and step that its last training began from, and the role of its last mask.

    `said` is the run's identity. Raises UserError about `name` where there is no ticket.
    """
    masks = sorted((int(role[5:]), role) for role in roles if re.fullmatch(r"mask \d+", role))
    begun = said.get("retrain", {"from": 0})
    if not masks or isinstance(begun, list) or begun["from"] == "end":
        raise UserError(f"{name} has no ticket: it needs a mask, and weights that went back to init or an early step")
    return "dense" if begun["from"] else "init", begun["from"], masks[-1][1]
