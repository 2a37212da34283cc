"""How a criterion is run: scoring rounds, the batches it sees, BatchNorm's mode, precision."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError
from lthbench.base.seeds import generator
from lthbench.base.settings import Settings
from lthbench.data.sets import DataSettings
from lthbench.pruning.density import Density, rooted

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scoring(Settings):
    """`rounds` of scoring and masking towards the target, `exponential` or `linear` in the density, or `halving`
    what is missing to the sparsity, from 1/2 on (1/4 or 0 where that is too much: EarlyCroP, arXiv 2206.10451); with
    `regrow` weights may come back between rounds (FORCE).

    Criteria that look at data get `batches` batches of `batch` training images each, unaugmented, drawn anew each
    round from the stream (seed, batches, round); `per_class` > 0 draws so many of each class instead. `mode` is
    BatchNorm's (`eval` or `train`), `dtype` float32 or float64.
    """

    rounds: int = 1
    spacing: str = "exponential"
    regrow: bool = False
    data: DataSettings | None = None
    seed: int | None = None
    batches: int = 1
    batch: int = 128
    per_class: int = 0
    mode: str = "eval"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for value, known, where in (
            (self.spacing, ("exponential", "linear", "halving"), "pruner.spacing"),
            (self.mode, ("eval", "train"), "pruner.mode"),
            (self.dtype, ("float32", "float64"), "pruner.dtype"),
        ):
            if value not in known:
                raise UserError(f"{where}: unknown choice '{value}'; choose from {', '.join(known)}")
        for name in ("rounds", "batches", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"pruner.{name}: {getattr(self, name)} is less than 1")
        if self.per_class < 0:
            raise UserError(f"pruner.per_class: {self.per_class} is negative")
        if self.data is not None and self.asked > self.data.train_samples:
            word = "per_class" if self.per_class else "batch"
            raise UserError(f"pruner.{word}: {self.asked} images are asked for, {self.data.train_samples} are there")

    @property
    def asked(self) -> int:
        """How many images one round looks at."""
        each = self.per_class * self.data.classes if self.per_class and self.data else self.batch
        return each * self.batches

    def densities(self, target: Density | None) -> list[Density | None]:
        """The density after each scoring round; a target that is a count by kind is taken in one."""
        if self.rounds == 1 or target is None:
            return [target]
        if self.spacing == "exponential":
            exact = [rooted(target.base, target.power * r, target.root * self.rounds) for r in range(1, self.rounds)]
        else:
            share = target.base if target.root == 1 else None
            if share is None:
                needs = "needs a plain density, not one of schedule=geometric"
                raise UserError(f"pruner.spacing={self.spacing} {needs}")
            if self.spacing == "halving":
                begin = next(d for d in (Fraction(1, 2), Fraction(3, 4), Fraction(1)) if d > share)
                return [*(Density(share + (begin - share) / 2**i) for i in range(self.rounds - 1)), target]
            exact = [Density(1 - (1 - share) * r / self.rounds) for r in range(1, self.rounds)]
        return [*exact, target]


def draw(scoring: Scoring, number: int) -> list[tuple[Tensor, Tensor]]:
    """The batches of scoring round `number` (from 0): images (B, C, H, W), labels (B,). Empty without data."""
    if scoring.data is None or scoring.seed is None:
        return []
    import torch

    from lthbench.data.stream import split

    train = split(scoring.data, "train")
    draws = generator(scoring.seed, "batches", number)
    order = torch.randperm(len(train), generator=draws)
    if scoring.per_class:
        count = scoring.per_class * scoring.batches
        labels = train.y[order]
        by_class = [order[(labels == c).nonzero().flatten()[:count]] for c in range(scoring.data.classes)]
        short = next((c for c, rows in enumerate(by_class) if len(rows) < count), None)
        if short is not None:
            raise ValueError(f"class {short} has {len(by_class[short])} images, {count} are asked for")
        parts = [torch.cat([rows[i :: scoring.batches] for rows in by_class]) for i in range(scoring.batches)]
    else:
        parts = list(order[: scoring.batches * scoring.batch].split(scoring.batch))
    dtype = getattr(torch, scoring.dtype)
    return [(train.batch(rows).to(dtype), train.y[rows]) for rows in parts]
