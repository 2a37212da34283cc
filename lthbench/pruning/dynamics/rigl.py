"""RigL: rigging the lottery (Evci, Gale, Menick, Castro, Elsen, ICML 2020, arXiv 1911.11134).

The network is sparse from the first step on, with as many weights in each layer throughout (`allocation=erk`, or
`uniform`), at first random ones. Every so many steps a share of each layer's weights, f (1 + cos(pi t / T)) / 2, gives
way to others: the smallest |w| go, and of all that are not there then, what has the largest gradient comes, from zero.
That takes the place of the optimiser's step.

As in the published code, what goes and has the largest gradient of all stays with its value; and the update reads the
gradients of one batch. The code's own default is a constant share of 0.1; the paper's is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics import method
from lthbench.pruning.dynamics.trained import Trained
from lthbench.pruning.dynamics.zeroed import Zeroed

if TYPE_CHECKING:
    from torch import Tensor


@method("rigl", version=1, settles=True)
class RigL(Zeroed):
    """|w| says what goes, |dL/dw| of all weights what comes in its place, every so many steps until `end`."""

    def __init__(
        self, net: Trained, kept: Mapping[str, Tensor] | None, begin: int, end: int, every: int, fraction: float
    ) -> None:
        self.begin, self.end, self.every, self.fraction = begin, end, every, fraction
        super().__init__(net, kept)

    def first(self) -> dict[str, Tensor]:
        """Random weights."""
        return self.net.random()

    def backward(self, step: int) -> bool:
        """Where the mask changes, weights do not move."""
        if not (self.begin < step < self.end and (step - self.begin) % self.every == 0):
            return super().backward(step)
        from lthbench.pruning.select import keep_top

        share = self.share(step)
        mask = {}
        for name, weight in self.net.weights.items():
            assert weight.grad is not None
            there = self.net.mask[name]
            count = int(there.count_nonzero())
            goes = int(share * count)
            size, slope = (t.detach().abs().nan_to_num(0.0, 0.0, 0.0) for t in (weight, weight.grad))
            stays = keep_top({name: size}, count - goes, {name: there})[name]
            mask[name] = stays | keep_top({name: slope}, goes, {name: ~stays})[name]
        self.set(mask)
        return False

    def share(self, step: int) -> float:
        """The share of a layer's weights that goes at a step: f at `begin`, 0 at `end`."""
        done = (step - self.begin) / (self.end - self.begin)
        return self.fraction / 2 * (1 + math.cos(math.pi * done))
