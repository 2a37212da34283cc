"""What the methods have in common that train scores: the network computes with W' = W g(S), gates g of the scores S.

Gradients go straight through the gates (Bengio et al. 2013, arXiv 1308.3432): dL/dS = dL/dW' W dg/dS, with a derivative
that each method chooses, and dL/dW = dL/dW' g. Weights stay dense while they are trained, and are exact in what is
handed over: between two calls of the loop the network holds W' and the run's mask, `dense` the weights themselves.

Scores have an optimiser and a learning rate of their own, which follows the schedule of the weights' (as in Sanh et
al.'s code); `train.clip` bounds the weights' gradients alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lthbench.pruning.dynamics import METHODS
from lthbench.pruning.dynamics.trained import Trained
from lthbench.training.recipe import LrSchedule, Recipe

if TYPE_CHECKING:
    from torch import Tensor

OPTIMIZERS = {
    "adam": Recipe("adam", 1.0, 1, LrSchedule("constant")),
    "sgd": Recipe("sgd", 1.0, 1, LrSchedule("constant"), momentum=0.9),
}


class Scored:
    """Scores and gates, one each for every prunable weight; lists are in the order of the weights."""

    over = False

    def __init__(
        self, net: Trained, kept: Mapping[str, Tensor] | None, optimizer: str, lr: float, decay: float = 0.0
    ) -> None:
        import torch

        from lthbench.training.checkpoint import part
        from lthbench.training.loop import Update, like, optimizer_of

        self.news: dict[int, dict[str, Any]] = {}
        self.net, self.lr, self.frozen = net, lr, METHODS[net.sparsify.method.name].frozen
        self.parameters = list(net.weights.values())
        dense, scores = (part(dict(kept or {}), what) for what in ("dense", "score"))
        if kept is None:
            dense = self.weights()
            scores = self.initial()
        with torch.no_grad():
            self.dense = [like(p, dense[n]) for n, p in net.weights.items()]
            self.scores = [torch.nn.Parameter(like(p, scores[n])) for n, p in net.weights.items()]
        self.seen, self.gates = ([torch.empty_like(t) for t in self.dense] for _ in range(2))
        for score in self.scores:
            score.grad = torch.zeros_like(score)
        how = replace(OPTIMIZERS[optimizer], weight_decay=decay)
        self._optimizer = optimizer_of(self.scores, how)
        self._update = Update(self._optimizer, how)
        with torch.no_grad():
            for name, score in zip(net.weights, self.scores):
                for key, value in part(dict(kept or {}), f"moment/{name}").items():
                    self._optimizer.state[score][key].copy_(value)
        self.rest(net.step)

    # ---- what a method decides

    def weights(self) -> dict[str, Tensor]:
        """The weights of the beginning: those of the network."""
        return {name: p.detach() for name, p in self.net.weights.items()}

    def initial(self) -> dict[str, Tensor]:
        """The scores of the beginning: 0."""
        import torch

        return {name: torch.zeros_like(p) for name, p in self.net.weights.items()}

    def open(self, step: int) -> None:
        """Set `gates` to those that the network computes with in a step."""
        raise NotImplementedError

    def slope(self, step: int, through: list[Tensor]) -> None:
        """Make of dL/dg, in place, the gradient of the scores."""

    def final(self, step: int) -> None:
        """Set `gates` to those of the network that is handed over after `step` steps."""
        self.open(step)

    # ---- what the loop calls

    def before(self, step: int) -> None:
        """The network computes with weights behind gates."""
        self.open(step)
        self._mask()

    def saw(self, logits: Tensor, labels: Tensor) -> None:
        """Outputs are of no interest."""

    def backward(self, step: int) -> bool:
        """Gradients of the scores, and those of the weights themselves, which take their place."""
        import torch

        grads = [p.grad for p in self.parameters]
        through = [s.grad for s in self.scores]
        for grad, dense, into in zip(grads, self.dense, through):
            torch.mul(grad, dense, out=into)  # type: ignore[arg-type]
        self.slope(step, through)  # type: ignore[arg-type]
        if self.frozen:
            return False
        torch._foreach_mul_(grads, self.gates)  # type: ignore[arg-type]
        self._show(self.dense)
        return True

    def updated(self, step: int) -> None:
        """The scores move too."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr * self.net.lr_factor(step)
        self._update()

    def rest(self, step: int) -> None:
        """The network as it is handed over; its mask is what the gates leave open."""
        self.final(step)
        self._mask()
        self.net.mask.update({name: gate != 0 for name, gate in zip(self.net.weights, self.gates)})

    def tensors(self) -> dict[str, Tensor]:
        """Dense weights, scores, and the scores' moments."""
        found: dict[str, Tensor] = {}
        for name, dense, score in zip(self.net.weights, self.dense, self.scores):
            found |= {f"dense/{name}": dense, f"score/{name}": score}
            found |= {f"moment/{name}/{key}": value for key, value in self._optimizer.state[score].items()}
        return found

    def put(self, mask: Mapping[str, Tensor]) -> None:
        """Open the gates where a mask is."""
        import torch

        for gate, name in zip(self.gates, self.net.weights):
            gate.copy_(mask[name].view(torch.uint8))  # bools take eight times as long

    def _mask(self) -> None:
        """W' = W g."""
        import torch

        for dense, gate, seen in zip(self.dense, self.gates, self.seen):
            torch.mul(dense, gate, out=seen)
        self._show(self.seen)

    def _show(self, tensors: list[Tensor]) -> None:
        """Make these the values of the network's parameters; nothing is copied."""
        for parameter, tensor in zip(self.parameters, tensors):
            parameter.data = tensor

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Tensors by the names of their weights."""
        return dict(zip(self.net.weights, tensors))
