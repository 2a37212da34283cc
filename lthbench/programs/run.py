"""One run: the resolved settings of an experiment, what they mean, and the graph a program makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, aside
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Best, Ref, Stage, State
from lthbench.engine.plan import Goal
from lthbench.engine.store import Output, Points
from lthbench.models import ModelSettings
from lthbench.programs.controls import ANEW, CONTROLS, DRAWN, check
from lthbench.programs.schedules import Schedule
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.density import Density, parse_sparsity
from lthbench.pruning.structure import Structure
from lthbench.stages import init as initial
from lthbench.stages import train as trajectory
from lthbench.stages.control import control
from lthbench.stages.evaluate import evaluate
from lthbench.stages.prune import Pruner
from lthbench.stages.train import train
from lthbench.training.recipe import LrSchedule, Recipe

MOST_ROUNDS = 1000
UNITS = ("ratio", "epoch", "iteration")
MOMENTS = ("default", "zero", "restore", "keep")
RETRAINS = {
    "replay": "the dense schedule from the rewinding point on",
    "lrw": "the dense schedule from the rewinding point on, for weights that stay (learning-rate rewinding)",
    "finetune": "the smallest learning rate of the dense schedule, constant",
}
SELECTS = {
    "last": "the state at the end of training",
    "best_val_loss": "the state of smallest validation loss (early stopping)",
    "best_test": "the state of best test accuracy, for papers that report it; never a fair estimate",
}
_BEST_BY = {"best_val_loss": "val.loss", "best_test": "test.accuracy"}


@dataclass(frozen=True)
class Rewind(Settings):
    """`to`: `init`, `early` (step k) or `none`. `k` is counted in `unit`s: a ratio of training, epochs, iterations."""

    to: str
    k: float = 0.0
    unit: str = "ratio"


@dataclass(frozen=True)
class Retrain(Settings):
    """`epochs` None: the dense length less rewind.k. `lr` for finetune, None: the smallest of the dense schedule."""

    name: str
    epochs: float | None = None
    moments: str = "default"
    lr: float | None = None

    def __post_init__(self) -> None:
        for value, where in ((self.epochs, "retrain.epochs"), (self.lr, "retrain.lr")):
            if value is not None and value < 0:
                raise UserError(f"{where}: {value} is negative")


@dataclass(frozen=True)
class Run(Settings):
    """Resolved settings: nothing left to look up but the data. Steps are optimiser steps.

    `weights` is the sha256 of a file with given weights, which `weights_as` either the trained `dense` network or
    the `init`ial one. `every` is the distance of measured points, or None.
    """

    model: ModelSettings
    initialiser: str
    data: DataSettings
    recipe: Recipe
    steps: int
    pruner: Pruner
    allocation: Allocation
    prunable: str
    schedule: Schedule
    sparsity: str
    rewind: Rewind
    retraining: Retrain
    control: str
    select: str
    seed: int
    every: int | None = None
    weights: str | None = None
    weights_as: str = "dense"
    weights_path: str | None = aside()

    def __post_init__(self) -> None:
        for value, known, where in (
            (self.rewind.to, ("init", "early", "none"), "rewind.to"),
            (self.rewind.unit, UNITS, "rewind.unit"),
            (self.retraining.name, tuple(RETRAINS), "retrain"),
            (self.retraining.moments, MOMENTS, "retrain.moments"),
            (self.control, tuple(CONTROLS), "control"),
            (self.select, tuple(SELECTS), "select"),
            (self.weights_as, ("dense", "init"), "model.weights_as"),
            (self.pruner.program, ("after_training", "at_init"), "pruner.program"),
        ):
            if value not in known:
                raise UserError(f"{where}: unknown choice '{value}'{near(value, known)}")
        if self.seed < 0:
            raise UserError(f"seed: {self.seed} is negative")
        self._check_rounds()
        if self.pruner.structure is not None and self.rounds:
            self._check_structure(self.pruner.structure)
        if self.allocation.by_round and self.pruner.scoring is not None and self.pruner.scoring.rounds > 1:
            raise UserError(f"allocation={self.allocation.name} takes a round at once: it needs pruner.rounds=1")
        if self.select == "best_val_loss" and not self.data.validation:
            raise UserError("select=best_val_loss needs dataset.validation > 0")
        if self.select != "last" and not self.every:
            raise UserError(f"select={self.select} needs train.evaluate.every")
        if self.rounds:
            check(self)
            if self.pruner.program == "after_training":
                self._check_retraining()

    def _check_rounds(self) -> None:
        target = parse_sparsity(self.sparsity)
        if self.allocation.by_round:
            name = self.allocation.name
            what, verb = ("rates", "removes rates") if name == "by_kind" else ("thresholds", "sets a threshold")
            if not isinstance(target, int):
                raise UserError(f"allocation={name} {verb} a round: say sparsity=level:n, not a sparsity")
            if self.schedule.name == "geometric":
                raise UserError(f"allocation={name} needs schedule=iterative or oneshot: its {what} count the rounds")
        rate = self.schedule.rate
        if isinstance(target, int):
            too_many = target > MOST_ROUNDS
        else:
            too_many = self.schedule.name == "iterative" and float(1 - target) < (1 - Fraction(rate)) ** MOST_ROUNDS
        if too_many:
            raise UserError(f"sparsity: {self.sparsity} takes more than {MOST_ROUNDS} rounds of schedule.rate={rate}")

    def _check_structure(self, structure: Structure) -> None:
        name, allocation = structure.name, self.allocation.name
        if allocation not in ("global", "uniform") or (name == "nm" and allocation != "global"):
            allowed = "global" if name == "nm" else "global or uniform"
            raise UserError(f"structure={name} needs allocation={allowed}, not {allocation}")
        once = len(self.rounds) == 1 and (self.pruner.scoring is None or self.pruner.scoring.rounds == 1)
        if name == "nm" and (not once or parse_sparsity(self.sparsity) != structure.sparsity):
            needs = f"sparsity={structure.sparsity} schedule=oneshot pruner.rounds=1"
            raise UserError(f"structure=nm keeps {structure.n} of every {structure.m} at once: it needs {needs}")

    def _check_retraining(self) -> None:
        unit = f"{self.rewind.k} {self.rewind.unit}"
        if not 0 <= self.rewind_step <= self.steps:
            raise UserError(f"rewind.k: {unit} is step {self.rewind_step}; training ends at {self.steps}")
        if self.rewind.to != "none" and self.given_dense:
            raise UserError(
                f"rewind={self.rewind.to} needs the training that made the weights; "
                "use rewind=finetune, or model.weights_as=init"
            )
        begin = 0 if self.rewind.to == "none" else self.rewind_step
        if begin + self.retrain_steps > self.steps and self.retraining.name != "finetune":
            raise UserError(f"retrain={self.retraining.name} cannot run longer than the dense training it replays")
        if self.retraining.moments == "restore" and self.rewind.to == "none":
            raise UserError("retrain.moments=restore needs rewind=init or early")
        if self.given_dense and self.retraining.moments == "keep":
            raise UserError("retrain.moments=keep needs the optimiser state, which model.weights does not hold")

    # ---- what the settings mean

    @cached_property
    def rounds(self) -> list[Density | None]:
        """The density after each round of pruning; None where rates by kind decide. Empty: a dense run."""
        target = parse_sparsity(self.sparsity)
        schedule = self.schedule if self.pruner.program == "after_training" else replace(self.schedule, name="oneshot")
        if self.allocation.by_round:
            assert isinstance(target, int)
            return [None] * (target if schedule.name == "iterative" else min(target, 1))
        return list(schedule.densities(target))

    @cached_property
    def rates_applied(self) -> int:
        """How many rounds of rates one pruning takes at once (one-shot to level n: n)."""
        target = parse_sparsity(self.sparsity)
        return target if isinstance(target, int) and len(self.rounds) == 1 else 1

    @property
    def given_dense(self) -> bool:
        """Whether the dense network comes from a file: then it is not trained."""
        return self.weights is not None and self.weights_as == "dense"

    @property
    def dense_steps(self) -> int:
        return 0 if self.given_dense else self.steps

    @cached_property
    def rewind_step(self) -> int:
        """k in steps of the dense run."""
        if self.rewind.to == "init":
            return 0
        per = {"ratio": self.steps, "epoch": self.steps_per_epoch, "iteration": 1}[self.rewind.unit]
        return round(self.rewind.k * per)

    @cached_property
    def steps_per_epoch(self) -> int:
        return self.recipe.steps_per_epoch(self.data.train_samples)

    @cached_property
    def retrain_steps(self) -> int:
        """How long a round retrains."""
        if self.retraining.epochs is None:
            return self.steps - self.rewind_step
        return round(self.retraining.epochs * self.steps_per_epoch)

    @cached_property
    def retrain_recipe(self) -> Recipe:
        """The dense recipe, or fine-tuning's constant learning rate."""
        if self.retraining.name != "finetune":
            return self.recipe
        lr = self.retraining.lr
        if lr is None:
            warm = min(self.recipe.schedule.warmup, self.steps)
            rates = {self.recipe.lr_at(s) for s in _turns(self.recipe.schedule, warm, self.steps)}
            lr = min((rate for rate in rates if rate > 0), default=self.recipe.lr)
        return replace(self.recipe, lr=lr, schedule=LrSchedule("constant"))

    @property
    def whole_steps(self) -> int:
        """How many steps the whole pipeline trains: the dense network and every round."""
        after = self.pruner.program == "after_training"
        return self.dense_steps + len(self.rounds) * self.retrain_steps if after else self.steps

    @cached_property
    def moments(self) -> str:
        """Whose optimiser state retraining goes on with: `zero`, `restore` (of the rewinding point), `keep`."""
        named = self.retraining.moments
        if named == "default":
            named = {"init": "zero", "early": "restore", "none": "keep"}[self.rewind.to]
        if self.given_dense or (named == "restore" and self.rewind_step == 0):
            return "zero"
        return named

    def identity(self) -> dict[str, Any]:
        """The settings that make this run what it is, spelled out; what means nothing here is left out."""
        after, anew = self.pruner.program == "after_training", self.control in ANEW
        said: dict[str, Any] = {
            "model": self.model,
            "initialiser": self.initialiser if not self.weights or (self.rounds and self.control in DRAWN) else None,
            "weights": self.weights and {"sha256": self.weights, "as": self.weights_as if after else "init"},
            "data": self.data,
            "prunable": self.prunable,
            "select": self.select if self.select == "last" else {"by": self.select, "every": self.every},
        }
        if not self.dense_steps and not self.rounds:  # a network as it is
            said |= {"weights": self.weights and {"sha256": self.weights}, "seed": None if self.weights else self.seed}
            return said | {"data": replace(self.data, augment=Augment()), "select": "last"}
        said["seed"] = self.seed
        longer = self.control == "longer" and bool(self.rounds)
        if longer:
            said |= {"train": self.recipe.stretched(self.steps, self.whole_steps), "steps": self.whole_steps}
        elif not self.given_dense or not after or anew:
            said |= {"train": self.recipe, "steps": self.steps}
        if not self.rounds or longer:
            return said | {"weights": self.weights and {"sha256": self.weights, "as": "init"}}
        said |= {
            "pruner": self.pruner,
            "allocation": self.allocation,
            "rounds": [d and str(d) for d in self.rounds],
            "control": self.control,
        }
        if self.allocation.name == "by_kind":
            said["rates_applied"] = self.rates_applied
        if anew and self.fresh_steps != self.steps:
            said["control_steps"] = self.fresh_steps
        retrained = len(self.rounds) - anew if after else 0
        if retrained:
            end = self.rewind.to == "none" or (self.rewind_step == self.steps and retrained == 1)
            said["retrain"] = {
                "from": "end" if end else self.rewind_step,
                "first": self.first,
                "steps": self.retrain_steps,
                "recipe": self.retrain_recipe,
                "moments": "keep" if end and self.moments == "restore" else self.moments,
                "batches": "its own" if self.retraining.name == "finetune" else "of the dense run",
            }
        return said

    # ---- pieces of programs

    def start(self) -> Stage:
        """The network that training, or pruning a given network, starts from."""
        if self.weights is not None:
            return initial.given(self.model, self.weights, self.weights_path)
        return initial.init(self.model, self.initialiser, self.seed)

    @property
    def first(self) -> int:
        """The position on the dense schedule where retraining starts; a recipe of its own starts at 0."""
        if self.retraining.name == "finetune":
            return 0
        return self.steps - self.retrain_steps if self.rewind.to == "none" else self.rewind_step

    @property
    def fresh_steps(self) -> int:
        """How long a control trains anew: as far as the ticket's own training goes on the dense schedule."""
        replays = self.rewind.to != "none" and self.retraining.name != "finetune"
        return self.first + self.retrain_steps if replays and self.pruner.program == "after_training" else self.steps

    def retrain(self, dense: Stage, net: Ref, mask: Stage, number: int) -> State:
        """Round `number`: go back where `rewind` says and train under the mask, or as the control has altered it."""
        start = net if self.rewind.to == "none" else trajectory.at(dense, self.rewind_step)
        source = {"zero": None, "restore": start, "keep": net}[self.moments]
        begin, under = self.altered(start, mask, net) if number == len(self.rounds) else (start, mask)
        final = train(
            begin,
            self.retrain_recipe,
            self.data,
            self.seed,
            mask=under,
            moments=source if isinstance(source, State) else None,
            first=self.first,
            index=(number, 0) if self.retraining.name == "finetune" else (0, 0),
        )
        return final.at(self.first + self.retrain_steps)

    def altered(self, start: Ref, mask: Stage, net: Ref) -> tuple[Ref, Stage | None]:
        """Where the last training starts, and under which mask (None: the start holds its own)."""
        if self.control in ("none", "invert"):
            return start, mask
        if self.control == "reinit":  # another initialisation, whose batches are in the same order
            return initial.init(self.model, self.initialiser, self.seed, index=1), mask
        return control(self.control, start, mask, self.seed, self.initialiser, net), None

    def anew(self, start: Ref, mask: Stage, net: Ref) -> State:
        """The training of a control that begins with initial weights: once, with the dense recipe."""
        begin, under = self.altered(start, mask, net)
        return train(begin, self.recipe, self.data, self.seed, mask=under).at(self.fresh_steps)

    def longer(self, start: Ref) -> State:
        """The dense network, trained for the steps of the whole pipeline."""
        recipe = self.recipe.stretched(self.steps, self.whole_steps)
        return train(start, recipe, self.data, self.seed).at(self.whole_steps)


