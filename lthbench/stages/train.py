"""A trajectory: one training run, named by what determines it, asked for states, points and best points.

The length is not part of the name. One pass saves every state that anyone asks for; a state asked for later
is made from the nearest earlier one, to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lthbench.base.settings import Settings, later
from lthbench.data.sets import DataSettings
from lthbench.engine.graph import Best, Ref, Stage, State, stage
from lthbench.engine.plan import Work
from lthbench.engine.runner import Job, Stopped
from lthbench.engine.store import At, Demand, Points, moments_file, progress_file, resume_file, state_file
from lthbench.pruning.dynamics import Sparsify
from lthbench.training.recipe import Distill, Recipe
from lthbench.training.schedules import Adaptive

if TYPE_CHECKING:
    from lthbench.training.checkpoint import Checkpoint
    from lthbench.training.loop import Trajectory

KIND, VERSION = "train", 1
SAVE_SECONDS = 300.0  # how often a running trajectory is saved for resumption; no part of any id
TICK_STEPS = 250  # how often progress is told and the clock is looked at


@dataclass(frozen=True)
class Train(Settings):
    """`first` is the position on the dense schedule of the first step; `index` is (round, copy) of the streams.

    `adapt`: the recipe's learning rate is multiplied with what the start lost to the mask, a number that is found
    when training begins and kept with the optimiser's state. `sparsify`: the mask changes on the way; what that
    remembers is kept there too, under `x/`. `tied`: weights of one value in a layer stay so (see `compress.codebook`).
    `distill`: the input `teacher` has a share in the loss. `of_steps`: on a part of the images (the input `examples`),
    where a training on all would have so many steps, it has as many epochs fewer as there are fewer images.
    """

    recipe: Recipe
    data: DataSettings
    seed: int
    index: tuple[int, ...]
    first: int
    adapt: Adaptive | None = later(None)
    sparsify: Sparsify | None = later(None)
    tied: bool = later(False)
    distill: Distill | None = later(None)
    of_steps: int = later(0)


def train(
    start: Ref,
    recipe: Recipe,
    data: DataSettings,
    seed: int,
    *,
    mask: Ref | None = None,
    moments: State | None = None,
    first: int = 0,
    index: tuple[int, int] = (0, 0),
    adapt: Adaptive | None = None,
    sparsify: Sparsify | None = None,
    tied: bool = False,
    teacher: tuple[Ref, Distill] | None = None,
    examples: Stage | None = None,
    of_steps: int = 0,
) -> Stage:
    """The training run from a state; `mask` is a stage's output, or a state that has one; `moments` is the state whose
    optimiser state it goes on with, None a fresh one.

    Going on from `dense.at(k)` at position k with its own moments, recipe and streams IS the dense run.
    """
    distill = teacher[1] if teacher else None
    settings = Train(recipe, data, seed, index, first, adapt, sparsify, tied, distill, of_steps)
    if (
        mask is None
        and sparsify is None
        and not tied
        and teacher is None
        and examples is None
        and isinstance(start, State)
        and start == moments
        and start.step == first
        and isinstance(start.stage.settings, Train)
        and Train(recipe, data, seed, index, start.stage.settings.first).text == start.stage.settings.text
    ):
        return start.stage
    inputs = {"start": start, "mask": mask, "moments": moments, "teacher": teacher[0] if teacher else None}
    inputs["examples"] = examples
    return stage(KIND, VERSION, settings, {role: ref for role, ref in inputs.items() if ref is not None})


def at(trajectory: Stage, step: int) -> Ref:
    """The state after `step` steps; before the first step of a dense run that is its start, under its one name."""
    settings = trajectory.settings
    assert isinstance(settings, Train)
    if step == settings.first and "mask" not in trajectory.inputs and settings.sparsify is None:
        return trajectory.inputs["start"]
    return trajectory.at(step)


def epochs(work: Work) -> float:
    """Epochs of training that a piece of work takes; 0 for what does not train."""
    if not isinstance(work.stage.settings, Train):
        return 0.0
    return epochs_until(work.stage, max(map(end, work.missing)), work.resume)


def epochs_until(trajectory: Stage, step: int, begin: int | None = None) -> float:
    """Epochs from a step (None: the first) of a trajectory to another."""
    s = trajectory.settings
    assert isinstance(s, Train)
    begin = s.first if begin is None else begin
    return max(0, step - begin) / s.recipe.steps_per_epoch(s.data.train_samples)


def end(demand: Demand) -> int:
    """The step up to which a demand makes a trajectory run."""
    if isinstance(demand, Points):
        return demand.until
    assert isinstance(demand, At)
    return demand.step if isinstance(demand.step, int) else demand.step.until


def compute(job: Job) -> None:
    """Run to the last step that is asked for and write all that is missing on the way."""
    from lthbench.evaluation.metrics import measure

    s = job.stage.settings
    assert isinstance(s, Train)
    run = _begin(job, s)
    per_epoch = run.stream.steps_per_epoch
    measured = _measurements(job.missing, s.first, job.resume)
    bests = {d.step: _BestSoFar(job, d.step) for d in job.missing if isinstance(d, At) and isinstance(d.step, Best)}
    asked = {d.step for d in job.missing if isinstance(d, At) and isinstance(d.step, int)}
    last, begun = max(asked | set(measured) | {run.step}), run.step
    points: dict[str, dict[int, dict[str, Any]]] = {}
    saved = time.monotonic()
    stops = sorted(asked | set(measured) | set(_ticks(run.step, last, per_epoch)))
    for stop in stops:
        over = run.over
        if not over:
            run.run(stop)
        run.step = stop
        if stop % per_epoch == 0 and stop > s.first and not over:
            points.setdefault("train", {})[stop] = _finite(loss=run.epoch_loss(), lr=run.recipe.lr_at(stop - 1))
            run.check()
        if run.dynamics and run.dynamics.news:
            points.setdefault("search", {}).update(run.dynamics.news)
            run.dynamics.news.clear()
        for name in sorted(measured.get(stop, ())):
            values = measure(run.net, _split(s, name, job.device))
            points.setdefault(name, {})[stop] = values
            for best in bests.values():
                best.see(stop, name, values, run)
        job.tell("step", stage=job.stage, step=stop, begun=begun, last=last, per_epoch=per_epoch, points=points)
        stopping = stop < last and job.stop()
        due = stopping or (time.monotonic() - saved > SAVE_SECONDS and stop < last)
        if due or stop in asked:
            for best in bests.values():
                best.save(stop)
            if points:
                job.store.extend_curve(job.stage, points)  # before the state: no state is ahead of its curve
                points = {}
            _save(job, run, stop, stop in asked)
            saved = time.monotonic()
        if stopping:
            raise Stopped
    for best in bests.values():
        best.finish()
    if points:
        job.store.extend_curve(job.stage, points)
    for name in job.store.names(job.stage.id):
        if name.startswith("r"):
            job.store.remove(job.stage.id, name)


def _begin(job: Job, s: Train) -> Trajectory:
    """The trajectory at the step from which the plan says it goes on."""
    from lthbench.data.stream import split
    from lthbench.training.checkpoint import Checkpoint, part
    from lthbench.training.loop import Trajectory

    samples = split(s.data, "train", job.device)
    per_epoch, recipe, length = s.recipe.steps_per_epoch(len(samples)), s.recipe, s.of_steps
    if part_of := job.input("examples"):
        samples = samples.part(part_of[0]["rows"])
        share = len(samples) / s.data.train_samples
        epochs = max(1, int(s.of_steps / per_epoch * share))
        length = min(s.of_steps, epochs * recipe.steps_per_epoch(len(samples)))
        recipe = recipe.stretched(s.of_steps, length)
    steps = recipe.steps_per_epoch(len(samples))
    stream = samples.stream(s.data.augment, s.recipe.batch, steps, s.seed, s.index)
    teacher = _teacher(job, s)
    if job.resume is not None:
        names = job.store.names(job.stage.id)
        if resume_file(job.resume) in names:
            packed = job.store.read(job.stage.id, resume_file(job.resume))
            moments = part(packed[0], "moments")
        else:
            packed = job.store.read(job.stage.id, state_file(job.resume))
            moments = job.store.read(job.stage.id, moments_file(job.resume))[0]
        recipe = replace(recipe, lr=moments["lr"].item()) if s.adapt else recipe
        start, step, begun = Checkpoint.unpack(packed), job.resume, _dynamics(s, part(moments, "x"))
        return Trajectory(start, moments, recipe, stream, step, s.first, job.device, begun, teacher, length)
    packed_start = job.input("start")
    assert packed_start is not None
    start = Checkpoint.unpack(packed_start)
    if packed_mask := job.input("mask"):
        mask = packed_mask[0] if isinstance(job.stage.inputs["mask"], Stage) else part(packed_mask[0], "mask")
        if job.stage.inputs["mask"].stage.inputs.get("net") != job.stage.inputs["start"]:
            mask = {name: kept for name, kept in mask.items() if not name.startswith("weights/")}  # of another state
        if s.adapt:
            recipe = replace(recipe, lr=recipe.lr * _adapted(s.adapt, start, mask))
        start = start.masked(mask)
    packed_moments = job.input("moments", of="moments")
    moments = dict(packed_moments[0]) if packed_moments else {}
    for own in [name for name in moments if name in ("loss", "lr") or name.startswith("x/")]:
        del moments[own]  # they belong to the run the moments come from
    return Trajectory(start, moments, recipe, stream, s.first, s.first, job.device, _dynamics(s, None), teacher, length)


def _teacher(job: Job, s: Train) -> Any:
    """The network that has a share in the loss, if there is one."""
    if s.distill is None:
        return None
    import torch

    from lthbench.training.checkpoint import Checkpoint
    from lthbench.training.teacher import Teacher

    packed = job.input("teacher")
    assert packed is not None
    net = Checkpoint.unpack(packed).network().to(job.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(net, s.distill)


def _dynamics(s: Train, kept: dict[str, Any] | None) -> Any:
    """What makes the dynamics of a run, if it has any; `kept` is what they go on with, None: they begin."""
    if s.tied:
        from lthbench.compress.codebook import Tied

        return partial(Tied, kept)
    if s.sparsify is None:
        return None
    from lthbench.pruning.dynamics.trained import dynamics

    return partial(dynamics, s.sparsify, s.seed, s.index, kept)


def _adapted(adapt: Adaptive, start: Checkpoint, mask: dict[str, Any]) -> float:
    from lthbench.training.schedules import adapted

    parameters = {name: start.weights[name] for name, _ in start.network().named_parameters()}
    return adapted(adapt, parameters, start.mask, {n: kept for n, kept in mask.items() if n in parameters})


def _measurements(missing: Iterable[Demand], first: int, resume: int | None) -> dict[int, set[str]]:
    """Which splits are measured after which step; what lies before a resumption has been measured."""
    measured: dict[int, set[str]] = {}
    for demand in missing:
        if isinstance(demand, At) and isinstance(demand.step, Best):
            demand = Points(demand.step.split, demand.step.every, demand.step.until)
        if isinstance(demand, Points):
            for step in demand.steps(first):
                if resume is None or step > resume:
                    measured.setdefault(step, set()).add(demand.split)
    return measured


def _ticks(begin: int, last: int, per_epoch: int) -> Iterable[int]:
    """Ends of epochs, and steps in between where epochs are long."""
    for step in range(begin // TICK_STEPS * TICK_STEPS + TICK_STEPS, last, TICK_STEPS):
        yield step
    for step in range(begin // per_epoch * per_epoch + per_epoch, last + 1, per_epoch):
        yield step


def _split(s: Train, name: str, device: str) -> Any:
    from lthbench.data.stream import split

    return split(s.data, name, device)


def _finite(**values: float) -> dict[str, float | None]:
    return {k: v if abs(v) < float("inf") else None for k, v in values.items()}


def _number(value: float) -> Any:
    import torch

    return torch.tensor(value, dtype=torch.float64)


def _save(job: Job, run: Trajectory, step: int, asked: bool) -> None:
    """Write the present state: asked for by somebody, or for resumption only."""
    tensors, meta = run.checkpoint(copy=False).pack()
    moments = run.moments(copy=False)
    if job.stage.settings.adapt:  # type: ignore[attr-defined]
        moments["lr"] = _number(run.recipe.lr)
    if asked:
        job.store.write(job.stage, moments_file(step), moments, {})  # before the state: see resumable()
        job.store.write(job.stage, state_file(step), tensors, meta)
    else:
        both = tensors | {f"moments/{name}": tensor for name, tensor in moments.items()}
        job.store.write(job.stage, resume_file(step), both, meta)
    for name in job.store.names(job.stage.id):
        if name.startswith("r") and name != resume_file(step):
            job.store.remove(job.stage.id, name)


class _BestSoFar:
    """The state of the best point up to now, and up to which step that is known."""

    def __init__(self, job: Job, best: Best) -> None:
        self.job, self.best = job, best
        self.value: float | None = None
        self.step, self.covers = -1, -1
        self.checkpoint: Checkpoint | None = None
        if job.resume is not None:
            from lthbench.training.checkpoint import Checkpoint

            packed = job.store.read(job.stage.id, progress_file(best))
            meta = packed[1]
            self.value, self.step, self.covers = meta["value"], meta["step"], meta["covers"]
            if self.step >= 0:
                self.checkpoint = Checkpoint.unpack(packed)

    def see(self, step: int, split: str, values: dict[str, Any], run: Trajectory) -> None:
        """Look at a measured point; the earliest of equals is kept."""
        best = self.best
        asked = step % best.every == 0 or step == best.until
        if split != best.split or not asked or not self.covers < step <= best.until:
            return
        value = values["loss"] if best.by == "val.loss" else -values["accuracy"]
        better = value is not None and (self.value is None or value < self.value)
        if better or (step == best.until and self.checkpoint is None):  # no finite point: it ends as it is
            self.value, self.step, self.checkpoint = value, step, run.checkpoint()

    def save(self, covers: int) -> None:
        """Write the best so far, before the state from which training may go on."""
        self.covers = max(self.covers, covers)
        self._write(progress_file(self.best))

    def finish(self) -> None:
        """Write the best point under its own name, the same bytes however often it was saved on the way."""
        self.covers = self.best.until
        self._write(state_file(self.best))
        self.job.store.remove(self.job.stage.id, progress_file(self.best))

    def _write(self, name: str) -> None:
        tensors, meta = self.checkpoint.pack() if self.checkpoint else ({}, {})
        meta |= {"value": self.value, "step": self.step, "covers": self.covers}
        self.job.store.write(self.job.stage, name, tensors, meta)
