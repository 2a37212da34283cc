"""The mean of networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lthbench.training.checkpoint import Checkpoint, Tensors


def mean(members: Sequence[Checkpoint], union: bool = False) -> Checkpoint:
    """The mean of all floating-point tensors, in float64; integer buffers are the first member's.

    m copies of one network give that network back, bit for bit. Raises ValueError naming what does not fit: other
    names or shapes, or other masks unless `union` keeps what any of them keeps (denser than each).
    """
    first = members[0]
    for other in members[1:]:
        _fits(first, other)
    weights: Tensors = {}
    for name, tensor in first.weights.items():
        weights[name] = tensor
        if tensor.is_floating_point():
            total = torch.zeros(tensor.shape, dtype=torch.float64)
            for member in members:
                total += member.weights[name].double()
            weights[name] = (total / len(members)).to(tensor.dtype)
    mask = first.mask
    if any(not _same(mask, other.mask) for other in members[1:]):
        if not union:
            raise ValueError(f"networks with different masks are not averaged: {_differing(members)}")
        mask = _union(members)
    made = Checkpoint(first.model, weights, mask, None).masked(mask)
    diverged = [m.diverged_at for m in members if m.diverged_at is not None]
    return Checkpoint(made.model, made.weights, mask, min(diverged, default=None))


def _fits(one: Checkpoint, other: Checkpoint) -> None:
    for name in sorted(one.weights.keys() | other.weights.keys()):
        a, b = one.weights.get(name), other.weights.get(name)
        if a is None or b is None:
            raise ValueError(f"networks do not fit: '{name}' is in one of them only")
        if a.shape != b.shape:
            raise ValueError(f"networks do not fit: '{name}' is {tuple(a.shape)} in one, {tuple(b.shape)} in another")


def _same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _differing(members: Sequence[Checkpoint]) -> str:
    """The first parameter whose mask differs, and by how many entries."""
    first = members[0].mask
    for member in members[1:]:
        for name in sorted(first.keys() | member.mask.keys()):
            if name not in first or name not in member.mask:
                return f"'{name}' is masked in one of them only"
            if differ := int((first[name] != member.mask[name]).sum()):
                return f"'{name}' differs in {differ} places"
    return ""


def _union(members: Sequence[Checkpoint]) -> Tensors:
    """What any mask keeps; a parameter that one network has unmasked is kept whole."""
    everywhere = set(members[0].mask).intersection(*(m.mask for m in members))
    return {name: torch.stack([m.mask[name] for m in members]).any(0) for name in members[0].mask if name in everywhere}
