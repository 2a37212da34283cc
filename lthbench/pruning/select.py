"""From scores to a mask with an exact count."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
SAMPLE = 2**17  # scores from which the place of the threshold is guessed


def keep_top(scores: Mapping[str, Tensor], kept: int, alive: Mapping[str, Tensor]) -> Tensors:
    """Masks (bool, True = kept) that keep exactly `kept` weights of the largest score among the alive ones.

    Of equal scores the earlier parameter and lower index stays, on every device and in every memory format.
    Raises ValueError for scores that are not finite, and for more weights than are alive.
    """
    layers = []
    for name, score in scores.items():
        flat = score.contiguous().flatten()
        if flat.numel() and not all(map(math.isfinite, torch.stack(flat.aminmax()).tolist())):
            raise ValueError(f"scores of {name} are not finite")
        layers.append((flat, alive[name].contiguous().flatten().to(flat.device)))
    available = sum(int(living.count_nonzero()) for _, living in layers)
    if not 0 <= kept <= available:
        raise ValueError(f"cannot keep {kept} of {available} weights")
    if not kept:
        return {name: torch.zeros_like(alive[name], device=score.device) for name, score in scores.items()}
    threshold = _largest(layers, kept, available)
    masks = [(flat > threshold) & living for flat, living in layers]
    open_ = kept - sum(int(mask.count_nonzero()) for mask in masks)
    for (flat, living), mask in zip(layers, masks):  # of those at the threshold, the first
        if open_:
            ties = ((flat == threshold) & living).nonzero().flatten()[:open_]
            mask[ties] = True
            open_ -= len(ties)
    return {name: mask.view(score.shape) for (name, score), mask in zip(scores.items(), masks)}


def _largest(layers: list[tuple[Tensor, Tensor]], kept: int, available: int) -> float:
    """The `kept`-th largest score among the living.

    Of many, a sample says between which two values it lies, and only what lies there is ordered (Floyd and Rivest
    1975): no copy of all scores, and a fifth of the time of ordering them. Where the sample was wrong, all are.
    """
    if available > 4 * SAMPLE:
        step = available // SAMPLE | 1
        sample = torch.cat([flat[::step][living[::step]] for flat, living in layers]).sort(descending=True).values
        rank, margin = kept * len(sample) // available, 4 * math.isqrt(len(sample)) + 1
        high, low = sample[max(0, rank - margin)], sample[min(len(sample) - 1, rank + margin)]
        above = sum(int(((flat > high) & living).count_nonzero()) for flat, living in layers)
        between = torch.cat([flat[(flat <= high) & (flat >= low) & living] for flat, living in layers])
        if above < kept <= above + len(between):
            return between.kthvalue(len(between) - (kept - above) + 1).values.item()
    values = torch.cat([flat[living] for flat, living in layers])
    return values.kthvalue(available - kept + 1).values.item()
