"""Two networks: how far apart they are, and what lies on the straight line between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lthbench.training.checkpoint import Checkpoint


def between(one: Checkpoint, other: Checkpoint, alpha: float) -> Checkpoint:
    """(1 - alpha) one + alpha other, every floating-point tensor in float64; integer buffers are `one`'s."""
    weights = {}
    for name, tensor in one.weights.items():
        weights[name] = tensor
        if tensor.is_floating_point():
            moved = (1 - alpha) * tensor.double() + alpha * other.weights[name].double()
            weights[name] = moved.to(tensor.dtype)
    return Checkpoint(one.model, weights)


def distances(one: Checkpoint, other: Checkpoint) -> dict[str, float | None]:
    """L2 distance of all parameters, that over the smaller norm, and the angle between them in degrees."""
    names = [name for name, _ in one.network().named_parameters()]
    a, b = (torch.cat([c.weights[n].double().flatten() for n in names]) for c in (one, other))
    lengths, apart = (float(a.norm()), float(b.norm())), float((a - b).norm())
    if not math.isfinite(apart) or not min(lengths):
        return {"distance": None, "relative": None, "angle": None}
    cosine = 1.0 if not apart else max(-1.0, min(1.0, float(a @ b) / (lengths[0] * lengths[1])))
    return {"distance": apart, "relative": apart / min(lengths), "angle": math.degrees(math.acos(cosine))}


def barrier(values: Sequence[float | None]) -> float | None:
    """The most that the line rises above the mean of its ends; None where a value is no number."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    return max(numbers) - (numbers[0] + numbers[-1]) / 2
