"""A training recipe: everything that decides a training run besides its start, mask, data and seed.

The length is no part of it (only cosine and linear schedules know their end): training longer is the same
trajectory, asked at a later step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, later

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "step", "cosine", "linear")
PRECISIONS = ("float32", "bf16", "fp16")


def one_of(value: str, words: tuple[str, ...], where: str) -> None:
    """Raise a UserError unless `value` is one of `words`."""
    if value not in words:
        raise UserError(f"{where}: unknown choice '{value}'{near(value, words)}")


@dataclass(frozen=True)
class LrSchedule(Settings):
    """The learning rate as a function of the step; steps are optimiser steps.

    Warm-up rises from 0, linearly or as half a `cosine`; then `constant`, `step` (times gamma from each milestone
    on), `cosine` or `linear` (to `floor` at step `total`), or `compressed`: the schedule `of` a training of `length`
    steps, its own warm-up at full rate, in the steps that are left of `total`.
    """

    kind: str
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: int = 0
    total: int = 0
    rise: str = later("linear")
    floor: float = later(0.0)
    of: LrSchedule | None = later(None)
    length: int = later(0)

    def factor(self, step: int) -> float:
        """What the base learning rate is multiplied with at `step` (0 for the first)."""
        if step < self.warmup:
            risen = step / self.warmup
            return risen if self.rise == "linear" else (1 - math.cos(math.pi * risen)) / 2
        if self.kind == "step":
            return self.gamma ** sum(step >= m for m in self.milestones)
        if self.kind == "constant":
            return 1.0
        rest = max(1, self.total - self.warmup)
        if self.of is not None:
            position = min((step - self.warmup) * self.length // rest, self.length - 1)
            return 1.0 if position < self.of.warmup else self.of.factor(position)
        done = min(1.0, (step - self.warmup) / rest)
        left = (1 + math.cos(math.pi * done)) / 2 if self.kind == "cosine" else 1 - done
        return self.floor + (1 - self.floor) * left


@dataclass(frozen=True)
class Distill(Settings):
    """A teacher's share of the loss: (1 - weight) times the loss on labels, plus weight times the distillation loss at
    a temperature (Hinton et al. 2015, arXiv 1503.02531)."""

    weight: float
    temperature: float

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise UserError(f"train.distill.weight: {self.weight} is not in 0 < w <= 1")
        if self.temperature <= 0:
            raise UserError(f"train.distill.temperature: {self.temperature} is not positive")


@dataclass(frozen=True)
class Recipe(Settings):
    """Optimiser, learning rate, batches and loss.

    `decay` says what weight decay acts on: `all` parameters or only `weights` (not biases, not BatchNorm). `l1` times
    the sum of |w| over the same is a penalty beside the loss: its gradient, l1 sign(w), is added before the mask is
    applied and before clipping, and is 0 where w is 0. `l1_scales` is the same over BatchNorm's scales alone.
    `clip` bounds the gradient norm (0: off). `precision` is float32, bf16 or fp16 (autocast, fp16 with loss scaling;
    weights stay float32).
    `compile` runs the network through torch.compile, which changes bits and is worth it for long runs.
    """

    optimizer: str
    lr: float
    batch: int
    schedule: LrSchedule
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay: str = "all"
    label_smoothing: float = 0.0
    clip: float = 0.0
    drop_last: bool = False
    precision: str = "float32"
    compile: bool = later(False)
    l1: float = later(0.0)
    l1_scales: float = later(0.0)

    def __post_init__(self) -> None:
        one_of(self.optimizer, OPTIMIZERS, "train.optimizer")
        one_of(self.precision, PRECISIONS, "train.precision")
        if self.schedule.of is None:  # which only a retraining has
            one_of(self.schedule.kind, SCHEDULES, "train.schedule.kind")
        one_of(self.decay, ("all", "weights"), "train.decay")
        if self.batch < 1:
            raise UserError(f"train.batch: {self.batch} is less than 1")
        for name in ("lr", "momentum", "eps", "weight_decay", "clip", "l1", "l1_scales"):
            if getattr(self, name) < 0:
                raise UserError(f"train.{name}: {getattr(self, name)} is negative")
        if self.schedule.warmup < 0:
            raise UserError(f"train.schedule.warmup: {self.schedule.warmup} is negative")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"train.betas: {self.betas} is not two numbers in 0 <= b < 1")
        if not 0 <= self.label_smoothing <= 1:
            raise UserError(f"train.label_smoothing: {self.label_smoothing} is not in 0 <= e <= 1")
        if self.nesterov and not self.momentum:
            raise UserError("train.nesterov needs train.momentum > 0")
        for name in ("l1", "l1_scales"):
            if getattr(self, name) and self.precision == "fp16":
                raise UserError(f"train.{name} needs train.precision=float32 or bf16: the gradients of fp16 are scaled")

    def lr_at(self, step: int) -> float:
        """The learning rate of step `step` (0 for the first)."""
        return self.lr * self.schedule.factor(step)

    def stretched(self, steps: int, to: int) -> Recipe:
        """The recipe of a run of `steps` steps for one of `to` steps: milestones and end move in proportion."""
        s = self.schedule
        milestones = tuple(round(m * to / steps) for m in s.milestones) if steps else s.milestones
        total = round(s.total * to / steps) if steps else s.total
        return replace(self, schedule=replace(s, milestones=milestones, total=total))

    def steps_per_epoch(self, samples: int) -> int:
        """Optimiser steps in one pass over `samples`."""
        steps = samples // self.batch if self.drop_last else -(-samples // self.batch)
        if not steps:
            raise UserError(f"train.batch: {self.batch} is larger than the {samples} training samples")
        return steps
