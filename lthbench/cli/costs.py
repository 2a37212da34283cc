"""What a plan costs: epochs, bytes, and hours on this machine from a few real steps of each network and recipe."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lthbench.data.known import FOLDERS, SETS
from lthbench.data.sets import DataSettings
from lthbench.engine.graph import Best, Recalled, Ref, Stage, State
from lthbench.engine.plan import Work, plan
from lthbench.engine.store import At, Demand, Points, Store
from lthbench.models import ModelSettings
from lthbench.programs import Experiment
from lthbench.stages.control import Control
from lthbench.stages.evaluate import Evaluate
from lthbench.stages.init import Init
from lthbench.stages.pack import Pack
from lthbench.stages.prune import Prune
from lthbench.stages.share import Share
from lthbench.stages.ticket import Ticket
from lthbench.stages.train import Train, end, epochs, epochs_until
from lthbench.training.recipe import LrSchedule, Recipe

if TYPE_CHECKING:
    from lthbench.bench.pace import Pace

FILE_SECONDS = 0.012  # to write, flush and rename one file
WEIGHT_SECONDS = 1e-7  # to rank one weight, once a scoring round
SCORING = 3.0  # the gradients of an image that is scored, in measurements of it


class Empty(Store):
    """A store that holds nothing: plans show the whole cost."""

    def __init__(self) -> None:
        super().__init__("")

    def has(self, stage: Stage, demand: Demand) -> bool:
        return isinstance(stage.settings, Recalled)  # a result of an earlier command

    def resumable(self, stage: object, missing: set[Demand]) -> int | None:
        return None


def alone(experiment: Experiment) -> float:
    """Epochs that a run would train if it shared nothing: each of its trajectories, to the furthest step it asks."""
    if experiment.run.ticket and experiment.run.ticket.source:
        return total_epochs(plan(experiment.goals, Empty()))
    furthest: dict[Stage, int] = {}
    asked = [(ref.stage, At(ref.step)) for ref in experiment.roles.values() if isinstance(ref, State)]
    for stage, demand in [*asked, *experiment.goals]:
        if isinstance(stage.settings, Train):
            furthest[stage] = max(furthest.get(stage, 0), end(demand))
    return sum(epochs_until(stage, step) for stage, step in furthest.items())


def total_epochs(works: Iterable[Work]) -> float:
    """Epochs that a plan trains."""
    return sum(map(epochs, works))


def networks(works: Sequence[Work]) -> dict[Stage, ModelSettings]:
    """The network of each stage of a whole plan: it comes down from its initialisation."""
    found: dict[Stage, ModelSettings] = {}
    for work in works:
        s = work.stage.settings
        before = next(iter(work.stage.inputs.values()), None)
        found[work.stage] = s.model if isinstance(s, (Init, Ticket)) else found[before.stage]  # type: ignore[union-attr]
    return found


# ---- bytes


def kept_bytes(works: Sequence[Work], finals: Iterable[Ref]) -> tuple[int, int]:
    """What a whole plan leaves on disk: with keep=all (states, optimiser states, masks), and with keep=needed."""
    of = networks(works)
    sizes = {model: _size(model) for model in set(of.values())}
    everything = sum(_work_bytes(work, sizes[of[work.stage]]) for work in works)
    needed = {(ref.stage, getattr(ref, "step", None)): ref.stage for ref in finals}
    return everything, sum(sizes[of[stage]] + _mask_bytes(stage, sizes[of[stage]]) for stage in needed.values())


def _work_bytes(work: Work, size: int) -> int:
    s = work.stage.settings
    if isinstance(s, (Init, Ticket)):
        return size
    if isinstance(s, (Control, Share, Pack)):
        return size + size // 4
    if not isinstance(s, Train):
        return size // 4 + size * s.criterion.known.updates if isinstance(s, Prune) else 0
    moments = 2 if s.recipe.optimizer != "sgd" else 1 if s.recipe.momentum else 0
    if s.sparsify and (trained := s.sparsify.method.args.get("score_optimizer")):
        moments += {"adam": 4, "sgd": 3}[trained]  # dense weights, scores, and the scores' moments
    return len(_states(work)) * (size * (1 + moments) + _mask_bytes(work.stage, size))


def _mask_bytes(stage: Stage, size: int) -> int:
    return size // 4 if "mask" in stage.inputs or getattr(stage.settings, "sparsify", None) else 0


def _states(work: Work) -> set[object]:
    return {d.step for d in work.missing if isinstance(d, At)}


def _size(model: ModelSettings) -> int:
    """Bytes of weights and buffers."""
    import torch

    from lthbench.models import create

    with torch.device("meta"):
        return sum(t.numel() * t.element_size() for t in create(model).state_dict().values())


# ---- time


class Timing:
    """Seconds of work here: steps and images are timed once for each distinct network and recipe, when asked for."""

    def __init__(self, whole: Sequence[Work], device: str) -> None:
        self.device, self._of = device, networks(whole)
        self._asked = dict.fromkeys(self._of.values(), _PLAIN)
        for work in whole:  # what is no training borrows the figures of some training of its network
            if isinstance(s := work.stage.settings, Train):
                self._asked[self._of[work.stage]] = (s.recipe, s.data)
        self._paces: dict[tuple[str, str, str], Pace] = {}  # by what makes a difference
        self._known: dict[tuple[str, str, str], Pace] = {}  # by all settings
        self.lines: list[str] = []  # what was timed, in words

    def seconds(self, work: Work) -> float:
        """How long a piece of work takes. Raises UserError where its network cannot be built."""
        s, model = work.stage.settings, self._of[work.stage]
        if isinstance(s, Train):
            found = self._pace(model, s.recipe, s.data)
            begin = s.first if work.resume is None else work.resume
            steps = max(0, max(map(end, work.missing)) - begin)
            measured = {(d.split, at) for d in map(_points, work.missing) if d for at in d.steps(s.first) if at > begin}
            images = sum(_images(s.data, split) for split, _ in measured)
            return steps * found.step + images * found.image + 2 * len(_states(work)) * FILE_SECONDS
        recipe, data = self._asked[model]
        if isinstance(s, Evaluate):
            found = self._pace(model, recipe, data or s.data)
            return sum(_images(s.data, split) for split in s.data.splits) * found.image + FILE_SECONDS
        if isinstance(s, Prune) and s.scoring is not None and data is not None:
            found = self._pace(model, recipe, data)
            images = s.scoring.asked if s.scoring.data else 1
            return s.scoring.rounds * (images * SCORING * found.image + found.weights * WEIGHT_SECONDS) + FILE_SECONDS
        return FILE_SECONDS

    def _pace(self, model: ModelSettings, recipe: Recipe, data: DataSettings) -> Pace:
        said = (model.text, recipe.text, data.text)
        if said not in self._known:
            alike = replace(recipe, lr=1.0, schedule=LrSchedule("constant"), weight_decay=0.0)
            shape = f"{data.shape} {data.train_samples} {data.augment.text} {data.normalise.text}"
            key = (model.text, alike.text, shape)
            if key not in self._paces:
                self._paces[key] = self._timed(model, recipe, data)
            self._known[said] = self._paces[key]
        return self._known[said]

    def _timed(self, model: ModelSettings, recipe: Recipe, data: DataSettings) -> Pace:
        from lthbench.bench.pace import pace
        from lthbench.models import check

        check(model)
        found = pace(model, recipe, data, self.device)
        self.lines.append(f"{model.name}, batch {recipe.batch}: {1e3 * found.step:.3g} ms a step")
        return found


_PLAIN: tuple[Recipe, DataSettings | None] = (Recipe("sgd", 0.1, 128, LrSchedule("constant")), None)


def wall(works: Sequence[Work], seconds: Sequence[float], jobs: int) -> float:
    """Seconds that a plan takes `jobs` workers side by side, each taking the first piece whose inputs are there."""
    takes = {work.stage: t for work, t in zip(works, seconds)}
    waits = {work.stage: {stage for stage, _ in work.inputs_needed if stage in takes} for work in works}
    consumers: dict[Stage, list[Stage]] = {}
    for stage, needed in waits.items():
        for source in needed:
            consumers.setdefault(source, []).append(stage)
    ready = [(stage.serial, stage) for stage, needed in waits.items() if not needed]
    heapq.heapify(ready)
    running: list[tuple[float, int, Stage]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < jobs:
            serial, stage = heapq.heappop(ready)
            heapq.heappush(running, (now + takes[stage], serial, stage))
        now, _, done = heapq.heappop(running)
        for stage in consumers.get(done, ()):
            waits[stage].discard(done)
            if not waits[stage]:
                heapq.heappush(ready, (stage.serial, stage))
    return now


def _points(demand: Demand) -> Points | None:
    """The points that a demand has measured."""
    if isinstance(demand, At) and isinstance(demand.step, Best):
        return Points(demand.step.split, demand.step.every, demand.step.until)
    return demand if isinstance(demand, Points) else None


def _images(data: DataSettings, split: str) -> int:
    """How many images a split that is measured holds."""
    if split == "val":
        return data.validation
    if data.name in FOLDERS:
        return FOLDERS[data.name].test
    return SETS[data.name].versions[data.version].test if data.name in SETS else data.samples // 5
