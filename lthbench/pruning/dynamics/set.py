"""SET: sparse evolutionary training (Mocanu et al., Nature Communications 2018, arXiv 1707.04780).

The network is sparse from the first step on, at first with random weights, as many in each layer throughout
(`allocation=erk`; the paper's densities are in proportion to (n_in + n_out) / (n_in n_out), which for linear layers
is the same). After every epoch but the last the share `fraction` of each layer's positive weights that is closest to
zero goes, and of its negative ones; as many random ones come, from zero. What is exactly zero goes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics import method
from lthbench.pruning.dynamics.trained import Trained
from lthbench.pruning.dynamics.zeroed import Zeroed

if TYPE_CHECKING:
    from torch import Tensor


@method("set", version=1, settles=True)
class Set(Zeroed):
    """|w| among the weights of one sign says what goes; chance what comes in its place, every so many steps."""

    def __init__(
        self, net: Trained, kept: Mapping[str, Tensor] | None, begin: int, end: int, every: int, fraction: float
    ) -> None:
        self.begin, self.end, self.every, self.fraction = begin, end, every, fraction
        super().__init__(net, kept)

    def first(self) -> dict[str, Tensor]:
        """Random weights."""
        return self.net.random()

    def updated(self, step: int) -> None:
        """Let weights go, and others come."""
        done = step + 1
        if not (self.begin < done < self.end and (done - self.begin) % self.every == 0):
            return
        import torch

        from lthbench.pruning.select import keep_top

        draws = self.net.draws("grow", done)
        stays, mask = {}, {}
        for name, weight in self.net.weights.items():
            there, size = self.net.mask[name], weight.detach().nan_to_num(0.0, 0.0, 0.0)
            if bool(there.all()):  # nothing could come in its place
                stays[name] = mask[name] = there
                continue
            kept = torch.zeros_like(there)
            for side in (1, -1):
                pool = there & (size * side > 0)
                count = int(pool.count_nonzero())
                kept |= keep_top({name: size * side}, count - int(self.fraction * count), {name: pool})[name]
            chance = torch.rand(weight.shape, generator=draws, device=weight.device)
            goes = int(there.count_nonzero()) - int(kept.count_nonzero())
            stays[name] = kept
            mask[name] = kept | keep_top({name: chance}, goes, {name: ~kept})[name]
        self.set(mask, stays)
