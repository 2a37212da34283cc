"""Gradual magnitude pruning (Zhu and Gupta 2017, arXiv 1710.01878).

Sparsity rises from `initial` at `begin` to its target at `end`, fast at first, as s_f + (s_i - s_f) (1 - t)^3, and
stays there: a warm-up before, a cool-down after. The paper prunes each layer alike (`allocation=uniform`) and leaves
out the first convolution of MobileNet (`allocation=given`, `prunable`).

TensorFlow's code keeps the values of what is pruned and compares them at the next pruning, so that a weight may come
back; here what is pruned is zero and stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics import left, method
from lthbench.pruning.dynamics.trained import Trained
from lthbench.pruning.dynamics.zeroed import Zeroed

if TYPE_CHECKING:
    from torch import Tensor


@method("gmp", version=1, late=True, settles=True)
class Gmp(Zeroed):
    """|w|: the smallest go, every so many steps, until the cubic schedule has met the sparsity."""

    def __init__(
        self, net: Trained, kept: Mapping[str, Tensor] | None, begin: int, end: int, every: int, initial: str
    ) -> None:
        self.begin, self.end, self.every, self.initial = begin, end, every, 1 - Fraction(initial)
        super().__init__(net, kept)

    def first(self) -> dict[str, Tensor]:
        """At `begin` there may be something to prune already."""
        return self._pruned(self.net.first) if self.net.first == self.begin else super().first()

    def updated(self, step: int) -> None:
        """Prune after every so many steps, and at the end."""
        done = step + 1
        if self.begin <= done <= self.end and ((done - self.begin) % self.every == 0 or done == self.end):
            self.set(self._pruned(done))

    def _pruned(self, step: int) -> dict[str, Tensor]:
        """What stays of the weights after `step` steps."""
        net = self.net
        density = net.density + (self.initial - net.density) * left(step, self.begin, self.end)
        return net.top({name: w.detach().abs() for name, w in net.weights.items()}, density, net.mask)
