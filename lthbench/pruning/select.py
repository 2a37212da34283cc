"""From scores to a mask with an exact count."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def keep_top(scores: Mapping[str, Tensor], kept: int, alive: Mapping[str, Tensor]) -> Tensors:
    """Masks (bool, True = kept) that keep exactly `kept` weights of the largest score among the alive ones.

    Of equal scores the earlier parameter and lower index stays, on every device and in every memory format.
    Raises ValueError for scores that are not finite, and for more weights than are alive.
    """
    for name, score in scores.items():
        if not score.isfinite().all():
            raise ValueError(f"scores of {name} are not finite")
    flat = torch.cat([s.contiguous().flatten() for s in scores.values()])  # (N,)
    living = torch.cat([alive[name].contiguous().flatten() for name in scores]).to(flat.device)
    available = int(living.sum())
    if not 0 <= kept <= available:
        raise ValueError(f"cannot keep {kept} of {available} weights")
    keep = torch.zeros_like(living)
    if kept:
        flat = flat.masked_fill(~living, -torch.inf)
        threshold = flat.topk(kept, sorted=False).values.min()
        keep = (flat > threshold) & living
        ties = ((flat == threshold) & living).nonzero().flatten()
        keep[ties[: kept - int(keep.sum())]] = True
    parts = keep.split([s.numel() for s in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts)}
