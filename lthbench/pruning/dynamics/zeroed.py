"""What the methods have in common whose pruned weights are zero: weight, gradient and momentum, until the mask changes.

Between changes this is the masked training of any ticket, to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lthbench.pruning.dynamics.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor


class Zeroed:
    """A mask that is set now and then. A new run begins with `first()`, the mask of its beginning."""

    over = False

    def __init__(self, net: Trained, kept: Mapping[str, Tensor] | None) -> None:
        import torch

        self.net, self.news = net, dict[int, dict[str, Any]]()
        self._factors = [torch.ones_like(w, requires_grad=False) for w in net.parameters.values()]
        if kept is None:
            net.mask.update(net.everything)
            self.set(self.first())
        else:
            self.set(dict(net.mask))

    def first(self) -> dict[str, Tensor]:
        """The mask of the beginning: all is there."""
        return dict(self.net.mask)

    def set(self, mask: Mapping[str, Tensor], stays: Mapping[str, Tensor] | None = None) -> None:
        """Another mask. What was not there before, or is not in `stays`, is zero, and so is its momentum."""
        stays = mask if stays is None else stays
        for factor, (name, weight) in zip(self._factors, self.net.parameters.items()):
            old = factor.copy_(self.net.mask[name] & stays[name])
            for tensor in (weight.detach(), *self.net.moments[name]):
                tensor.mul_(old)
            factor.copy_(mask[name])
        self.net.mask.update(mask)

    def before(self, step: int) -> None:
        """The weights are in place."""

    def saw(self, logits: Tensor, labels: Tensor) -> None:
        """Outputs are of no interest."""

    def backward(self, step: int) -> bool:
        """What is pruned has no gradient."""
        import torch

        torch._foreach_mul_([w.grad for w in self.net.parameters.values()], self._factors)  # type: ignore[misc,arg-type]
        return True

    def updated(self, step: int) -> None:
        """Nothing changes."""

    def rest(self, step: int) -> None:
        """The network is what is handed over."""

    def tensors(self) -> dict[str, Tensor]:
        """Weights and mask say it all."""
        return {}
