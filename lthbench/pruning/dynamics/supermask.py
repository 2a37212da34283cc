"""Supermasks (Zhou, Lan, Liu, Yosinski, NeurIPS 2019, arXiv 1905.01067).

Weights stay as they were initialised; only logits a are trained. In every step the gate of a weight is open with
probability sigmoid(a), drawn anew, and its derivative counts as that of the sigmoid. `constant` gives each weight the
standard deviation of its layer and keeps its sign. `rescale` multiplies a layer by all its weights over those drawn
(dynamic weight rescaling; the gradient goes through the count too). Biases and BatchNorm stay as initialised.

The paper evaluates the mean of ten draws of masks, whose sparsity is an outcome; here the most probable weights stay,
as many as `sparsity` says, rescaled likewise. Its settings: SGD at 100, momentum 0.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics import method
from lthbench.pruning.dynamics.scored import Scored
from lthbench.pruning.dynamics.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor


@method("supermask", version=1, frozen=True)
class Supermask(Scored):
    """The probability of each weight to be there, trained over weights that are not: the most probable stay."""

    def __init__(
        self,
        net: Trained,
        kept: Mapping[str, Tensor] | None,
        constant: bool,
        rescale: bool,
        bias: float,
        score_optimizer: str,
        score_lr: float,
    ) -> None:
        self.constant, self.rescale, self.bias = constant, rescale, bias
        super().__init__(net, kept, score_optimizer, score_lr)

    def weights(self) -> dict[str, Tensor]:
        """The initial weights, or their signs."""
        made = super().weights()
        return {n: w.sign() * w.std(correction=0) for n, w in made.items()} if self.constant else made

    def initial(self) -> dict[str, Tensor]:
        """The same logit for all."""
        return {n: a + self.bias for n, a in super().initial().items()}

    def open(self, step: int) -> None:
        """Each gate is open by chance."""
        import torch

        draws = self.net.draws("mask", step)
        for score, gate in zip(self.scores, self.gates):
            chance = torch.rand(score.shape, generator=draws, device=score.device)
            gate.copy_(chance < score.detach().sigmoid())
        self._rescaled()

    def final(self, step: int) -> None:
        """The gates of the largest logits are open."""
        self.put(self.net.top(self.named([s.detach() for s in self.scores]), self.net.density))
        self._rescaled()

    def _rescaled(self) -> None:
        for gate in self.gates if self.rescale else ():
            gate.mul_(gate.numel() / gate.count_nonzero().clamp(min=1))

    def slope(self, step: int, through: list[Tensor]) -> None:
        """The derivative of the sigmoid, and that of the rescaling."""
        for score, gate, grad in zip(self.scores, self.gates, through):
            if self.rescale:  # W' = W m r with r = n / sum m: dL/dm = r (dL/dW' W - sum(dL/dW' W m) / sum m)
                open_ = gate.count_nonzero().clamp(min=1)
                drawn = (gate != 0).to(grad.dtype)
                grad.sub_((grad * drawn).sum() / open_).mul_(gate.numel() / open_)
            s = score.detach().sigmoid()
            grad.mul_(s.sub_(s * s))
