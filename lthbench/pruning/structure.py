"""What goes together: single weights, whole filters, or n of every m consecutive inputs.

`filter`: a channel is a filter of a convolution with its bias, its BatchNorm entries and the inputs of whatever reads
it; where a residual connection adds layers, their filters go together and are one channel. Sparsity is then the share
of the channels that can go: of C, round-half-up(s C) go, each counted once however many layers it runs through. Its
score is the mean over its filters of the sum of their weights' scores: for magnitude the L1 norm (Li et al., ICLR
2017, arXiv 1608.08710). Masks name all that goes, BatchNorm included: the masked network is the shrunk one.

`nm`: of every m consecutive inputs of an output exactly n stay (2:4, Mishra et al. 2021, arXiv 2104.08378), along the
channels for a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, later
from lthbench.pruning.allocation import Layer
from lthbench.pruning.prunable import Weight

if TYPE_CHECKING:
    from torch import Tensor, nn

STRUCTURES = {
    "weight": "single weights",
    "filter": "output channels of convolutions, with all that belongs to them",
    "nm": "n of every m consecutive inputs stay",
}
Tensors = dict[str, "Tensor"]


@dataclass(frozen=True)
class Structure(Settings):
    """`n`, `m`, and whether layers whose inputs m does not divide are left dense (`skip`), are of `nm` only; so many
    filters of each layer that stay whatever their scores (`least`), of `filter`."""

    name: str
    n: int = 0
    m: int = 0
    skip: bool = False
    least: int = later(0)

    def __post_init__(self) -> None:
        if self.name not in STRUCTURES:
            raise UserError(f"structure: unknown '{self.name}'{near(self.name, STRUCTURES)}")
        if self.least < 0:
            raise UserError(f"structure.least: {self.least} is negative")
        if self.name == "nm" and not 0 < self.n < self.m:
            raise UserError(f"structure.n, structure.m: {self.n} of {self.m} is not 0 < n < m")

    @property
    def sparsity(self) -> Fraction:
        """The share that n of m removes."""
        return 1 - Fraction(self.n, self.m)


class Filters:
    """Channels of convolutions, in layers named after the first convolution that makes them."""

    def __init__(self, net: nn.Module, shape: tuple[int, ...], found: Mapping[str, Weight]) -> None:
        import torch

        from lthbench.models.channels import trace

        if not any(w.kind == "conv" for w in found.values()):
            raise UserError("structure=filter: this network has no prunable convolutions")
        self.found, self.parameters = found, dict(net.named_parameters())
        self.channels = channels = trace(net, shape)
        made = {name: axis for name in channels.makers if (axis := channels.axes[name][0]) is not None}
        free = torch.ones(channels.count, dtype=torch.bool)
        self.filters = torch.zeros(channels.count, dtype=torch.float64)
        for name, axis in made.items():
            if name not in found or found[name].kind != "conv":
                free[axis[axis >= 0]] = False
            self.filters.index_add_(0, axis[axis >= 0], torch.ones(int((axis >= 0).sum()), dtype=torch.float64))
        self.made = {name: axis for name, axis in made.items() if name in found and found[name].kind == "conv"}
        self.units: Tensors = {}
        for name, axis in self.made.items():
            units = axis[axis >= 0].unique()
            units = units[free[units]]
            free[units] = False
            if len(units):
                self.units[name] = units
        if not self.units:
            raise UserError(f"structure=filter: no filter can go; {', '.join(channels.fixed_by)} needs every channel")

    def layers(self, alive: Tensors) -> dict[str, Layer]:
        """What an allocation needs to know: channels for weights."""
        there = self.alive(alive)
        return {name: Layer("conv", len(units), int(there[name].sum())) for name, units in self.units.items()}

    def scores(self, scores: Tensors, least: int = 0) -> Tensors:
        """The scores of channels, of those of weights; the best `least` of each layer stand above all others."""
        import torch

        total = torch.zeros(self.channels.count, dtype=torch.float64)
        for name, axis in self.made.items():
            rows = scores[name].detach().double().flatten(1).sum(1).cpu()
            total.index_add_(0, axis[axis >= 0], rows[axis >= 0])
        each = {name: (total / self.filters)[units] for name, units in self.units.items()}
        if least:
            above = 1 + 2 * max(float(values.abs().max()) for values in each.values())
            for values in each.values():
                values[values.sort(descending=True, stable=True).indices[:least]] += above
        return each

    def alive(self, mask: Tensors) -> Tensors:
        """Which channels are there: those of which anything is. Behind a layer that has lost all of its own, that is no
        filter, but a bias, a BatchNorm entry or what reads it."""
        import torch

        there = torch.zeros(self.channels.count, dtype=torch.bool)
        for name, axes in self.channels.axes.items():
            for d, axis in enumerate(axes):
                if axis is not None and name in self.parameters:
                    rows = axis >= 0
                    if name in mask:
                        rows = rows & mask[name].movedim(d, 0).reshape(len(axis), -1).any(1).cpu()
                    there[axis[rows]] = True
        return {name: there[units] for name, units in self.units.items()}

    def mask(self, chosen: Tensors, alive: Tensors) -> Tensors:
        """The mask of all that stays with the chosen channels: prunable weights, and whatever else loses something."""
        import torch

        gone = torch.zeros(self.channels.count, dtype=torch.bool)
        for name, units in self.units.items():
            gone[units[~chosen[name].cpu()]] = True
        masks = {}
        for name in {**self.found, **self.channels.axes}:
            if name not in self.parameters:
                continue
            whole = torch.ones_like(self.parameters[name], dtype=torch.bool)
            kept = whole & self.channels.rectangle(name, gone).to(whole.device) if name in self.channels.axes else whole
            if name in self.found or not kept.all():
                masks[name] = kept & alive.get(name, whole)
        return masks


def keep_n_of_m(scores: Mapping[str, Tensor], structure: Structure) -> Tensors:
    """Masks that keep the n largest scores of every m consecutive inputs; of equal ones the earlier stays.

    Weights are (out, in) or (out, in, kh, kw). Raises UserError for inputs that m does not divide, unless they are
    skipped: then the layer stays dense.
    """
    import torch

    from lthbench.pruning.select import NotFinite

    masks: Tensors = {}
    for name, score in scores.items():
        if not divided(name, score.shape, structure):
            masks[name] = torch.ones_like(score, dtype=torch.bool)
            continue
        if not score.isfinite().all():
            raise NotFinite(f"scores of {name} are not finite")
        last = score.detach().movedim(1, -1)
        ranked = last.reshape(-1, structure.m).sort(dim=1, descending=True, stable=True).indices
        kept = torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, ranked[:, : structure.n], True)
        masks[name] = kept.view(last.shape).movedim(-1, 1).contiguous()
    return masks


def divided(name: str, shape: Sequence[int], structure: Structure) -> bool:
    """Whether m divides the inputs of a layer; raises a UserError if not and it may not be skipped."""
    if shape[1] % structure.m and not structure.skip:
        raise UserError(
            f"structure=nm: {name} has {shape[1]} inputs, no multiple of {structure.m}; "
            "structure.skip=true leaves such layers dense"
        )
    return not shape[1] % structure.m


def countable(
    structure: Structure | None, net: nn.Module, shape: tuple[int, ...], found: Mapping[str, Weight]
) -> dict[str, Layer]:
    """What is shared out in each layer of a network that has lost nothing: channels for `filter`, else weights.

    A network on the meta device is enough. Raises UserError for a structure that the network cannot have.
    """
    if structure is not None and structure.name == "filter":
        units = Filters(net, shape, found).units
        return {name: Layer("conv", len(units[name]), len(units[name])) for name in units}
    if structure is not None and not [n for n, w in found.items() if divided(n, w.parameter.shape, structure)]:
        raise UserError(f"structure=nm: no layer has a multiple of {structure.m} inputs")
    sizes = {n: w.parameter.numel() for n, w in found.items()}
    return {n: Layer(w.kind, sizes[n], sizes[n], w.parameter.shape, role=w.role) for n, w in found.items()}
