"""PrAC tickets (Zhang, Chen, Chen, Wang, ICML 2021, arXiv 2106.03225): iterative pruning that trains less.

A round is over when the mask that pruning would leave has settled: the share of the remaining weights in which it
differs from that of the epoch before is below epsilon for a queue of epochs, which begins when a distance has first
exceeded epsilon. The next round begins at the weights of epoch `begin` and trains on the critical images alone
(lthbench/stages/examples.py), for as many epochs fewer as those are fewer. The last ticket is trained on all.

The published code's epsilon is 0.08, the text's 0.07. Its networks are those of best validation accuracy where images
are compared; here those at the end of the round. What forgetting counts is as in Toneva et al. (ICLR 2019, arXiv
1812.05159): an image that was right in its batch and is wrong in the next epoch's; one that never was right counts.
Budgets leave out the pass over the images in which two networks are compared, once a round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics import method
from lthbench.pruning.dynamics.early import Early
from lthbench.pruning.dynamics.trained import Trained

if TYPE_CHECKING:
    from torch import Tensor

NEVER = 2**30  # forgotten so often: what never was right


@method("prac", version=1, late=True, early=True, rounds=True)
class Prac(Early):
    """|w|: in rounds, each over when its mask has settled, on the images that are forgotten or told apart."""

    def __init__(
        self,
        net: Trained,
        kept: Mapping[str, Tensor] | None,
        begin: int,
        epsilon: float,
        queue: int,
        stop: bool,
        forgotten: int,
        differing: bool,
    ) -> None:
        import torch

        self.epsilon, self.queue, self.stop = epsilon, queue, stop
        self.alive = net.everything | {name: mask.clone() for name, mask in net.mask.items()}
        self.last: Tensor | None = kept.get("mask") if kept else None
        count = len(net.stream.split.samples)
        self.forgets = kept["forgets"].clone() if kept else torch.zeros(count, dtype=torch.int64)
        self.right = kept["right"].clone() if kept else torch.zeros(count, dtype=torch.bool)
        self.learned = kept["learned"].clone() if kept else torch.zeros(count, dtype=torch.bool)
        super().__init__(net, kept, 0, net.length, net.stream.steps_per_epoch, True)

    def first(self) -> dict[str, Tensor]:
        """The ticket of the round before."""
        return dict(self.alive)

    def saw(self, logits: Tensor, labels: Tensor) -> None:
        """Count what was right the last time it was seen and is wrong now."""
        rows, right = self.net.stream.chosen.cpu(), (logits.detach().argmax(1) == labels).cpu()
        self.forgets[rows] += self.right[rows] & ~right
        self.right[rows] = right
        self.learned[rows] |= right

    def updated(self, step: int) -> None:
        """Say on how many images, when it is over."""
        drawn = self.drawn
        super().updated(step)
        if self.drawn and not drawn:
            self.news[step + 1]["images"] = len(self.forgets)

    def look(self) -> bool:
        """The share of the remaining weights in which this mask differs from the last one."""
        import torch

        scores = {name: w.detach().abs() for name, w in self.net.weights.items()}
        chosen = self.net.top(scores, self.net.density, self.alive)
        mask = torch.cat([chosen[name].flatten().cpu() for name in self.net.weights])
        if self.last is not None:
            left = sum(int(kept.count_nonzero()) for kept in self.alive.values())
            self.distances.append(int((mask != self.last).count_nonzero()) / left)
        self.last = mask
        return self.stop and settled(self.distances, self.epsilon, self.queue)

    def ticket(self) -> None:
        """None is taken here: what ends the round is pruned outside."""

    def tensors(self) -> dict[str, Tensor]:
        """The last mask, and how often each image was forgotten."""
        last = {} if self.last is None else {"mask": self.last}
        counts = {"forgets": self.forgets, "right": self.right, "learned": self.learned}
        return super().tensors() | counts | last


def settled(distances: list[float], epsilon: float, queue: int) -> bool:
    """Whether the queue is full of distances below epsilon; it begins with the first one above."""
    begin = next((i for i, distance in enumerate(distances) if distance > epsilon), len(distances))
    return len(distances) - begin >= queue and max(distances[-queue:]) < epsilon
