"""What the early tickets have in common: the network is trained dense until it has settled, and pruned once, there.

Every so many steps between `begin` and `end` a method looks at the network; what it sees decides whether this is the
step, and at `end` it prunes all the same. Then training goes on from the weights that were found, to its usual end; or,
with `restart`, the run is over, and the ticket is trained from there with a whole schedule of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lthbench.pruning.dynamics.trained import Trained
from lthbench.pruning.dynamics.zeroed import Zeroed

if TYPE_CHECKING:
    from torch import Tensor


class Early(Zeroed):
    """`distances`: what was seen so far, a number a look. `news` tells them (`distance`) and, at the step of the
    ticket, whether it was `drawn` by the rule or at the limit."""

    def __init__(
        self, net: Trained, kept: Mapping[str, Tensor] | None, begin: int, end: int, every: int, restart: bool
    ) -> None:
        self.begin, self.end, self.every, self.restart = begin, end, every, restart
        self.distances: list[float] = kept["distances"].tolist() if kept else []
        self.drawn = bool(kept["drawn"]) if kept else False
        super().__init__(net, kept)

    # ---- what a method decides

    def look(self) -> bool:
        """Note the present distance in `distances`, if there is one; whether the network has settled."""
        raise NotImplementedError

    def ticket(self) -> dict[str, Tensor] | None:
        """The mask that pruning the present network leaves; None: it is pruned elsewhere."""
        raise NotImplementedError

    # ---- what the loop calls

    @property
    def over(self) -> bool:  # type: ignore[override]
        """The ticket is drawn, and is to be trained by itself."""
        return self.drawn and self.restart

    def updated(self, step: int) -> None:
        """Look, every so many steps; prune when it has settled, and at the limit."""
        done = step + 1
        if self.drawn or not self.begin < done <= self.end:
            return
        if (done - self.begin) % self.every and done != self.end:
            return
        seen = len(self.distances)
        settled = self.look()
        if len(self.distances) > seen:
            self.news[done] = {"distance": self.distances[-1]}
        if settled or done == self.end:
            if (ticket := self.ticket()) is not None:
                device = {name: mask.device for name, mask in self.net.mask.items()}
                self.set(self.net.everything | {name: mask.to(device[name]) for name, mask in ticket.items()})
            self.drawn = True
            self.news.setdefault(done, {})["drawn"] = "by the rule" if settled else "at the limit"

    def tensors(self) -> dict[str, Tensor]:
        """What was seen, and whether it is over."""
        import torch

        return {"distances": torch.tensor(self.distances, dtype=torch.float64), "drawn": torch.tensor(self.drawn)}
