"""Runs of a tenth of a second for the tests of engine, stages and programs: a narrow network on the digits.

20 steps an epoch, 40 steps in all, learning rate 0.1, from step 20 on 0.01, from step 30 on 0.001; k is step 10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.engine.graph import Stage, ancestors
from lthbench.engine.runner import Listener, Outcome, Runner
from lthbench.engine.store import Store
from lthbench.models import ModelSettings
from lthbench.programs import Experiment, Run, experiment
from lthbench.programs.retraining import Retrain, Rewind
from lthbench.programs.schedules import Schedule
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.stages import KINDS
from lthbench.stages.prune import Pruner
from lthbench.training.recipe import LrSchedule, Recipe

EPOCH, STEPS, K = 20, 40, 10
DATA = DataSettings("digits", "official", Normalise("channel", (0.288,), (0.353,)), Augment(), validation=237)
MODEL = ModelSettings.of("lenet_300_100", {"width": 0.1}, DATA.shape, DATA.classes)
RECIPE = Recipe(
    "sgd", 0.1, 60, LrSchedule("step", (20, 30)), momentum=0.9, betas=(0.9, 0.999), weight_decay=1e-4
)  # fmt: skip
RETRAIN = {"init": "replay", "early": "replay", "lr": "lrw", "finetune": "finetune"}


def small(
    rewind: str = "init",
    sparsity: str = "0.5",
    *,
    k: float = 0.25,
    unit: str = "ratio",
    retrain: str | None = None,
    epochs: float | None = None,
    moments: str = "default",
    lr: float | None = None,
    warmup: float | None = None,
    weight_decay: float | None = None,
    budget: int = 1,
    total: float | None = None,
    share: str = "round",
    schedule: str = "oneshot",
    rate: str = "0.2",
    rounds: int = 1,
    criterion: str = "magnitude",
    program: str = "after_training",
    allocation: str = "global",
    rates: Mapping[str, str] | None = None,
    **others: Any,
) -> Run:
    """A run whose words are those of the command line; `others` are fields of `Run`."""
    seed = others.setdefault("seed", 0)
    standard: dict[str, Any] = {
        "model": MODEL,
        "initialiser": "pytorch",
        "data": DATA,
        "recipe": RECIPE,
        "steps": STEPS,
        "pruner": Pruner(CriterionSettings.of(criterion, {}, seed), program),
        "allocation": Allocation(allocation, dict(rates or {})),
        "prunable": "weights",
        "schedule": Schedule(schedule, rate, rounds),
        "sparsity": sparsity,
        "rewind": Rewind(rewind if rewind in ("init", "early") else "none", k, unit),
        "retraining": Retrain(
            retrain or RETRAIN[rewind], epochs, moments, lr, warmup, weight_decay, budget, total, share
        ),
        "control": "none",
        "select": "last",
    }
    return Run(**(standard | others))


class Log:
    """A listener that keeps what it is told: events by name, and optimiser steps by stage."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.steps: dict[Stage, int] = {}
        self._before = 0

    def __call__(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))
        if event == "start":
            self._before = self.steps.get(facts["work"].stage, 0)
        if event == "step":
            self.steps[facts["stage"]] = self._before + facts["step"] - facts["begun"]

    def works(self) -> list[Any]:
        """The pieces of work that were begun."""
        return [facts["work"] for event, facts in self.events if event == "start"]


class Interrupt:
    """A listener that pulls the plug when a trajectory has made `step` steps."""

    def __init__(self, stage: Stage, step: int) -> None:
        self.stage, self.step = stage, step

    def __call__(self, event: str, **facts: Any) -> None:
        if event == "step" and facts["stage"] is self.stage and facts["step"] >= self.step:
            raise KeyboardInterrupt


def compute(store: Store, *wanted: Experiment | Run, listeners: Iterable[Listener] = ()) -> Outcome:
    """Run experiments in this process."""
    goals = [goal for e in map(graph, wanted) for goal in e.goals]
    return Runner(store, KINDS, listeners).run(goals)


def graph(wanted: Experiment | Run) -> Experiment:
    return experiment(wanted) if isinstance(wanted, Run) else wanted


def stages(*wanted: Experiment | Run, kind: str | None = None) -> list[Stage]:
    """The distinct stages of some runs, in topological order."""
    found = ancestors(stage for e in map(graph, wanted) for stage, _ in e.goals)
    return sorted((s for s in found if kind in (None, s.kind)), key=lambda s: s.serial)


def contents(root: Path) -> dict[str, bytes]:
    """The files of a store that are a function of their ids, by path: neither costs nor claims nor graves."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.glob("[0-9a-f][0-9a-f]/*/*"))
        if not path.name.startswith(("cost.", "claim.", ".part-"))
    }


def consumers(of: Iterable[Stage], *wanted: Experiment | Run) -> list[Stage]:
    """The stages of some runs that rest on one of these, near or far."""
    tainted = set(of)
    for stage in stages(*wanted):
        if any(ref.stage in tainted for ref in stage.inputs.values()):
            tainted.add(stage)
    return [s for s in stages(*wanted) if s in tainted - set(of)]
