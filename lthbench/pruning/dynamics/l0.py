"""L0 regularisation with hard concrete gates (Louizos, Welling, Kingma, ICLR 2018, arXiv 1712.01312), one gate for each
weight, as Sanh et al. (NeurIPS 2020, arXiv 2005.07683) compare it with movement pruning.

A gate is s stretched to (-0.1, 1.1) and cut off at 0 and 1, with s = sigmoid((log u - log(1 - u) + a) / beta) and u
uniform, drawn anew in every step; beta is 2/3. The penalty is `penalty` times the mean over all layers of the mean
probability that a gate is not 0, sigmoid(a - beta log(0.1 / 1.1)). What is handed over is the gate of sigmoid(a),
without chance: weights whose gate is 0 are pruned, others multiplied by it. How much stays is an outcome.

As in Sanh et al.'s code u lies within 1e-4 of neither 0 nor 1, and a begins at log 9 (2.197).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics import method
from lthbench.pruning.dynamics.scored import Scored
from lthbench.pruning.dynamics.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor

LOW, HIGH, BETA, EDGE = -0.1, 1.1, 2 / 3, 1e-4


@method("l0", version=1, outcome=True)
class L0(Scored):
    """The probability that a weight's gate is not 0, trained against a penalty; sparsity is an outcome."""

    def __init__(
        self,
        net: Trained,
        kept: Mapping[str, Tensor] | None,
        penalty: float,
        bias: float,
        score_optimizer: str,
        score_lr: float,
    ) -> None:
        self.penalty, self.bias = penalty, bias
        super().__init__(net, kept, score_optimizer, score_lr)
        self._drawn = [s.detach().clone() for s in self.scores]  # s of the present step

    def initial(self) -> dict[str, Tensor]:
        """The same for all."""
        return {n: a + self.bias for n, a in super().initial().items()}

    def open(self, step: int) -> None:
        """Gates by chance."""
        import torch

        draws = self.net.draws("mask", step)
        for score, gate, drawn in zip(self.scores, self.gates, self._drawn):
            u = torch.rand(score.shape, generator=draws, device=score.device).clamp_(EDGE, 1 - EDGE)
            drawn.copy_(u).logit_().add_(score.detach()).div_(BETA).sigmoid_()
            gate.copy_(drawn).mul_(HIGH - LOW).add_(LOW).clamp_(0, 1)

    def final(self, step: int) -> None:
        """Gates without chance."""
        for score, gate in zip(self.scores, self.gates):
            gate.copy_(score.detach()).sigmoid_().mul_(HIGH - LOW).add_(LOW).clamp_(0, 1)

    def slope(self, step: int, through: list[Tensor]) -> None:
        """The derivative of the gate, and that of the penalty."""
        shift = BETA * math.log(-LOW / HIGH)
        for score, gate, s, grad in zip(self.scores, self.gates, self._drawn, through):
            grad.mul_((gate > 0) & (gate < 1)).mul_(s.sub_(s * s)).mul_((HIGH - LOW) / BETA)
            p = (score.detach() - shift).sigmoid_()
            grad.add_(p.sub_(p * p), alpha=self.penalty / len(self.scores) / score.numel())
