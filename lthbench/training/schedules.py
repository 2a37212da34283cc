"""How a pruned network is retrained: learning-rate series over N steps, made from the dense recipe over T.

Sources: Han et al. 2015 (finetune); Renda et al. 2020, arXiv 2003.02389 (replay, lrw); Le and Hua 2021, arXiv
2105.03193 (slr, clr); Zimmer et al. 2023, arXiv 2111.00843 (llr, allr). Where the authors' code runs one step late
(its warm-up ends on step w + 1, so that llr never comes as low as peak / R), these are the closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings
from lthbench.training.recipe import LrSchedule, Recipe

if TYPE_CHECKING:
    from torch import Tensor

SHARES = ("round", "total")


@dataclass(frozen=True)
class Series:
    """One way of retraining.

    `schedule(dense, T, N, w, low)` is its shape, w steps of it warm-up; `low` the smallest rate of the dense schedule
    over the largest. None: it replays the dense one, at its position and with its batches. `peak` is the rate that
    the shape multiplies; `warmup` the share of the N steps; `fresh` whether the optimiser starts anew.
    """

    what: str
    schedule: Callable[[LrSchedule, int, int, int, float], LrSchedule] | None = None
    peak: str = "largest"
    warmup: float = 0.1
    fresh: bool = True
    adaptive: bool = False


def _constant(dense: LrSchedule, length: int, steps: int, warm: int, low: float) -> LrSchedule:
    return LrSchedule("constant", warmup=warm, rise=_rise(warm))


def _compressed(dense: LrSchedule, length: int, steps: int, warm: int, low: float) -> LrSchedule:
    return LrSchedule("compressed", warmup=warm, total=steps, rise=_rise(warm), of=dense, length=length)


def _cosine(dense: LrSchedule, length: int, steps: int, warm: int, low: float) -> LrSchedule:
    return LrSchedule("cosine", warmup=warm, total=steps, rise=_rise(warm))


def _cycle(dense: LrSchedule, length: int, steps: int, warm: int, low: float) -> LrSchedule:
    return replace(_cosine(dense, length, steps, warm, low), floor=low)


def _linear(dense: LrSchedule, length: int, steps: int, warm: int, low: float) -> LrSchedule:
    return LrSchedule("linear", warmup=warm, total=steps, rise=_rise(warm))


def _rise(warm: int) -> str:
    return "cosine" if warm else "linear"  # without a warm-up its shape means nothing


RETRAINS = {
    "replay": Series("the dense schedule from the rewinding point on", fresh=False),
    "lrw": Series(
        "the dense schedule from the rewinding point on, for weights that stay (learning-rate rewinding)", fresh=False
    ),
    "finetune": Series("the smallest learning rate of the dense schedule, constant", _constant, "smallest", 0.0, False),
    "slr": Series("the whole dense schedule compressed, from its largest rate on (Le and Hua)", _compressed),
    "clr": Series("a cosine from the largest to the smallest dense rate (Le and Hua)", _cycle),
    "llr": Series("linear from the largest dense rate to 0 (BIMP)", _linear),
    "allr": Series(
        "linear to 0 from a rate that grows with what pruning took away (BIMP)", _linear, adaptive=True
    ),
    "cosine": Series("a cosine from the largest dense rate to 0", _cosine),
}  # fmt: skip


def retraining(
    name: str, dense: Recipe, length: int, steps: int, lr: float | None = None, warmup: float | None = None
) -> Recipe:
    """The recipe for `steps` steps of retraining; `dense` ran for `length`.

    `lr` replaces the rate that the series starts from, `warmup` the share of the steps that leads there.
    """
    series = RETRAINS[name]
    if series.schedule is None:
        return dense
    rates = _rates(dense, length)
    largest, smallest = max(rates, default=dense.lr), min((r for r in rates if r > 0), default=dense.lr)
    warm = int((series.warmup if warmup is None else warmup) * steps)
    schedule = series.schedule(dense.schedule, length, steps, warm, smallest / largest if largest else 1.0)
    own = largest if series.peak == "largest" else smallest
    return replace(dense, lr=own if lr is None else lr, schedule=schedule)


def _rates(dense: Recipe, length: int) -> set[float]:
    """The rates after warm-up among which the largest and the smallest are found: ends and milestones."""
    warm = min(dense.schedule.warmup, length)
    turns = {s for s in (warm, *dense.schedule.milestones, length - 1) if warm <= s < max(length, warm + 1)}
    return {dense.lr_at(step) for step in turns}


@dataclass(frozen=True)
class Adaptive(Settings):
    """ALLR: the peak is multiplied by max(d1, d2), at most 1.

    d1 = ||w - w_pruned|| / (||w|| sqrt(s)) over all parameters. `share` says what s is: the share of the weights left
    that this `round` removed (as SMS's code has it, and the papers), or the `total` sparsity after it (the first
    version of BIMP's code). `lowest` is d2, the length of retraining over that of the dense training.
    """

    share: str
    lowest: float

    def __post_init__(self) -> None:
        if self.share not in SHARES:
            raise UserError(f"retrain.share: unknown choice '{self.share}'{near(self.share, SHARES)}")


def adapted(
    adaptive: Adaptive,
    parameters: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
) -> float:
    """What ALLR multiplies the peak with, for parameters before this pruning, masks before (or none) and after it."""
    squares = {name: p.double().square() for name, p in parameters.items()}
    whole = sum(float(square.sum()) for square in squares.values())
    gone = sum(float(squares[name][~kept].sum()) for name, kept in mask.items())
    total = sum(kept.numel() for kept in mask.values())
    had = total
    if adaptive.share == "round" and before:
        had = sum(int(before[name].sum()) if name in before else kept.numel() for name, kept in mask.items())
    removed = had - sum(int(kept.sum()) for kept in mask.values())
    if not (removed and whole > 0 and math.isfinite(whole)):
        return adaptive.lowest
    d1 = math.sqrt(gone / whole) / math.sqrt(removed / had)
    return min(1.0, max(d1, adaptive.lowest))
