"""One run: the resolved settings of an experiment, what they mean, and the graph a program makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, aside, canonical
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Best, Ref, Stage, State
from lthbench.engine.plan import Goal
from lthbench.engine.store import Output, Points
from lthbench.evaluation.settings import Corruptions
from lthbench.models import MODELS, ModelSettings
from lthbench.programs.candidates import CHOOSING, Recalibration, Soup
from lthbench.programs.controls import ANEW, CONTROLS, DRAWN, check
from lthbench.programs.retraining import UNITS, Retrain, Rewind, Round, planned
from lthbench.programs.schedules import Schedule
from lthbench.programs.sparsifying import check_sparsifying, frozen
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.density import Density, parse_sparsity
from lthbench.pruning.dynamics import METHODS, Method, Sparsify
from lthbench.pruning.structure import Structure
from lthbench.soups.settings import Recalibrate
from lthbench.stages import init as initial
from lthbench.stages import train as trajectory
from lthbench.stages.average import average
from lthbench.stages.control import control
from lthbench.stages.evaluate import evaluate
from lthbench.stages.prune import Pruner
from lthbench.stages.ticket import OUTPUTS
from lthbench.stages.train import train
from lthbench.training.recipe import Recipe

MOST_ROUNDS = 1000
SELECTS = {
    "last": "the state at the end of training",
    "best_val_loss": "the state of smallest validation loss (early stopping)",
    "best_test": "the state of best test accuracy, for papers that report it; never a fair estimate",
}
_BEST_BY = {"best_val_loss": "val.loss", "best_test": "test.accuracy"}


@dataclass(frozen=True)
class Found(Settings):
    """A ticket that is found elsewhere: `start` and `mask` name a state and a mask, or `file` (the sha256 of a state's
    file) holds both. `source` is the run that finds it; without one `texts` describe the two stages, whose results are
    in the store. `path` is where the file lies."""

    output: str
    start: str | None = None
    mask: str | None = None
    file: str | None = None
    texts: tuple[str, ...] = aside(())
    path: str | None = aside()
    source: Run | None = aside()

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise UserError(f"ticket_output: unknown choice '{self.output}'{near(self.output, OUTPUTS)}")


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
    soup: Soup = Soup()
    recalibration: Recalibration = Recalibration()
    corruptions: Corruptions | None = None
    ticket: Found | None = None
    every: int | None = None
    weights: str | None = None
    weights_as: str = "dense"
    weights_path: str | None = aside()

    def __post_init__(self) -> None:
        for value, known, where in (
            (self.rewind.to, ("init", "early", "none"), "rewind.to"),
            (self.rewind.unit, UNITS, "rewind.unit"),
            (self.control, tuple(CONTROLS), "control"),
            (self.select, tuple(SELECTS), "select"),
            (self.weights_as, ("dense", "init"), "model.weights_as"),
            (self.pruner.program, ("after_training", "at_init", "during_training"), "pruner.program"),
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
        if self.corruptions and self.data.shape != (3, 32, 32):
            raise UserError(f"robustness={self.corruptions.name} is for colour images of 32x32, not {self.data.name}'s")
        if self.select == "best_val_loss" and not self.data.validation:
            raise UserError("select=best_val_loss needs dataset.validation > 0")
        if self.select != "last" and not self.every:
            raise UserError(f"select={self.select} needs train.evaluate.every")
        pair = self.soup.name == "instability"
        if pair and self.pruner.program != "after_training":
            raise UserError(f"soup=instability needs pruner.program=after_training, not {self.pruner.program}")
        if self.rounds:
            check(self)
        if self.sparsify is not None:
            check_sparsifying(self)
        if (self.rounds or pair) and self.pruner.program == "after_training":
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
        for how in self.copies:
            for number in {1, len(self.rounds) or 1}:  # only the last one may differ
                plan = self.retrained(how, number)
                begin = 0 if self.rewind.to == "none" else self.rewind_step
                if begin + plan.steps > self.steps and not plan.own:
                    raise UserError(f"retrain={how.name} cannot run longer than the dense training it replays")
        if self.retraining.moments == "restore" and self.rewind.to == "none":
            raise UserError("retrain.moments=restore needs rewind=init or early")
        if self.given_dense and self.retraining.moments == "keep":
            raise UserError("retrain.moments=keep needs the optimiser state, which model.weights does not hold")
        if self.soup.name != "none":
            self._check_soup()

    def _check_soup(self) -> None:
        name = self.soup.name
        if name in CHOOSING and not self.data.validation:
            raise UserError(f"soup={name} chooses by validation images: it needs dataset.validation > 0")
        if self.control != "none":
            raise UserError(f"soup={name}, control={self.control}: one of them, the other none")
        if self.select != "last":
            raise UserError(f"select={self.select} chooses among the points of one training; soup={name} has several")
        if name == "reprune" and len(self.rounds) > 1 and self.allocation.name == "by_kind":
            raise UserError(
                "soup=reprune prunes an average to an exact density: it needs another allocation than by_kind"
            )
        for split in self.soup.splits if name == "instability" else ():
            if split not in ("train", *self.data.splits):
                raise UserError(f"soup.splits: unknown '{split}'{near(split, ('train', *self.data.splits))}")
        if self.soup.vary == "lr" and not self.retraining.own:
            raise UserError(f"soup.vary=lr: retrain={self.retraining.name} has no learning rate of its own")

    # ---- what the settings mean

    @cached_property
    def rounds(self) -> list[Density | None]:
        """The density after each round of pruning; None where rates by kind decide. Empty: nothing is pruned here."""
        if self.ticket:
            return []
        target = parse_sparsity(self.sparsity)
        if self.method is not None and self.method.outcome:
            return [None]
        schedule = self.schedule if self.pruner.program == "after_training" else replace(self.schedule, name="oneshot")
        if self.allocation.by_round:
            assert isinstance(target, int)
            return [None] * (target if schedule.name == "iterative" else min(target, 1))
        return list(schedule.densities(target))

    @property
    def method(self) -> Method | None:
        """What changes the mask during training; None in other programs."""
        return METHODS[self.pruner.criterion.name] if self.pruner.program == "during_training" else None

    @cached_property
    def sparsify(self) -> Sparsify | None:
        """How the mask changes during training; None: not at all."""
        if self.method is None or not self.rounds:
            return None
        density = self.rounds[0]
        allocation = None if self.method.outcome else self.allocation
        return Sparsify(self.pruner.criterion, self.prunable, allocation, str(density) if density else None)

    @property
    def trained_by(self) -> Recipe:
        """The recipe of training during which the mask changes: as far as it means something to frozen weights."""
        assert self.method is not None
        return frozen(self.recipe) if self.method.frozen else self.recipe

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
        return self.rewind.step(self.recipe, self.data.train_samples, self.steps)

    @cached_property
    def copies(self) -> list[Retrain]:
        """How each copy of a round is retrained; one where nothing is averaged."""
        return self.soup.copies(self.retraining, self.seed)

    def retrained(self, how: Retrain, number: int) -> Round:
        """What retraining means in round `number`."""
        per_epoch = self.recipe.steps_per_epoch(self.data.train_samples)
        k = self.rewind_step
        plan = planned(how, self.rewind, self.recipe, self.steps, k, per_epoch, number, max(1, len(self.rounds)))
        return replace(plan, moments="zero") if self.given_dense else plan

    @cached_property
    def first_round(self) -> Round:
        """The first copy of the first round."""
        return self.retrained(self.copies[0], 1)

    @cached_property
    def recalibrate(self) -> Recalibrate | None:
        """How BatchNorm's statistics are made anew before an evaluation and after an average; None: not at all."""
        how = self.recalibration.how
        if how == "default":
            how = "sms" if self.soup.averages else "none"
        if how == "none" or not MODELS[self.model.name].batchnorm:
            return None
        exact = how == "cumulative"
        data = replace(self.data, augment=Augment()) if exact else self.data
        return Recalibrate(how, self.recalibration.share, self.recipe.batch, data, None if exact else self.seed)

    @property
    def whole_steps(self) -> int:
        """How many steps the whole pipeline trains: the dense network and every round."""
        if self.pruner.program != "after_training":
            return self.steps
        return self.dense_steps + sum(self.retrained(self.retraining, n).steps for n in range(1, len(self.rounds) + 1))

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
        if self.recalibrate:
            said["recalibrate"] = self.recalibrate
        if self.corruptions:
            said["corruptions"] = self.corruptions
        if self.ticket:
            fresh = self.ticket.output == "fresh"
            said |= {"initialiser": self.initialiser if fresh else None, "weights": None, "seed": self.seed}
            return said | {"train": self.recipe, "steps": self.steps, "ticket": self.ticket}
        if not self.dense_steps and not self.rounds:  # a network as it is
            said |= {"weights": self.weights and {"sha256": self.weights}, "seed": None if self.weights else self.seed}
            return said | {"data": replace(self.data, augment=Augment()), "select": "last"}
        said["seed"] = self.seed
        longer = self.control == "longer" and bool(self.rounds)
        if longer:
            said |= {"train": self.recipe.stretched(self.steps, self.whole_steps), "steps": self.whole_steps}
        elif not self.given_dense or not after or anew:
            said |= {"train": self.trained_by if self.sparsify else self.recipe, "steps": self.steps}
        pair = self.soup.name == "instability"
        if longer or not (self.rounds or pair):
            return said | {"weights": self.weights and {"sha256": self.weights, "as": "init"}}
        if self.rounds:
            said |= {
                "pruner": self.pruner,
                "allocation": self.sparsify.allocation if self.sparsify else self.allocation,
                "rounds": [d and str(d) for d in self.rounds],
                "control": self.control,
            }
        if self.allocation.name == "by_kind":
            said["rates_applied"] = self.rates_applied
        if anew and self.fresh_steps != self.steps:
            said["control_steps"] = self.fresh_steps
        if after and (pair or len(self.rounds) > anew):
            copies = [self._said_of(how, max(1, len(self.rounds) - anew)) for how in self.copies]
            said["retrain"] = copies[0]
            if len(copies) > 1:
                said |= {"retrain": sorted(copies, key=canonical), "soup": self._said_of_soup()}
        return said

    def _said_of(self, how: Retrain, rounds: int) -> Any:
        """A copy's retraining, round by round where rounds differ."""
        end = self.rewind.to == "none" or (self.rewind_step == self.steps and rounds == 1)
        each = []
        for number in range(1, rounds + 1) if how.total is not None else (1,):
            plan = self.retrained(how, number)
            said: dict[str, Any] = {
                "from": "end" if end else self.rewind_step,
                "first": plan.first,
                "steps": plan.steps,
                "recipe": plan.recipe,
                "moments": "keep" if end and plan.moments == "restore" else plan.moments,
                "batches": "its own" if plan.own else "of the dense run",
            }
            each.append(said | ({"adapt": plan.adapt} if plan.adapt else {}))
        return each[0] if all(canonical(one) == canonical(each[0]) for one in each) else each

    def _said_of_soup(self) -> dict[str, Any]:
        name = "uniform" if self.soup.name == "reprune" and len(self.rounds) == 1 else self.soup.name
        said: dict[str, Any] = {"name": name, "batches": "of each copy" if self.soup.vary == "seed" else "alike"}
        if name == "instability":
            said |= {"points": self.soup.points, "splits": self.soup.splits}
        return said | ({"accept": self.soup.accept} if name == "greedy" else {})

    # ---- pieces of programs

    def start(self) -> Stage:
        """The network that training, or pruning a given network, starts from."""
        if self.weights is not None:
            return initial.given(self.model, self.weights, self.weights_path)
        return initial.init(self.model, self.initialiser, self.seed)

    @property
    def fresh_steps(self) -> int:
        """How long a control trains anew: as far as the ticket's own training goes on the dense schedule."""
        replays = self.rewind.to != "none" and not self.retraining.own
        return self.first_round.last if replays and self.pruner.program == "after_training" else self.steps

    def retrain(self, dense: Stage, net: Ref, mask: Stage | None, number: int, copy: int = 0) -> State:
        """Round `number`: go back where `rewind` says and train under the mask as copy `copy` does, or as the control
        has altered it."""
        plan = self.retrained(self.copies[copy], number)
        start = net if self.rewind.to == "none" else trajectory.at(dense, self.rewind_step)
        source = {"zero": None, "restore": start, "keep": net}[plan.moments]
        begin, under = start, mask
        if mask is not None and number == len(self.rounds):
            begin, under = self.altered(start, mask, net)
        final = train(
            begin,
            plan.recipe,
            self.data,
            self.seed,
            mask=under,
            moments=source if isinstance(source, State) else None,
            first=plan.first,
            index=(number if plan.own else 0, copy if self.soup.vary == "seed" else 0),
            adapt=plan.adapt,
        )
        return final.at(plan.last)

    def settled(self, net: Ref) -> Ref:
        """The state as it is evaluated."""
        return average([net], recalibrate=self.recalibrate)

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


