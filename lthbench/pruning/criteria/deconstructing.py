"""The mask criteria of "Deconstructing Lottery Tickets" (Zhou et al., NeurIPS 2019, arXiv 1905.01067).

They look at the initial weights wi and the trained weights wf; `large_final` is `magnitude`, and `random` is its own
file. The paper ranks layer by layer (allocation=uniform or by_kind) and prunes in rounds. Deviation: for the two joint
criteria the published code looks for one percentile of both magnitudes and meets the count only about; here the score
is the smaller of two ranks in the layer, which keeps the same weights at an exact count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lthbench.pruning.criteria import Subject, criterion

if TYPE_CHECKING:
    from torch import Tensor

Scores = dict[str, "Tensor"]


def _both(net: Subject) -> dict[str, tuple[Tensor, Tensor]]:
    """Initial and trained weights by name."""
    assert net.initial is not None
    return {name: (net.initial[name].to(w.dtype), w.detach()) for name, w in net.weights.items()}


@criterion("large_final", version=1)
def large_final(net: Subject) -> Scores:
    """|wf|: the largest trained weights stay."""
    return {name: w.detach().abs() for name, w in net.weights.items()}


@criterion("small_final", version=1)
def small_final(net: Subject) -> Scores:
    """-|wf|: the smallest trained weights stay."""
    return {name: -w.detach().abs() for name, w in net.weights.items()}


@criterion("large_init", version=1, initial=True)
def large_init(net: Subject) -> Scores:
    """|wi|: the largest initial weights stay."""
    return {name: wi.abs() for name, (wi, _) in _both(net).items()}


@criterion("small_init", version=1, initial=True)
def small_init(net: Subject) -> Scores:
    """-|wi|: the smallest initial weights stay."""
    return {name: -wi.abs() for name, (wi, _) in _both(net).items()}


@criterion("magnitude_increase", version=1, initial=True)
def magnitude_increase(net: Subject) -> Scores:
    """|wf| - |wi|: the weights that training has made larger stay."""
    return {name: wf.abs() - wi.abs() for name, (wi, wf) in _both(net).items()}


@criterion("magnitude_of_change", version=1, initial=True)
def magnitude_of_change(net: Subject) -> Scores:
    """|wf - wi|: the weights that training has moved most stay (`movement` in the paper)."""
    return {name: (wf - wi).abs() for name, (wi, wf) in _both(net).items()}


@criterion("large_init_large_final", version=1, initial=True)
def large_init_large_final(net: Subject) -> Scores:
    """min(rank |wi|, rank |wf|): weights that are large both before and after training stay."""
    return {name: _joint(wi.abs(), wf.abs(), net.mask[name]) for name, (wi, wf) in _both(net).items()}


@criterion("small_init_small_final", version=1, initial=True)
def small_init_small_final(net: Subject) -> Scores:
    """min(rank -|wi|, rank -|wf|): weights that are small both before and after training stay."""
    return {name: _joint(-wi.abs(), -wf.abs(), net.mask[name]) for name, (wi, wf) in _both(net).items()}


def _joint(one: Tensor, other: Tensor, alive: Tensor) -> Tensor:
    """The smaller of both ranks among the layer's alive weights, in (0, 1]; 0 for the others."""
    scores = one.new_zeros(one.shape)
    scores[alive] = _rank(one[alive]).minimum(_rank(other[alive]))
    return scores


def _rank(values: Tensor) -> Tensor:
    """(n,) -> rank / n: 1 for the largest; of equal values the earlier ranks higher."""
    import torch

    order = values.argsort(descending=True, stable=True)
    ranks = torch.empty_like(values)
    ranks[order] = torch.arange(len(values), 0, -1, dtype=values.dtype) / max(1, len(values))
    return ranks
