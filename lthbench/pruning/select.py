"""From scores to a mask with an exact count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Tensors = dict[str, Tensor]
SAMPLE = 2**17  # scores from which the place of the threshold is guessed


class NotFinite(ValueError):
    """Scores that cannot be ranked."""


def keep_top(scores: Mapping[str, Tensor], kept: int, alive: Mapping[str, Tensor]) -> Tensors:
    """Masks (bool, True = kept) that keep exactly `kept` weights of the largest score among the alive ones.

    Of equal scores the earlier parameter and lower index stays, on every device and in every memory format.
    Raises NotFinite for scores that are not finite, ValueError for more weights than are alive.
    """
    layers = []
    for name, score in scores.items():
        flat = score.contiguous().flatten()
        if flat.numel() and not all(map(math.isfinite, torch.stack(flat.aminmax()).tolist())):
            raise NotFinite(f"scores of {name} are not finite")
        layers.append((flat, alive[name].contiguous().flatten().to(flat.device)))
    available = sum(int(living.count_nonzero()) for _, living in layers)
    if not 0 <= kept <= available:
        raise ValueError(f"cannot keep {kept} of {available} weights")
    if not kept:
        return {name: torch.zeros_like(alive[name], device=score.device) for name, score in scores.items()}
    for low, high in (_bracket(layers, kept, available), (-math.inf, math.inf)):
        masks = [(flat > high) & living for flat, living in layers]
        near = [((flat >= low) & living & ~mask).nonzero().flatten() for (flat, living), mask in zip(layers, masks)]
        open_ = kept - sum(int(mask.count_nonzero()) for mask in masks)
        between = [flat[index] for (flat, _), index in zip(layers, near)]
        if 0 < open_ <= sum(map(len, between)):
            break
    values = torch.cat(between)
    threshold = values.kthvalue(len(values) - open_ + 1).values
    open_ -= int((values > threshold).count_nonzero())
    for mask, index, score in zip(masks, near, between):
        mask[index[score > threshold]] = True
        ties = index[score == threshold][:open_]  # of those at the threshold, the first
        mask[ties] = True
        open_ -= len(ties)
    return {name: mask.view(score.shape) for (name, score), mask in zip(scores.items(), masks)}


def _bracket(layers: list[tuple[Tensor, Tensor]], kept: int, available: int) -> tuple[float, float]:
    """Two scores between which the `kept`-th largest of the living very likely lies, from a sample (Floyd and Rivest
    1975): then only what lies there is ordered, a fifth of the time of ordering all."""
    if available <= 4 * SAMPLE:
        return -math.inf, math.inf
    step = available // SAMPLE | 1
    sample = torch.cat([flat[::step][living[::step]] for flat, living in layers]).sort(descending=True).values
    rank, margin = kept * len(sample) // available, 4 * math.isqrt(len(sample)) + 1
    high = sample[rank - margin].item() if rank > margin else math.inf
    low = sample[rank + margin].item() if rank + margin < len(sample) else -math.inf
    return low, high


class Follower:
    """`keep_top` among all weights, for scores that move a little from call to call: the same masks, sooner. It looks
    for the threshold near the last one, as far as it has lately moved. Scores that are no numbers count as 0."""

    def __init__(self) -> None:
        self.threshold, self.reach = math.nan, 0.0

    def keep_top(self, scores: Mapping[str, Tensor], kept: int) -> Tensors:
        """See the function of this name."""
        flats = [score.contiguous().flatten() for score in scores.values()]
        looked = [_look(flat, self.threshold - self.reach, self.threshold + self.reach) for flat in flats]
        values = np.concatenate([between for *_, between in looked])
        open_ = kept - sum(above for _, above, *_ in looked)
        if not (0 < open_ <= len(values) and all(math.isfinite(flat.sum().item()) for flat in flats)):
            return self._anew(scores, kept)
        threshold = np.partition(values, len(values) - open_)[len(values) - open_]
        open_ -= np.count_nonzero(values > threshold)
        for mask, _, places, between in looked:
            ties = places[between == threshold][:open_]  # of those at the threshold, the first
            mask[torch.from_numpy(np.concatenate((places[between > threshold], ties)))] = True
            open_ -= len(ties)
        self._moved(float(threshold))
        return {name: mask.view(score.shape) for (name, score), (mask, *_) in zip(scores.items(), looked)}

    def _anew(self, scores: Mapping[str, Tensor], kept: int) -> Tensors:
        """Among all scores."""
        scores = {name: score.nan_to_num(0.0, 0.0, 0.0) for name, score in scores.items()}
        alive = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
        made = keep_top(scores, kept, alive)
        self._moved(min((scores[n][mask].min().item() for n, mask in made.items() if mask.any()), default=math.nan))
        return made

    def _moved(self, threshold: float) -> None:
        """Note where the threshold is; how far it was from the last one says how far to look, for a while."""
        far = 4 * abs(threshold - self.threshold)
        self.reach = max(0.9 * self.reach, far) if math.isfinite(far) else abs(threshold) / 64
        self.threshold = threshold


def _look(flat: Tensor, low: float, high: float) -> tuple[Tensor, int, Any, Any]:
    """The mask of the scores above, their number, and the places and values of those between. On a CPU it is NumPy
    that looks, in a seventh of the time."""
    if flat.device.type == "cpu":
        values = flat.numpy()
        above = values > high
        places = np.flatnonzero((values >= low) ^ above)
        return torch.from_numpy(above), int(np.count_nonzero(above)), places, values[places]
    mask = flat > high
    index = ((flat >= low) & (flat <= high)).nonzero().flatten()
    return mask, int(mask.count_nonzero()), index.cpu().numpy(), flat[index].cpu().numpy()
