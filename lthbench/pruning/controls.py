"""What a control makes of a ticket: other positions, other initial values, other fates of what is pruned.

Positions (Frankle et al. 2021, arXiv 2009.08576; Su et al. 2020, arXiv 2009.11094); initial values of what is kept, and
fates of what is not, the mask-1 and mask-0 actions of Zhou et al. 2019 (arXiv 1905.01067). All work layer by layer and
draw from the stream (seed, control NAME, layer); what is not pruned (biases, BatchNorm) stays as it is.
"""

from __future__ import annotations

import torch

from lthbench.base.seeds import generator
from lthbench.pruning.select import keep_top
from lthbench.training.checkpoint import Checkpoint, Tensors


def other_positions(name: str, mask: Tensors, seed: int) -> Tensors:
    """`shuffle`: the mask's entries in another order. `random`: as many random positions, whatever the mask was."""
    found: Tensors = {}
    for i, (layer, kept) in enumerate(mask.items()):
        draws = generator(seed, f"control {name}", i)
        if name == "shuffle":
            found[layer] = kept.flatten()[torch.randperm(kept.numel(), generator=draws)].view_as(kept)
        else:
            scores = {layer: torch.rand(kept.shape, generator=draws)}
            found |= keep_top(scores, int(kept.sum()), {layer: torch.ones_like(kept)})
    return found


def other_values(name: str, start: Checkpoint, mask: Tensors, seed: int | None, fresh: Tensors) -> Tensors:
    """Initial values by `name`; with `_signed`, each position keeps the sign of its own initial value.

    `reinit`: `fresh` ones. `reshuffle`: those that are kept, in another order. `constant`: the standard deviation of
    the layer's initial values, with the signs of those that are kept, in another order.
    """
    weights, action = dict(start.weights | fresh), name.removesuffix("_signed")
    for i, (layer, kept) in enumerate(mask.items()):
        if kept.dim() == 1:  # a mask of filters names their biases and BatchNorm entries too
            continue
        first = start.weights[layer]
        values = first[kept]
        if action != "reinit":
            values = values if action == "reshuffle" else values.sign() * first.std(correction=0)
            if name != "constant_signed":
                assert seed is not None
                values = values[torch.randperm(len(values), generator=generator(seed, f"control {name}", i))]
            weights[layer] = first.clone()
            weights[layer][kept] = values
        if name.endswith("_signed"):
            weights[layer] = weights[layer].abs() * first.sign()
    return weights


def frozen(name: str, start: Checkpoint, mask: Tensors, trained: Checkpoint | None) -> Checkpoint:
    """What is pruned stays at its value in `start` and is not trained; `freeze_zero`: what training has moved towards
    zero is zero. The network computes with these values: its mask says which weights were trained."""
    weights = dict(start.weights)
    if trained is not None:
        for layer, kept in mask.items():
            shrunk = trained.weights[layer].abs() < start.weights[layer].abs()
            weights[layer] = weights[layer].masked_fill(shrunk & ~kept, 0.0)
    return Checkpoint(start.model, weights, mask, start.diverged_at)
