"""What happens between two prunings: where the weights go back to, and how they are trained again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings
from lthbench.training.recipe import Recipe
from lthbench.training.schedules import RETRAINS, Adaptive, retraining

UNITS = ("ratio", "epoch", "iteration")
MOMENTS = ("default", "zero", "restore", "keep")


@dataclass(frozen=True)
class Rewind(Settings):
    """`to`: `init`, `early` (step k) or `none`. `k` is counted in `unit`s: a ratio of training, epochs, iterations."""

    to: str
    k: float = 0.0
    unit: str = "ratio"

    def step(self, recipe: Recipe, samples: int, steps: int) -> int:
        """k in steps of the dense run."""
        if self.to == "init":
            return 0
        per = {"ratio": steps, "epoch": recipe.steps_per_epoch(samples), "iteration": 1}[self.unit]
        return round(self.k * per)


@dataclass(frozen=True)
class Retrain(Settings):
    """A series of RETRAINS and what varies it.

    `epochs` a round, None: the dense length less rewind.k; or `total` epochs shared by all rounds, the last one taking
    what is left over (BIMP). `budget` multiplies them (IMP_mx). `lr` is the rate that the series starts from, `warmup`
    the share of the steps that leads there, None: the series' own. `weight_decay` None: the dense recipe's. `share`:
    see Adaptive.
    """

    name: str
    epochs: float | None = None
    moments: str = "default"
    lr: float | None = None
    warmup: float | None = None
    weight_decay: float | None = None
    budget: int = 1
    total: float | None = None
    share: str = "round"

    def __post_init__(self) -> None:
        for value, known, where in (
            (self.name, tuple(RETRAINS), "retrain"),
            (self.moments, MOMENTS, "retrain.moments"),
        ):
            if value not in known:
                raise UserError(f"{where}: unknown choice '{value}'{near(value, known)}")
        for name in ("epochs", "lr", "warmup", "weight_decay", "total"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"retrain.{name}: {value} is negative")
        if self.warmup is not None and self.warmup > 1:
            raise UserError(f"retrain.warmup: {self.warmup} is more than all of the retraining")
        if self.budget < 1:
            raise UserError(f"retrain.budget: {self.budget} is less than 1")
        if self.epochs is not None and self.total is not None:
            raise UserError("retrain.epochs, retrain.total: one of them, the other null")
        Adaptive(self.share, 1.0)

    @property
    def own(self) -> bool:
        """Whether it has a schedule of its own, which starts at 0, and batches of its own."""
        return RETRAINS[self.name].schedule is not None

    def in_epochs(self, number: int, rounds: int) -> float | None:
        """How long round `number` retrains; None: as long as the dense run less k."""
        if self.total is None:
            return None if self.epochs is None else self.epochs * self.budget
        each = math.floor(self.total / rounds)
        return self.budget * (each if number < rounds else self.total - each * (rounds - 1))


@dataclass(frozen=True)
class Round(Settings):
    """One round's training, in steps of the dense run; `moments` is `zero`, `restore` or `keep`."""

    recipe: Recipe
    first: int
    steps: int
    moments: str
    own: bool
    adapt: Adaptive | None = None

    @property
    def last(self) -> int:
        return self.first + self.steps


def planned(
    how: Retrain, rewind: Rewind, dense: Recipe, length: int, k: int, per_epoch: int, number: int, rounds: int
) -> Round:
    """Round `number` of `rounds`; the dense run of `length` steps may be gone back to at step `k`."""
    epochs = how.in_epochs(number, rounds)
    steps = (length - k) * how.budget if epochs is None else round(epochs * per_epoch)
    series = RETRAINS[how.name]
    recipe = retraining(how.name, dense, length, steps, how.lr, how.warmup)
    if how.weight_decay is not None:
        recipe = replace(recipe, weight_decay=how.weight_decay)
    first = 0 if how.own else length - steps if rewind.to == "none" else k
    moments = how.moments
    if moments == "default":
        moments = "zero" if series.fresh else {"init": "zero", "early": "restore", "none": "keep"}[rewind.to]
    if moments == "restore" and k == 0:
        moments = "zero"
    adapt = Adaptive(how.share, min(1.0, steps / max(1, length))) if series.adaptive else None
    return Round(recipe, first, steps, moments, how.own, adapt)
