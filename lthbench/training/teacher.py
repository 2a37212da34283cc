"""A trained network that another one learns from, besides labels (Hinton, Vinyals, Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lthbench.training.recipe import Distill


class Teacher:
    """A network as it predicts (evaluation mode), and how much its predictions count."""

    def __init__(self, net: nn.Module, how: Distill) -> None:
        self.net, self.how = net.eval(), how

    def __call__(self, loss: Tensor, logits: Tensor, x: Tensor) -> Tensor:
        """The loss on labels, logits (B, classes) of the pupil and its inputs: the loss that is minimised.

        The divergence KL(teacher || pupil) at temperature T, a mean over the batch, is multiplied by T^2, so that its
        gradient does not shrink with T.
        """
        t, share = self.how.temperature, self.how.weight
        with torch.no_grad():
            taught = F.log_softmax(self.net(x) / t, 1)
        soft = F.kl_div(F.log_softmax(logits / t, 1), taught, reduction="batchmean", log_target=True)
        return (1 - share) * loss + share * t * t * soft