def _turns(schedule: LrSchedule, warm: int, steps: int) -> set[int]:
    """Steps among which the smallest learning rate after warm-up is found: ends and milestones."""
    return {s for s in (warm, *schedule.milestones, steps - 1) if warm <= s < max(steps, warm + 1)}


@dataclass
class Experiment:
    """The graph of a run: its result (an `evaluate` stage, whose id names the run), what to ask for, and roles."""

    run: Run
    roles: dict[str, Ref] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)

    def add(self, role: str, ref: Ref) -> Experiment:
        """Name a stage or state by what it is in this run."""
        self.roles[role] = ref
        return self

    def finish(self, net: Ref) -> Experiment:
        """Ask for the evaluation of `net` (or of the selected state of its trajectory), and for the points."""
        run = self.run
        if isinstance(net, State) and isinstance(net.step, int):
            if run.every:
                self.goals += [(net.stage, Points(split, run.every, net.step)) for split in run.data.splits]
            if run.select != "last":
                self.roles["last"] = net
                assert run.every
                net = net.stage.at(Best(_BEST_BY[run.select], run.every, net.step))
        self.roles["final"] = net
        self.roles["result"] = self.result = evaluate(net, run.data, run.prunable)
        self.goals.append((self.result, Output()))
        return self

    result: Stage = field(init=False)

    @property
    def id(self) -> str:
        return self.result.id

    @property
    def trajectory(self) -> Stage | None:
        """The last training run, whose curves a result shows."""
        final = self.roles["final"]
        return final.stage if isinstance(final, State) else None
