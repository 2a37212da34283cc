"""Movement pruning, soft (Sanh, Wolf, Rush, NeurIPS 2020, arXiv 2005.07683).

The gate of a weight is 1 where the sigmoid of its score is above a threshold, its derivative counts as 1; a penalty,
`penalty` times the mean over all layers of a layer's mean sigmoid, pushes scores down. The threshold rises from 0 to
`threshold` by the cubic schedule of gradual magnitude pruning, and the penalty in proportion. How much stays is an
outcome, but of each layer at least the share `floor` (0.5 %, as in the published code), the largest scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics import left, method
from lthbench.pruning.dynamics.scored import Scored
from lthbench.pruning.dynamics.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor


@method("soft_movement", version=1, outcome=True)
class SoftMovement(Scored):
    """The sum of -dL/dW' W over training, less a penalty: what is above a threshold stays; sparsity is an outcome."""

    def __init__(
        self,
        net: Trained,
        kept: Mapping[str, Tensor] | None,
        begin: int,
        end: int,
        threshold: float,
        penalty: float,
        floor: float,
        score_optimizer: str,
        score_lr: float,
    ) -> None:
        self.begin, self.end, self.threshold, self.penalty, self.floor = begin, end, threshold, penalty, floor
        super().__init__(net, kept, score_optimizer, score_lr)

    def risen(self, step: int) -> float:
        """The share of its final value that threshold and penalty have at a step."""
        return float(1 - left(step, self.begin, self.end))

    def open(self, step: int) -> None:
        """The gates of scores above the threshold are open."""
        from lthbench.pruning.select import keep_top

        threshold = self.threshold * self.risen(step)
        for (name, score), gate in zip(self.named(self.scores).items(), self.gates):
            score = score.detach()
            kept = score.sigmoid() > threshold
            least = math.ceil(self.floor * score.numel())
            if int(kept.count_nonzero()) < least:
                kept = keep_top({name: score.nan_to_num(0.0, 0.0, 0.0)}, least, {name: self.net.everything[name]})[name]
            gate.copy_(kept)

    def slope(self, step: int, through: list[Tensor]) -> None:
        """The derivative of the penalty is added."""
        weight = self.penalty * self.risen(step) / len(self.scores)
        for score, grad in zip(self.scores, through):
            s = score.detach().sigmoid()
            grad.add_(s.sub_(s * s), alpha=weight / score.numel())
