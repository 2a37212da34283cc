"""Score a network and take the mask."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.attention

from lthbench.base.seeds import derive, generator
from lthbench.pruning.allocation import Allocation, Groups, Layer, groups
from lthbench.pruning.criteria import CriterionSettings, Subject, Undeclared
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable
from lthbench.pruning.scoring import Scoring, draw
from lthbench.pruning.select import NotFinite, Tensors, keep_top
from lthbench.pruning.structure import Filters, Structure, keep_n_of_m
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
    inverted: bool = False,
    structure: Structure | None = None,
) -> Tensors:
    """The mask (bool, True = kept, by parameter name) that a criterion leaves of a network, and, where the criterion
    changes what stays, the new values as `weights/NAME`.

    What the checkpoint has already lost stays lost. `initial` are the weights at initialisation, for criteria that
    look at them. `inverted`: what scores least stays. A network that has diverged is ranked with its values that are
    not finite as 0: the result is as meaningless as the network, and flagged with it. Raises ValueError for scores that
    are not finite otherwise, and for a criterion that looks at what it is not given.
    """
    scoring = scoring or Scoring()
    known = criterion.known
    if known.data and scoring.data is None:
        raise ValueError(f"criterion {known.name} looks at images: it needs scoring.data and scoring.seed")
    if known.initial and initial is None:
        raise ValueError(f"criterion {known.name} looks at the initial weights: it needs `initial`")
    net = checkpoint.network().to(getattr(torch, scoring.dtype)).train(scoring.mode == "train")
    found = prunable(net, preset)
    weights = {name: w.parameter for name, w in found.items()}
    original = {name: checkpoint.weights[name].to(w.dtype) for name, w in weights.items()}  # no copy in float32
    alive = {name: checkpoint.mask.get(name, torch.ones_like(w, dtype=torch.bool)) for name, w in weights.items()}
    layers = {
        name: Layer(
            w.kind, w.parameter.numel(), int(alive[name].sum()), tuple(w.parameter.shape),
            original[name][alive[name]] if allocation.name == "threshold" else None, w.role,
        )
        for name, w in found.items()
    }  # fmt: skip
    filters = Filters(net, checkpoint.model.shape, found) if structure and structure.name == "filter" else None
    if filters:
        alive |= checkpoint.mask  # it names biases and BatchNorm entries too
        layers = filters.layers(alive)
    diverged = checkpoint.diverged_at is not None or not checkpoint.finite
    mask, lost = alive, alive
    for number, step in enumerate(scoring.densities(density)):
        with torch.no_grad():
            for name, weight in weights.items():
                if scoring.regrow or not number or known.updates:
                    weight.copy_(original[name] * mask[name])
                else:
                    weight[lost[name]] = 0.0  # the rest is as it was: no copy of all weights a round
        batches: Any = draw(scoring, number) if known.data else Undeclared(known.name, "images", "data")
        first: Any = initial if known.initial else Undeclared(known.name, "the initial weights", "initial")
        draws: Any = Undeclared(known.name, "chance", "random")
        if criterion.seed is not None:
            draws = generator(criterion.seed, "score")
        subject = Subject(net, checkpoint.model.shape, weights, mask, original, batches, first, draws)
        scores, update = _look(subject, criterion, scoring.seed or 0, number, checkpoint.model.name)
        if inverted:
            scores = {name: -s for name, s in scores.items()}
        if diverged:
            scores = {name: s.nan_to_num(0.0, 0.0, 0.0) for name, s in scores.items()}
        pool = alive if scoring.regrow else mask
        try:
            if structure and structure.name == "nm":
                left = {n: kept & alive[n] for n, kept in keep_n_of_m(scores, structure).items()}
            elif filters:
                channels = filters.scores(scores, structure.least if structure else 0), filters.alive(pool)
                left = filters.mask(_keep(*channels, groups(allocation, layers, step, rates_applied)), alive)
            else:
                left = _keep(scores, pool, groups(allocation, layers, step, rates_applied))
        except NotFinite as error:
            narrow = scoring.dtype == "float32" and scoring != Scoring()
            more = "; pruner.dtype=float64 reaches further" if narrow else ""
            raise ValueError(f"criterion {known.name}: {error}{more}") from None
        lost = {name: mask[name] & ~left[name] for name in weights}
        mask = left
        if update is not None:
            original = dict(update(mask))
    if not known.updates:
        return mask
    return mask | {f"weights/{name}": w.to(checkpoint.weights[name].dtype) for name, w in original.items()}


def _look(subject: Subject, criterion: CriterionSettings, seed: int, number: int, model: str) -> tuple[Any, Any]:
    """Scores of round `number`, and how what stays is changed. Raises ValueError where the network cannot be scored."""
    known = criterion.known
    math_only = torch.nn.attention.sdpa_kernel([torch.nn.attention.SDPBackend.MATH])  # has second derivatives
    with math_only, torch.random.fork_rng(devices=[]):  # dropout in train mode draws from a stream of its own
        torch.manual_seed(derive(seed, "score dropout", number))
        try:
            return known.look(subject, **criterion.args)
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            raise ValueError(f"criterion {known.name} cannot score {model}: {why}") from error


def _keep(scores: Tensors, alive: Tensors, ranked_together: Groups) -> Tensors:
    """What stays of each group, in the order of the scores."""
    chosen: Tensors = {}
    for names, kept in ranked_together:
        chosen |= keep_top({n: scores[n] for n in names}, kept, {n: alive[n] for n in names})
    return {name: chosen[name] for name in scores}
