"""Early-Bird tickets (You et al., ICLR 2020, arXiv 1909.11957).

While the network is trained with an L1 penalty on BatchNorm's scales (`train.l1_scales`), each epoch it is asked which
channels would stay, were it pruned by the scales |gamma| of all layers together. The distance of two masks is the share
of the filters in which they differ. When the last five distances between the masks of consecutive epochs are all below
0.1, the channels are pruned and training goes on with what stays.

The published code does otherwise: it compares the newest mask with each of the four before it, none farther than 0.1
(`compare=all`, a queue of five masks), and begins with the mask of the untrained network (`untrained`), whose scales
are all equal: there it keeps no channel, here the first ones stay. It may prune all of a layer; here one filter of each
always stays. With `restart` and control=reinit the paper's reinitialised tickets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.dynamics import method
from lthbench.pruning.dynamics.early import Early
from lthbench.pruning.dynamics.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor


@method("early_bird", version=1, late=True, early=True, structures=("filter",))
class EarlyBird(Early):
    """|gamma| of BatchNorm: channels are pruned when the mask has stayed nearly the same for some epochs."""

    def __init__(
        self,
        net: Trained,
        kept: Mapping[str, Tensor] | None,
        begin: int,
        end: int,
        every: int,
        epsilon: float,
        queue: int,
        compare: str,
        untrained: bool,
        restart: bool,
    ) -> None:
        self.epsilon, self.queue, self.compare = epsilon, queue, compare
        self.masks: list[Tensor] = list(kept["masks"]) if kept else []
        super().__init__(net, kept, begin, end, every, restart)
        if kept is None and untrained:
            self.masks.append(self._filters())

    def look(self) -> bool:
        """The distance of this mask to the last one, or to the farthest in the queue."""
        new = self._filters()
        apart = [distance(new, mask) for mask in self.masks]
        if apart:
            self.distances.append(max(apart))
        before = 1 if self.compare == "previous" else self.queue - 1
        full = len(self.masks) == before
        self.masks = [*self.masks, new][full:]
        if self.compare == "all":
            return full and max(apart, default=0.0) <= self.epsilon
        return len(self.distances) >= self.queue and max(self.distances[-self.queue :]) < self.epsilon

    def ticket(self) -> dict[str, Tensor]:
        """What stays of the channels with the largest scales."""
        from lthbench.pruning.prune import prune

        how = self.net.sparsify
        assert how.allocation is not None and how.structure is not None and how.density is not None
        criterion, structure = CriterionSettings.of("bn_scale", {}, 0), replace(how.structure, least=1)
        density = Density.parse(how.density)
        return prune(self.net.checkpoint(), criterion, how.allocation, how.prunable, density, structure=structure)

    def tensors(self) -> dict[str, Tensor]:
        """The queue as well."""
        import torch

        none = torch.zeros(0, dtype=torch.bool)
        return super().tensors() | {"masks": torch.stack(self.masks) if self.masks else none}

    def _filters(self) -> Tensor:
        """Which filters would stay, those of all convolutions in one row."""
        import torch

        mask = self.ticket()
        return torch.cat([mask[n].flatten(1).any(1).cpu() for n, w in self.net.weights.items() if w.dim() == 4])


def distance(one: Tensor, other: Tensor) -> float:
    """The share of entries in which two masks differ."""
    return int((one != other).sum()) / len(one)
