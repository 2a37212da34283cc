"""Critical compression: how far a criterion prunes before a layer is empty (Tanaka et al. 2020, arXiv 2006.05467).

Candidates are compressions 10^(i/50), i = 0, 1, ...: a resolution of 0.02 in log10, 4.7 %. What bisection finds is a
candidate without an empty layer, whose next one has an empty layer. Where masks are nested, as those of one look ranked
globally are, that is the largest without; of several rounds or of shares by layer it is a lower bound, since a mask
beyond may have none again. The most that any mask can reach is one weight a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from lthbench.pruning.density import Density
from lthbench.pruning.select import Tensors

STEPS = 50  # candidates a factor of ten


@dataclass(frozen=True)
class Critical:
    """`kept` of `total` weights in `layers` layers at the critical compression 10^log10; at the next candidate these
    layers are `empty`, and input and output are still `connected` (through shortcuts) or not (None: not judged)."""

    total: int
    layers: int
    log10: float
    kept: int
    empty: list[str]
    connected: bool | None
    masks: int  # how many were taken to find it


def search(
    take: Callable[[Density], Tensors], total: int, layers: int, connected: Callable[[Tensors], bool | None]
) -> Critical:
    """Find a criterion's critical compression; `take` gives the mask at a density."""

    def kept(i: int) -> int:
        return round(total / 10 ** (i / STEPS))

    low, high, taken = 0, next(i for i in range(10**6) if kept(i) < layers), 0
    broken: Tensors = {}
    while high - low > 1:
        middle = (low + high) // 2
        mask = take(Density(Fraction(kept(middle), total)))
        taken += 1
        if _empty(mask):
            high, broken = middle, mask
        else:
            low = middle
    still = connected(broken) if broken else None
    return Critical(total, layers, low / STEPS, kept(low), _empty(broken), still, taken)


def _empty(mask: Tensors) -> list[str]:
    return [name for name, kept in mask.items() if not kept.any()]
