"""EarlyCroP (Rachwan, Zügner, Charpentier, Geisler, Ayle, Günnemann, ICML 2022, arXiv 2206.10451).

A network may be pruned when it has entered the regime in which its gradients change little. What is watched is the
relative distance of the weights from where they began, r = ||w - w0|| / ||w0||: after the first epoch in which r moves
by less than tau times its first value, what preserves the gradient flow stays, |w (Hg)| (`CroP`; GraSP's absolute score
without temperature), in steps that each halve what is missing to the sparsity, scored anew each time.

As published code has it: tau is 1 - sparsity (`tau=0`; for filters 0.9 - sparsity), w0 are the weights after the first
epoch (`reference=first`), and the ticket is then trained with a whole new schedule and the optimiser's state
(`restart`). It scores with test images; here they are training images. A filter is worth the sum of its weights'
scores; the paper takes the absolute derivative by a gate on its inputs and outputs. r is over the prunable weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.dynamics import method
from lthbench.pruning.dynamics.early import Early
from lthbench.pruning.dynamics.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor


@method("early_crop", version=1, late=True, early=True, data=True, structures=(None, "filter"))
class EarlyCrop(Early):
    """|w (Hg)|: what carries the gradient flow stays, pruned when weights have stopped moving away from their start."""

    def __init__(
        self,
        net: Trained,
        kept: Mapping[str, Tensor] | None,
        begin: int,
        end: int,
        every: int,
        tau: float,
        reference: str,
        restart: bool,
    ) -> None:
        from lthbench.training.checkpoint import part

        self.reference = part(dict(kept or {}), "reference")
        self.tau = tau or share(1 - float(net.density), net.sparsify.structure is not None)
        super().__init__(net, kept, begin, end, every, restart)
        if kept is None and reference == "start":
            self.reference = self._weights()

    def look(self) -> bool:
        """How far the weights are from their reference, and whether that has changed little."""
        from lthbench.training.checkpoint import moved

        now = self._weights()
        if not self.reference:
            self.reference = now
            return False
        self.distances.append(moved(self.reference, now)[1])
        return settled(self.distances, self.tau)

    def ticket(self) -> dict[str, Tensor]:
        """What stays of the weights or filters with the largest scores."""
        from lthbench.pruning.prune import prune

        how = self.net.sparsify
        assert how.allocation is not None and how.density is not None
        criterion = CriterionSettings.of("grasp", {"temperature": 1.0, "absolute": True}, 0)
        density, net = Density.parse(how.density), self.net.checkpoint()
        return prune(
            net, criterion, how.allocation, how.prunable, density, scoring=how.scoring, structure=how.structure
        )

    def tensors(self) -> dict[str, Tensor]:
        """The reference as well, as long as it is looked at."""
        reference = {} if self.drawn else self.reference
        return super().tensors() | {f"reference/{name}": w for name, w in reference.items()}

    def _weights(self) -> dict[str, Tensor]:
        return {name: w.detach().clone() for name, w in self.net.weights.items()}


def share(sparsity: float, filters: bool) -> float:
    """Which part of the first distance is little, as the published code has it."""
    return min(0.9 - sparsity, 0.99) if filters else 1 - sparsity


def settled(distances: list[float], tau: float) -> bool:
    """Whether the last distance differs from the one before by less than tau times the first."""
    return len(distances) > 1 and abs(distances[-1] - distances[-2]) < tau * distances[0]
