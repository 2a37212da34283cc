"""Score a network and take the mask."""

from __future__ import annotations

from typing import Any

import torch

from lthbench.base.seeds import derive, generator
from lthbench.pruning.allocation import Allocation, Layer, groups
from lthbench.pruning.criteria import CriterionSettings, Subject, Undeclared
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable
from lthbench.pruning.scoring import Scoring, draw
from lthbench.pruning.select import Tensors, keep_top
from lthbench.training.checkpoint import Checkpoint


def prune(
    checkpoint: Checkpoint,
    criterion: CriterionSettings,
    allocation: Allocation,
    preset: str,
    density: Density | None,
    rates_applied: int = 1,
    scoring: Scoring | None = None,
    initial: Tensors | None = None,
) -> Tensors:
    """The mask (bool, True = kept, by parameter name) that a criterion leaves of a network.

    What the checkpoint has already lost stays lost. `initial` are the weights at initialisation, for criteria that
    look at them. A network that has diverged is ranked with its values that are not finite as 0: the result is as
    meaningless as the network, and flagged with it.
    """
    scoring = scoring or Scoring()
    net = checkpoint.network().to(getattr(torch, scoring.dtype)).train(scoring.mode == "train")
    found = prunable(net, preset)
    weights = {name: w.parameter for name, w in found.items()}
    original = {name: checkpoint.weights[name].to(w.dtype) for name, w in weights.items()}  # no copy in float32
    alive = {name: checkpoint.mask.get(name, torch.ones_like(w, dtype=torch.bool)) for name, w in weights.items()}
    layers = {name: Layer(w.kind, w.parameter.numel(), int(alive[name].sum())) for name, w in found.items()}
    mask = alive
    for number, step in enumerate(scoring.densities(density)):
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(original[name] * mask[name])
        known = criterion.known
        batches: Any = draw(scoring, number) if known.data else Undeclared(known.name, "images", "data")
        first: Any = initial if known.initial else Undeclared(known.name, "the initial weights", "initial")
        draws: Any = Undeclared(known.name, "chance", "random")
        if criterion.seed is not None:
            draws = generator(criterion.seed, "score")
        subject = Subject(net, checkpoint.model.shape, weights, mask, original, batches, first, draws)
        with torch.random.fork_rng(devices=[]):  # dropout in train mode draws from a stream of its own
            torch.manual_seed(derive(scoring.seed or 0, "score dropout", number))
            scores = known.score(subject, **criterion.args)
        for name, weight in weights.items():
            if name not in scores or scores[name].shape != weight.shape:
                raise ValueError(f"criterion {known.name} gives no score of shape {tuple(weight.shape)} for {name}")
        if checkpoint.diverged_at is not None or not checkpoint.finite:
            scores = {name: s.nan_to_num(0.0, 0.0, 0.0) for name, s in scores.items()}
        pool = alive if scoring.regrow else mask
        chosen: Tensors = {}
        for names, kept in groups(allocation, layers, step, rates_applied):
            chosen |= keep_top({n: scores[n] for n in names}, kept, {n: pool[n] for n in names})
        mask = {name: chosen[name] for name in weights}
    return mask
