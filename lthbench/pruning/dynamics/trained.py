"""What a method works on: a network in training, its mask, and how much of it shall stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

from lthbench.base.errors import UserError
from lthbench.base.seeds import derive
from lthbench.pruning.allocation import Groups, Layer, groups
from lthbench.pruning.density import Density
from lthbench.pruning.dynamics import METHODS, Sparsify

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lthbench.pruning.select import Follower
    from lthbench.training.checkpoint import Checkpoint
    from lthbench.training.loop import Dynamics, Trajectory


@dataclass
class Trained:
    """A network in training.

    weights: the prunable parameters by name. parameters: those that a mask may name, which is all where channels go.
    moments: the optimiser's tensors of each, of its shape. mask: the run's (bool, True = kept, by name), which a method
    sets. first, step: where the run began, and is. lr_factor: what base learning rates are multiplied with in a step.
    checkpoint: makes a copy of the network as it is now. stream, length: its batches, and how many it takes at most.
    """

    sparsify: Sparsify
    weights: Mapping[str, nn.Parameter]
    parameters: Mapping[str, nn.Parameter]
    moments: Mapping[str, list[Tensor]]
    mask: dict[str, Tensor]
    layers: dict[str, Layer]
    seed: int
    index: tuple[int, ...]
    first: int
    step: int
    lr_factor: Callable[[int], float]
    checkpoint: Callable[[], Checkpoint]
    stream: Any
    length: int
    _followers: dict[str, Follower] = field(default_factory=dict)

    @cached_property
    def density(self) -> Fraction:
        """The share of the prunable weights that stays in the end."""
        assert self.sparsify.density is not None
        return Density.parse(self.sparsify.density).base

    def top(
        self, scores: Mapping[str, Tensor], density: Fraction, alive: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The mask of the largest scores (of those `alive`). What is no number, in a run that diverges, counts as 0."""
        from lthbench.pruning.select import Follower, keep_top

        if density == 1 and alive is None:
            return self.everything
        chosen: dict[str, Tensor] = {}
        for names, kept in self.groups(density, alive):
            if alive is None:
                follower = self._followers.setdefault(names[0], Follower())
                chosen |= follower.keep_top({n: scores[n] for n in names}, kept)
            else:
                group = {n: scores[n].nan_to_num(0.0, 0.0, 0.0) for n in names}
                chosen |= keep_top(group, kept, {n: alive[n] for n in names})
        return {name: chosen[name] for name in self.weights}

    def groups(self, density: Fraction, alive: Mapping[str, Tensor] | None = None) -> Groups:
        """Which weights are ranked together for a density, and how many of them stay."""
        if alive is None:
            return self._groups(density)
        layers = {n: replace(layer, alive=int(alive[n].count_nonzero())) for n, layer in self.layers.items()}
        return _groups(self.sparsify, layers, density)

    @cached_property
    def _groups(self) -> Callable[[Fraction], Groups]:
        return lru_cache(maxsize=64)(partial(_groups, self.sparsify, self.layers))

    @cached_property
    def everything(self) -> dict[str, Tensor]:
        """The mask of a dense network."""
        import torch

        return {n: torch.ones(w.shape, dtype=torch.bool, device=w.device) for n, w in self.parameters.items()}

    def random(self) -> dict[str, Tensor]:
        """A random mask of the density that stays in the end."""
        import torch

        draws = self.draws("score")
        scores = {n: torch.rand(w.shape, generator=draws, device=w.device) for n, w in self.weights.items()}
        return self.top(scores, self.density)

    def draws(self, purpose: str, *step: int) -> torch.Generator:
        """A generator on the network's device, at the start of a stream of this run."""
        import torch

        device = next(iter(self.weights.values())).device
        return torch.Generator(device).manual_seed(derive(self.seed, purpose, *self.index, *step))


def dynamics(
    sparsify: Sparsify, seed: int, index: tuple[int, ...], kept: Mapping[str, Tensor] | None, run: Trajectory
) -> Dynamics:
    """What changes the mask of a run; `kept` is what it went on with when it was stopped, None: it begins."""
    from lthbench.pruning.prunable import prunable

    found = prunable(run.net, sparsify.prunable)
    weights = {name: w.parameter for name, w in found.items()}
    parameters = dict(run.net.named_parameters()) if sparsify.structure else weights
    moments = {n: [t for t in run.optimizer.state[w].values() if t.shape == w.shape] for n, w in parameters.items()}
    sizes = {n: w.parameter.numel() for n, w in found.items()}
    layers = {n: Layer(w.kind, sizes[n], sizes[n], tuple(w.parameter.shape), role=w.role) for n, w in found.items()}
    factor = run.recipe.schedule.factor
    how = (seed, index, run.first, run.step, factor, run.checkpoint, run.stream, run.length)
    net = Trained(sparsify, weights, parameters, moments, run.mask, layers, *how)
    method = sparsify.method
    if METHODS[method.name].version != method.version:
        raise UserError(f"pruner: {method.name} is of version {METHODS[method.name].version} here")
    made: Dynamics = METHODS[method.name].make(net, kept, **method.args)
    return made


def _groups(sparsify: Sparsify, layers: dict[str, Layer], density: Fraction) -> Groups:
    assert sparsify.allocation is not None
    return groups(sparsify.allocation, layers, Density(density), 1)
