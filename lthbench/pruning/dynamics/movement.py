"""Movement pruning, hard (Sanh, Wolf, Rush, NeurIPS 2020, arXiv 2005.07683).

The gate of a weight is 1 for the largest scores and 0 for the others, its derivative counts as 1, so that scores
gather -dL/dW' W: what moves away from zero stays, and what is pruned may come back. How many stay falls in each matrix
(`allocation=uniform`) from 1 - `initial` to what shall stay by the cubic schedule of gradual magnitude pruning, in
every step. Scores begin at 0 and have no weight decay.

The published code prunes the linear layers of BERT's encoder, with AdamW for weights and scores; the number that stays
is rounded down in each matrix, here sparsity is exact over all.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics import left, method
from lthbench.pruning.dynamics.scored import Scored
from lthbench.pruning.dynamics.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor


@method("movement", version=1)
class Movement(Scored):
    """The sum of -dL/dW' W over training: the largest stay, more and more weights go on a cubic schedule."""

    def __init__(
        self,
        net: Trained,
        kept: Mapping[str, Tensor] | None,
        begin: int,
        end: int,
        initial: str,
        score_optimizer: str,
        score_lr: float,
    ) -> None:
        self.begin, self.end, self.first_density = begin, end, 1 - Fraction(initial)
        super().__init__(net, kept, score_optimizer, score_lr)

    def open(self, step: int) -> None:
        """The largest scores' gates are open."""
        net = self.net
        density = net.density + (self.first_density - net.density) * left(step, self.begin, self.end)
        self.put(net.top(self.named([s.detach() for s in self.scores]), density))
