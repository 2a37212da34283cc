"""Score a network and take the mask."""

from __future__ import annotations

import torch

from lthbench.base.seeds import generator
from lthbench.pruning.allocation import Allocation, Layer, groups
from lthbench.pruning.criteria import CRITERIA, CriterionSettings, Subject
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable
from lthbench.pruning.select import Tensors, keep_top
from lthbench.training.checkpoint import Checkpoint


def prune(
    checkpoint: Checkpoint,
    criterion: CriterionSettings,
    allocation: Allocation,
    preset: str,
    density: Density | None,
    rounds: int = 1,
) -> Tensors:
    """The mask (bool, True = kept, by parameter name) that a criterion leaves of a network.

    What the checkpoint has already lost stays lost. A network that has diverged is ranked with its values that
    are not finite as 0: the result is as meaningless as the network, and flagged with it.
    """
    net = checkpoint.network()
    found = prunable(net, preset)
    alive = {
        name: checkpoint.mask.get(name, torch.ones_like(w.parameter, dtype=torch.bool)) for name, w in found.items()
    }
    draws = None if criterion.seed is None else generator(criterion.seed, "score")
    weights = {name: w.parameter for name, w in found.items()}
    scores = CRITERIA[criterion.name].score(Subject(net, weights, alive, draws), **criterion.args)
    if checkpoint.diverged_at is not None:
        scores = {name: s.nan_to_num(0.0, 0.0, 0.0) for name, s in scores.items()}
    layers = {name: Layer(w.kind, w.parameter.numel(), int(alive[name].sum())) for name, w in found.items()}
    mask: Tensors = {}
    for names, kept in groups(allocation, layers, density, rounds):
        mask |= keep_top({name: scores[name] for name in names}, kept, {name: alive[name] for name in names})
    return {name: mask[name] for name in weights}
