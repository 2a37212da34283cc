"""Shared weights: the k-means of a layer's weights, and training that moves the shared values.

Han et al. 2016 (arXiv 1510.00149), section 3. In one dimension clusters are intervals, so that a round of Lloyd's
algorithm on sorted weights is a binary search: millions of weights take no longer than sorting them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lthbench.base.errors import UserError
from lthbench.base.seeds import derive
from lthbench.models import ModelSettings, create
from lthbench.pruning.prunable import Weight, prunable
from lthbench.training.checkpoint import Checkpoint, Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from lthbench.training.loop import Trajectory

    Values = NDArray[np.float64]


def initial(values: Values, clusters: int, how: str, seed: int | None = None) -> Values:
    """Where k-means begins (section 3.2): `linear` between the extremes, at equal steps of the cumulative `density`,
    or at `random` weights (Forgy), drawn by seed without replacement. Ascending."""
    if how == "linear":
        return np.linspace(values.min(), values.max(), clusters)
    if how == "density":
        return np.quantile(values, (np.arange(clusters) + 0.5) / clusters)
    assert seed is not None
    return np.sort(np.random.default_rng(seed).choice(values, clusters, replace=False))


def kmeans(values: Values, centres: Values, iterations: int) -> Values:
    """The centres, ascending, that Lloyd's algorithm finds from ascending ones in at most so many rounds.

    A value midway between two centres belongs to the upper one; a centre without values stays where it is.
    """
    ordered = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(iterations):
        inner = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        ends = np.concatenate([[0], inner, [len(ordered)]])
        counts = np.diff(ends)
        moved = np.where(counts > 0, np.diff(sums[ends]) / np.maximum(counts, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = np.maximum.accumulate(moved)  # rounding of the sums must not reorder them
    return centres


def assigned(values: Values, centres: Values) -> NDArray[np.int64]:
    """The number of the nearest centre of each value, as `kmeans` counts."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values, side="right")


def clusters(bits: int) -> int:
    """How many shared weights codes of so many bits tell apart: one code is the zero that pads gaps."""
    return 2**bits - 1


def shared(net: Checkpoint, bits: Mapping[str, int], how: str, iterations: int, seed: int | None) -> Checkpoint:
    """The network whose convolutions and linear layers have the weights that are kept replaced by their centre's.

    `bits` is by layer kind, `conv` and `linear`. Raises UserError for a layer with fewer weights than clusters, and
    for a network that diverged.
    """
    if not net.finite:
        raise UserError("compress=deep: training diverged, the weights are no numbers")
    weights = dict(net.weights)
    for number, (name, layer) in enumerate(prunable(net.network(), "weights").items()):
        kept = net.mask.get(name, torch.ones(weights[name].shape, dtype=torch.bool))
        values = weights[name][kept].numpy().astype(np.float64)
        if not len(values):
            continue
        many = clusters(bits[coded(layer)])
        _check(name, many, len(values))
        draws = None if seed is None else derive(seed, "codebook", number)
        centres = kmeans(values, initial(values, many, how, draws), iterations)
        weights[name] = torch.zeros_like(weights[name])
        weights[name][kept] = torch.from_numpy(centres.astype(np.float32)[assigned(values, centres)])
    return Checkpoint(net.model, weights, net.mask, net.diverged_at)


def enough(model: ModelSettings, bits: Mapping[str, int]) -> None:
    """Raise a UserError for a layer of a network that has fewer weights than clusters, before anything is pruned."""
    with torch.device("meta"):
        net = create(model)
    for name, layer in prunable(net, "weights").items():
        _check(name, clusters(bits[coded(layer)]), layer.parameter.numel())


def coded(layer: Weight) -> str:
    """The kind by which a layer's bits are told: the output layer is linear."""
    return "conv" if layer.kind == "conv" else "linear"


def _check(name: str, many: int, weights: int) -> None:
    if many > weights:
        raise UserError(
            f"compress: {many} clusters for the {weights} weights of '{name}'; "
            "say fewer bits, compress.conv_bits, compress.linear_bits"
        )


class Tied:
    """Weights of one value in a layer stay of one value: each is moved by the gradient of the shared value, which is
    the sum of theirs (section 3.3). To the loop that is what changes a mask is to it (`Dynamics`).

    The first weight of a cluster carries the optimiser's state that counts; the others take its value, so that equal
    weights are equal to the bit whatever a kernel does at the end of an array.
    """

    over = False

    def __init__(self, kept: Mapping[str, Tensor] | None, run: Trajectory) -> None:
        self.news: dict[int, dict[str, Any]] = {}
        self._layers = []
        for name, layer in prunable(run.net, "weights").items():
            weight = layer.parameter
            flat = weight.detach().reshape(-1)
            where = torch.arange(flat.numel(), device=flat.device)
            if name in run.mask:
                where = run.mask[name].reshape(-1).nonzero()[:, 0]
            if kept is None:
                codes = flat[where].unique(return_inverse=True)[1]
            else:
                codes = kept[name].to(flat.device, torch.int64)
            first = torch.full((int(codes.max()) + 1 if len(codes) else 0,), len(where), device=flat.device)
            first = first.scatter_reduce(0, codes, torch.arange(len(where), device=flat.device), "amin")
            self._layers.append((name, weight, where, codes, where[first]))

    def before(self, step: int) -> None:
        """The weights are in place."""

    def saw(self, logits: Tensor, labels: Tensor) -> None:
        """Nothing is looked for."""

    @torch.no_grad()
    def backward(self, step: int) -> bool:
        """Sum gradients by cluster; what is pruned has none."""
        for _, weight, where, codes, first in self._layers:
            assert weight.grad is not None
            of_each = weight.grad.reshape(-1)[where]
            sums = torch.zeros(len(first), device=where.device, dtype=of_each.dtype).index_add_(0, codes, of_each)
            weight.grad.copy_(_spread(sums[codes], where, weight))
        return True

    @torch.no_grad()
    def updated(self, step: int) -> None:
        """Give all of a cluster the value of its first."""
        for _, weight, where, codes, first in self._layers:
            weight.copy_(_spread(weight.reshape(-1)[first][codes], where, weight))

    def rest(self, step: int) -> None:
        """The network is what is handed over."""

    def tensors(self) -> Tensors:
        """Which weights belong together, also where two clusters have met."""
        return {name: codes.to(torch.int16) for name, _, _, codes, _ in self._layers}


def _spread(values: Tensor, where: Tensor, weight: Tensor) -> Tensor:
    """Values at places of a layer, zero elsewhere; places count row by row, whatever the memory format."""
    made = torch.zeros(weight.numel(), device=weight.device, dtype=values.dtype)
    made[where] = values
    return made.view(weight.shape)
