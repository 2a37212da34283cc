"""Batches on the device: uint8 images in memory, gathered, augmented and normalised a batch at a time.

Image folders, which are not held in memory, answer to the same calls (lthbench/data/images.py).
A draw of augmentation is an integer hash of (stream, epoch, sample, purpose): the same bits on every device,
for any batch size and wherever a run was resumed. Images are (N, H, W, C) in memory, so that a batch seen as
(B, C, H, W) is channels-last without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from lthbench.base.seeds import derive, generator
from lthbench.data.read import load
from lthbench.data.sets import Augment, DataSettings, Normalise

READY_BYTES = 2**30  # data without augmentation is normalised once if it fits: the same bits, sooner
_WORD = 0xFFFFFFFF


class Stream(Protocol):
    """What training asks of its data: the batches of a run, by absolute step."""

    steps_per_epoch: int
    seed: int
    index: tuple[int, ...]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 (B, C, H, W), channels-last, and labels int64 (B,) of an absolute step."""


class Split:
    """Images uint8 (N, H, W, C) and labels int64 (N,) on a device, with each sample's number in the data set."""

    def __init__(self, x: Tensor, y: Tensor, samples: Tensor, normalise: Normalise) -> None:
        self.x, self.y, self.samples, self.normalise = x, y, samples, normalise
        self._ready: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def part(self, rows: Tensor) -> Split:
        """These rows alone, which keep their numbers."""
        rows = rows.to(self.y.device)
        return Split(self.x[rows], self.y[rows], self.samples[rows], self.normalise)

    def batch(self, index: Tensor | slice) -> Tensor:
        """Normalised float32 images (B, C, H, W), channels-last, unaugmented."""
        if self._ready is None and self.x.numel() * 4 <= READY_BYTES:
            self._ready = normalised(self.x, self.normalise)
        if self._ready is None:
            return normalised(self.x[index], self.normalise).permute(0, 3, 1, 2)
        chosen = self._ready[index] if isinstance(index, slice) else self._ready.index_select(0, index)
        return chosen.permute(0, 3, 1, 2)

    def batches(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """All images in their order, as `batch` gives them, at most `size` at a time."""
        for begin in range(0, len(self), size):
            rows = slice(begin, begin + size)
            yield rows, self.batch(rows)

    def stream(self, augment: Augment, size: int, steps_per_epoch: int, seed: int, index: tuple[int, ...]) -> Stream:
        """The batches of a training run on this split."""
        return TrainingStream(self, augment, size, steps_per_epoch, seed, index)


@lru_cache(maxsize=6)
def split(data: DataSettings, name: str, device: str = "cpu") -> Split:
    """The split `train`, `val` or `test` of a data set on a device, kept for the next caller."""
    if data.streamed:
        from lthbench.data.images import folder_split

        return folder_split(data, name, device)
    arrays = load(data)
    if name == "test":
        x, y = torch.from_numpy(arrays.x_test), torch.from_numpy(arrays.y_test)
        samples = torch.arange(len(y))
    else:
        x, y = torch.from_numpy(arrays.x_train), torch.from_numpy(arrays.y_train)
        samples = held(data, name)
        x, y = x[samples], y[samples]
    return Split(x.to(device), y.long().to(device), samples.to(device), data.normalise)


def held(data: DataSettings, name: str) -> Tensor:
    """The numbers of the training images that are trained on (`train`) or held out (`val`), in their order."""
    order = torch.randperm(data.samples, generator=generator(data.split_seed, "split"))
    train = order[data.validation :][: data.train_samples]
    return (order[: data.validation] if name == "val" else train).sort().values


def order(seed: int, index: tuple[int, ...], epoch: int, count: int) -> Tensor:
    """The order in which an epoch takes the rows of a split of `count` images; as they lie for the empty index."""
    if not index:
        return torch.arange(count)
    return torch.randperm(count, generator=generator(seed, "order", *index, epoch))


def normalised(x: Tensor, how: Normalise) -> Tensor:
    """uint8 (B, H, W, C) -> float32 (B, H, W, C)."""
    if how.kind == "channel":
        mean = torch.tensor(how.mean, dtype=torch.float64, device=x.device)
        std = torch.tensor(how.std, dtype=torch.float64, device=x.device)
        scale, shift = (1 / (255 * std)).float(), (-mean / std).float()
        return x.float().mul_(scale).add_(shift)
    flat = x.float().flatten(1)
    if how.kind == "image":  # TensorFlow's per_image_standardization, as Renda et al. use
        low = flat.shape[1] ** -0.5
        std = (flat / 255).std(1, unbiased=False, keepdim=True).clamp(min=low)
        flat = (flat / 255 - (flat / 255).mean(1, keepdim=True)) / std
    else:
        flat = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return flat.view(x.shape)


class TrainingStream:
    """The batches of a training run, by absolute step.

    The order of epoch e and the augmentation of its samples depend on (seed, index, e) alone; `index` is
    (round, copy): (0, 0) is the dense run.
    """

    def __init__(
        self, split: Split, augment: Augment, size: int, steps_per_epoch: int, seed: int, index: tuple[int, ...]
    ) -> None:
        self.split, self.augment, self.seed, self.index = split, augment, seed, index
        self.size, self.steps_per_epoch = size, steps_per_epoch
        self._windows = _windows(self.split.x, self.augment.pad)
        self._epoch = -1
        self.chosen = torch.empty(0, dtype=torch.int64)  # the rows of the last batch
        self._order = self._dy = self._dx = self._flip = self._angle = torch.empty(0)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._begin(epoch)
        chosen = self._order[position * self.size : (position + 1) * self.size]
        self.chosen = chosen
        y = self.split.y.index_select(0, chosen)
        if not self.augment.any:
            return self.split.batch(chosen), y
        x = self._windows[chosen, self._dy[chosen], self._dx[chosen]]
        if self.augment.flip:
            x = torch.where(self._flip[chosen][:, None, None, None], x.flip(2), x)
        if self.augment.rotate:
            x = rotated(x, self._angle[chosen])
        return normalised(x, self.split.normalise).permute(0, 3, 1, 2), y

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._order = order(self.seed, self.index, epoch, len(self.split)).to(self.split.y.device)
        if self.augment.any:
            key = derive(self.seed, "augment", *self.index)
            self._dy, self._dx, self._flip = draws(key, epoch, self.split.samples, self.augment)
        if self.augment.rotate:
            word = hashed(key, epoch, self.split.samples, 3)
            self._angle = (word.double() / 2**31 - 1) * math.radians(self.augment.rotate)


def draws(key: int, epoch: int, samples: Tensor, augment: Augment) -> tuple[Tensor, Tensor, Tensor]:
    """Crop offsets in [0, 2 pad] and flips of samples (by number) in an epoch: int64, int64, bool, each (N,)."""
    places = 2 * augment.pad + 1
    dy, dx, coin = (hashed(key, epoch, samples, purpose) for purpose in range(3))
    return (dy * places) >> 32, (dx * places) >> 32, (coin >> 31).bool() & augment.flip


def hashed(key: int, epoch: int, samples: Tensor, purpose: int) -> Tensor:
    """32-bit hash of (key, epoch, sample, purpose) as int64 (N,): integer arithmetic, equal on all devices."""
    h = samples ^ (key & _WORD)
    for word in (key >> 32, epoch, purpose):
        h = _mix(h) ^ (word & _WORD)
    return _mix(h)


def rotated(x: Tensor, angle: Tensor) -> Tensor:
    """Images (B, H, W, C) turned about their middle by `angle` (B,) in radians: nearest pixel, zeros from outside."""
    count, height, width, _ = x.shape
    down = torch.arange(height, dtype=torch.float64, device=x.device)[:, None] - (height - 1) / 2
    right = torch.arange(width, dtype=torch.float64, device=x.device) - (width - 1) / 2
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    row = (cos * down + sin * right + (height - 1) / 2).round().long()  # where each pixel comes from, (B, H, W)
    column = (cos * right - sin * down + (width - 1) / 2).round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    image = torch.arange(count, device=x.device)[:, None, None]
    found = x[image, row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return found * inside[..., None]


def _mix(h: Tensor) -> Tensor:
    """A bijection of 32-bit integers (constants: C. Wellons' lowbias32)."""
    h = ((h ^ (h >> 16)) * 0x7FEB352D) & _WORD
    h = ((h ^ (h >> 15)) * 0x846CA68B) & _WORD
    return h ^ (h >> 16)


def _windows(x: Tensor, pad: int) -> Tensor:
    """All crops of zero-padded images as a view: (N, 2 pad + 1, 2 pad + 1, H, W, C)."""
    n, height, width, channels = x.shape
    padded = x
    if pad:
        padded = x.new_zeros(n, height + 2 * pad, width + 2 * pad, channels)
        padded[:, pad : pad + height, pad : pad + width] = x
    return padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)