@dataclass
class Experiment:
    """The graph of a run: its result (an `evaluate` stage, whose id names the run), what to ask for, and roles."""

    run: Run
    roles: dict[str, Ref] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    trajectory: Stage | None = None  # the last training run, whose curves a result shows
    result: Stage = field(init=False)

    def add(self, role: str, ref: Ref) -> Experiment:
        """Name a stage or state by what it is in this run."""
        self.roles[role] = ref
        return self

    def finish(self, net: Ref) -> Experiment:
        """Ask for the evaluation of `net` (or of the selected state of its trajectory), and for the points."""
        run = self.run
        if isinstance(net, State) and isinstance(net.step, int):
            self.trajectory = net.stage
            if run.every:
                self.goals += [(net.stage, Points(split, run.every, net.step)) for split in run.data.splits]
            if run.select != "last":
                self.roles["last"] = net
                assert run.every
                net = net.stage.at(Best(_BEST_BY[run.select], run.every, net.step))
        return self.evaluate([run.settled(net)])

    def evaluate(self, nets: Sequence[Ref], over: str | None = None, line: Stage | None = None) -> Experiment:
        """Ask for the evaluation of a state, or of several together, with the line between them."""
        self.roles["final"] = nets[0]
        self.roles["result"] = self.result = evaluate(
            nets, self.run.data, self.run.prunable, over, self.run.corruptions, line
        )
        self.goals.append((self.result, Output()))
        return self

    @property
    def id(self) -> str:
        return self.result.id
