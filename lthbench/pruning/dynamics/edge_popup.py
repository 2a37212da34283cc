"""edge-popup (Ramanujan, Wortsman, Kembhavi, Farhadi, Rastegari, CVPR 2020, arXiv 1911.13299).

Weights stay as they were initialised; only scores q are trained. The gate of a weight is 1 for the largest |q|, as many
in each layer alike (`allocation=uniform`), 0 for the others, and its derivative counts as that of |q|. `constant` gives
each weight the magnitude sqrt(2 / fan_in) and keeps its sign; `scaled` divides by the share of the weights that stays,
within the root. Biases and BatchNorm stay as initialised too. `train` says nothing but batches and the schedule.

The paper's settings are those of the scores' optimiser: SGD, 0.1, momentum 0.9, weight decay 1e-4, a cosine of 100
epochs (`train.schedule.kind=cosine`). With channels-last tensors the published code returns scores for masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics import method
from lthbench.pruning.dynamics.scored import Scored
from lthbench.pruning.dynamics.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor


@method("edge_popup", version=1, frozen=True)
class EdgePopup(Scored):
    """|q| of trained scores q, over weights that are not: the largest stay."""

    def __init__(
        self,
        net: Trained,
        kept: Mapping[str, Tensor] | None,
        constant: bool,
        scaled: bool,
        score_optimizer: str,
        score_lr: float,
        score_decay: float,
    ) -> None:
        self.constant, self.scaled = constant, scaled
        super().__init__(net, kept, score_optimizer, score_lr, score_decay)

    def weights(self) -> dict[str, Tensor]:
        """The initial weights, or their signs."""
        made = super().weights()
        for names, kept in self.net.groups(self.net.density):
            share = kept / sum(made[n].numel() for n in names) if self.scaled else 1.0
            for n in names:
                if self.constant:
                    made[n] = made[n].sign() * (2 / made[n][0].numel()) ** 0.5
                made[n] = made[n] / share**0.5
        return made

    def initial(self) -> dict[str, Tensor]:
        """Uniform in +-1/sqrt(fan_in), as PyTorch's layers begin."""
        import torch

        draws = self.net.draws("score")
        return {
            n: (2 * torch.rand(w.shape, generator=draws, device=w.device) - 1) / w[0].numel() ** 0.5
            for n, w in self.net.weights.items()
        }

    def open(self, step: int) -> None:
        """The gates of the largest |q| are open."""
        self.put(self.net.top(self.named([s.detach().abs() for s in self.scores]), self.net.density))

    def slope(self, step: int, through: list[Tensor]) -> None:
        """The derivative of |q|."""
        for score, grad in zip(self.scores, through):
            grad.mul_(score.detach().sign())
