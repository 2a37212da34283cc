"""One run: the resolved settings of an experiment, what they mean, and the graph a program makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, aside
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Best, Ref, Stage, State
from lthbench.engine.plan import Goal
from lthbench.engine.store import Output, Points
from lthbench.evaluation.settings import Corruptions
from lthbench.models import MODELS, ModelSettings
from lthbench.programs.candidates import Recalibration, Soup
from lthbench.programs.checks import check
from lthbench.programs.compressing import Compression
from lthbench.programs.retraining import Retrain, Rewind, Round, planned
from lthbench.programs.schedules import Schedule
from lthbench.programs.sparsifying import frozen
from lthbench.programs.teaching import DENSE, Teacher
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.density import Density, parse_sparsity
from lthbench.pruning.dynamics import METHODS, Method, Sparsify
from lthbench.soups.settings import Recalibrate
from lthbench.stages import init as initial
from lthbench.stages import train as trajectory
from lthbench.stages.average import average
from lthbench.stages.control import control
from lthbench.stages.evaluate import evaluate
from lthbench.stages.prune import Pruner
from lthbench.stages.ticket import OUTPUTS
from lthbench.stages.train import train
from lthbench.training.recipe import Distill, Recipe

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
    the `init`ial one; `weights_output`: their output layer is `kept`, or drawn anew (`fresh`). `every` is the distance
    of measured points, or None.
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
    compression: Compression | None = None
    ticket: Found | None = None
    every: int | None = None
    weights: str | None = None
    weights_as: str = "dense"
    weights_path: str | None = aside()
    weights_output: str = "kept"
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        check(self)

    # ---- what the settings mean

    @cached_property
    def rounds(self) -> list[Density | None]:
        """The density after each round of pruning; None where rates by kind decide. Empty: nothing is pruned here."""
        if self.ticket:
            return []
        target = parse_sparsity(self.sparsity)
        if self.method is not None and self.method.outcome:
            return [None]
        several = self.pruner.program == "after_training" or (self.method is not None and self.method.rounds)
        schedule = self.schedule if several else replace(self.schedule, name="oneshot")
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
        exact = str(density) if density else None
        how = (self.pruner.scoring, self.pruner.structure)
        return Sparsify(self.pruner.criterion, self.prunable, allocation, exact, *how)

    @property
    def search_steps(self) -> int:
        """How long it may take to find the ticket, where that is then trained by itself; else 0."""
        args = self.sparsify.method.args if self.sparsify else {}
        return int(args["end"]) if args.get("restart") else 0

    @property
    def settled_step(self) -> int:
        """The step after which the mask of a method that settles stays."""
        return int(self.pruner.criterion.args["end"])

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
    def fresh_output(self) -> bool:
        """Whether given weights get an output layer that is drawn anew."""
        return self.weights is not None and self.weights_output == "fresh"

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
            searches = len(self.rounds) * self.steps if self.method and self.method.rounds else self.search_steps
            return searches + self.steps
        return self.dense_steps + sum(self.retrained(self.retraining, n).steps for n in range(1, len(self.rounds) + 1))

    # ---- pieces of programs

    def start(self) -> Stage:
        """The network that training, or pruning a given network, starts from."""
        if self.weights is not None:
            output = (self.initialiser, self.seed) if self.fresh_output else None
            return initial.given(self.model, self.weights, self.weights_path, output)
        return initial.init(self.model, self.initialiser, self.seed)

    @property
    def taught(self) -> tuple[Ref, Distill] | None:
        """Who teaches what is pruned, and how; None: it learns from labels alone."""
        if self.teacher is None:
            return None
        if self.teacher.who != DENSE:
            return initial.given(self.model, self.teacher.who, self.teacher.path), self.teacher.how
        dense = train(self.start(), self.recipe, self.data, self.seed)
        return trajectory.at(dense, self.dense_steps), self.teacher.how

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
            teacher=self.taught if mask is not None else None,
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
        return train(begin, self.recipe, self.data, self.seed, mask=under, teacher=self.taught).at(self.fresh_steps)

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

    def evaluate(
        self, nets: Sequence[Ref], over: str | None = None, line: Stage | None = None, before: Stage | None = None
    ) -> Experiment:
        """Ask for the evaluation of a state, or of several together, with what is told beside it."""
        self.roles["final"] = nets[0]
        self.roles["result"] = self.result = evaluate(
            nets, self.run.data, self.run.prunable, over, self.run.corruptions, line, before
        )
        self.goals.append((self.result, Output()))
        return self

    @property
    def id(self) -> str:
        return self.result.id
