"""The tensors that a state names: weights, buffers and mask, and the model they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from lthbench.models import ModelSettings, create

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A network at one moment.

    weights: parameters and buffers by state-dict name. mask: bool, True = kept, by parameter name; empty for
    a dense network. diverged_at: the step at which the loss was found not finite, if it was.
    """

    model: ModelSettings
    weights: Tensors
    mask: Tensors = field(default_factory=dict)
    diverged_at: int | None = None

    @classmethod
    def of(
        cls, model: ModelSettings, net: nn.Module, mask: Tensors, diverged_at: int | None = None, copy: bool = True
    ) -> Checkpoint:
        """What the network holds now; without `copy` its own tensors, which change when it is trained on."""
        weights = {k: v.detach().to("cpu", copy=copy) for k, v in net.state_dict().items()}
        return cls(model, weights, {k: v.cpu() for k, v in mask.items()}, diverged_at)

    @property
    def finite(self) -> bool:
        """Whether all weights are numbers; between the ends of epochs only they tell that a run has diverged."""
        return all(bool(t.isfinite().all()) for t in self.weights.values() if t.is_floating_point())

    def network(self) -> nn.Module:
        """The network itself, on the CPU."""
        net = create(self.model)
        net.load_state_dict(self.weights)
        return net

    def masked(self, mask: Tensors) -> Checkpoint:
        """This network with `mask` in place of its own: pruned weights are exactly zero.

        What stays takes its values under `weights/` in `mask`, where a criterion has changed them.
        """
        weights = self.weights | part(mask, "weights")
        mask = {name: kept for name, kept in mask.items() if not name.startswith("weights/")}
        for name, kept in mask.items():
            weights[name] = weights[name] * kept
        return Checkpoint(self.model, weights, mask, self.diverged_at)

    def pack(self) -> tuple[Tensors, dict[str, Any]]:
        """As tensors and JSON values, for the store."""
        tensors = {f"weights/{k}": v for k, v in self.weights.items()} | {f"mask/{k}": v for k, v in self.mask.items()}
        return tensors, {"model": self.model.spelled_out(), "diverged_at": self.diverged_at}

    @classmethod
    def unpack(cls, packed: tuple[Tensors, Mapping[str, Any]]) -> Checkpoint:
        """The inverse of `pack`."""
        tensors, meta = packed
        return cls(
            ModelSettings.restored(meta["model"]), part(tensors, "weights"), part(tensors, "mask"), meta["diverged_at"]
        )

    def digest(self) -> str:
        """sha256 over sorted names, dtypes and bytes of weights and buffers, -0 counted as 0."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            tensor = self.weights[name]
            if tensor.is_floating_point():
                tensor = tensor + 0.0
            digest.update(f"{name}|{tensor.dtype}|".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def part(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors below `prefix/`, by the rest of their names."""
    cut = len(prefix) + 1
    return {name[cut:]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}


def moved(start: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> tuple[float, float]:
    """Euclidean distance of tensors from those of the same names at a start, in float64, and its ratio to the norm of
    the start (0 where that is 0)."""
    squares = sum(float((t.double() - start[name].double()).square().sum()) for name, t in now.items())
    size = sum(float(t.double().square().sum()) for t in start.values())
    return squares**0.5, float((squares / size) ** 0.5) if size else 0.0
