"""Batches from a folder of images: decoded, cut and resized by worker processes while the device computes.

What a batch holds depends on (seed, index, epoch, sample) alone, as in memory: a request to a worker names the
rows and the draws' key, so neither the number of workers nor the step at which a run resumed matters.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lthbench.base.errors import UserError
from lthbench.base.seeds import derive
from lthbench.data import folders
from lthbench.data.formats import picture
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import Split, Stream, draws, hashed, held, normalised, order

TRIES = 10  # draws of a random part before the whole image is taken
PIECE = 64  # images that one request reads where any number is asked for
EVALUATION_VALUES = 2**24  # pixel values in a batch that is measured: about a hundred images of 224 x 224


class Draws(NamedTuple):
    """From what augmentation is drawn; None in its place: the middle of each image."""

    key: int
    epoch: int
    augment: Augment


Request = tuple[NDArray[np.int64], "Draws | None"]


class Decoder(Dataset):
    """Rows of a split as uint8 (B, size, size, 3); this is what worker processes hold."""

    def __init__(self, images: folders.Images, samples: Tensor, size: int, resize: int) -> None:
        self.images, self.samples, self.size, self.resize = images, samples, size, resize

    def __getitem__(self, request: Request) -> tuple[Tensor, Tensor] | str:
        """Images and rows, or what is wrong with an image: an exception would come back in another's words."""
        rows, drawn = request
        samples = self.samples[torch.from_numpy(rows)]
        x = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        try:
            pictures = (picture(self.images.path(int(sample))) for sample in samples)
            if drawn is None:
                for out, image in zip(x, pictures):
                    out[...] = middle(image, self.resize, self.size)
            elif drawn.augment.scale:
                self._parts(x, pictures, samples, drawn)
            else:
                self._crops(x, pictures, samples, drawn)
        except UserError as error:
            return str(error)
        return torch.from_numpy(x), torch.from_numpy(rows)

    def _crops(self, x: NDArray[np.uint8], pictures: Iterable[Any], samples: Tensor, drawn: Draws) -> None:
        """The middle, padded with zeros, cut out somewhere, mirrored."""
        pad, size = drawn.augment.pad, self.size
        moves = zip(*(values.tolist() for values in draws(drawn.key, drawn.epoch, samples, drawn.augment)))
        padded = np.zeros((size + 2 * pad, size + 2 * pad, 3), np.uint8)
        for out, image, (dy, dx, flip) in zip(x, pictures, moves):
            padded[pad : pad + size, pad : pad + size] = middle(image, self.resize, size)
            window = padded[dy : dy + size, dx : dx + size]
            out[...] = window[:, ::-1] if flip else window

    def _parts(self, x: NDArray[np.uint8], pictures: Iterable[Any], samples: Tensor, drawn: Draws) -> None:
        """A random part, resized, mirrored."""
        key, epoch, augment = drawn
        words = torch.stack([hashed(key, epoch, samples, purpose) for purpose in range(3 + 2 * TRIES)], 1)
        for out, image, word in zip(x, pictures, words.tolist()):
            left, top, width, height = part(image.size, word, augment)
            cut = image.crop((left, top, left + width, top + height))
            pixels = np.asarray(cut.resize((self.size, self.size), _BILINEAR))
            out[...] = pixels[:, ::-1] if augment.flip and word[2] >> 31 else pixels


_BILINEAR = 2  # PIL.Image.BILINEAR, which is antialiased


def middle(image: Any, resize: int, size: int) -> NDArray[np.uint8]:
    """The shorter side made `resize` long, then the middle `size` x `size`."""
    width, height = image.size
    shape = (resize, resize * height // width) if width <= height else (resize * width // height, resize)
    if shape != image.size:
        image = image.resize(shape, _BILINEAR)
    left, top = round((shape[0] - size) / 2), round((shape[1] - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def part(shape: tuple[int, int], words: list[int], augment: Augment) -> tuple[int, int, int, int]:
    """Left, top, width, height of a random part of an image (width, height).

    `words` are 32-bit draws: vertical place, horizontal place, coin, then area and aspect of each try. Where no
    try fits, it is the middle of the largest part whose aspect is allowed.
    """
    width, height = shape
    (low, high), (narrow, wide) = augment.scale, augment.ratio
    for area, aspect in zip(words[3::2], words[4::2]):
        target = width * height * (low + (high - low) * area / 2**32)
        ratio = math.exp(math.log(narrow) + (math.log(wide) - math.log(narrow)) * aspect / 2**32)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return (words[1] * (width - w + 1)) >> 32, (words[0] * (height - h + 1)) >> 32, w, h
    w, h = width, height
    if width / height < narrow:
        h = round(w / narrow)
    elif width / height > wide:
        w = round(h * wide)
    return (width - w) // 2, (height - h) // 2, w, h


class FolderSplit(Split):
    """A split whose images stay on disk; labels and samples are on the device, as of one in memory."""

    def __init__(
        self, images: folders.Images, samples: Tensor, normalise: Normalise, size: int, resize: int, workers: int,
        device: str,
    ) -> None:  # fmt: skip
        labels = torch.from_numpy(images.labels)[samples]
        nothing = torch.empty(0, size, size, 3, dtype=torch.uint8)
        super().__init__(nothing, labels.to(device), samples.to(device), normalise)
        self.size, self.workers = size, workers
        self._decoder = Decoder(images, samples, size, resize)

    def batch(self, index: Tensor | slice) -> Tensor:
        rows = np.arange(len(self))[index] if isinstance(index, slice) else index.cpu().numpy()
        pieces = [(rows[begin : begin + PIECE], None) for begin in range(0, len(rows), PIECE)]
        return torch.cat([x for x, _ in self.read(pieces, min(self.workers, len(pieces) - 1))])

    def batches(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        size = max(1, min(size, EVALUATION_VALUES // (3 * self.size**2)))
        slices = [slice(begin, min(begin + size, len(self))) for begin in range(0, len(self), size)]
        images = self.read([(np.arange(rows.start, rows.stop), None) for rows in slices], self.workers)
        return ((rows, x) for rows, (x, _) in zip(slices, images))

    def stream(self, augment: Augment, size: int, steps_per_epoch: int, seed: int, index: tuple[int, ...]) -> Stream:
        return FolderStream(self, augment, size, steps_per_epoch, seed, index)

    def read(self, requests: Iterable[Request], workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as `batch` gives them, and labels, of each request, made ahead by worker processes.

        A worker of a command has no processes of its own: it decodes by itself, to the same bits.
        """
        device = self.y.device
        loader: Any = DataLoader(
            self._decoder,
            sampler=requests,  # type: ignore[arg-type]
            batch_size=None,
            num_workers=0 if multiprocessing.current_process().daemon else workers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the global one is left alone
        )
        for made in loader:
            if isinstance(made, str):
                raise UserError(made)
            x, rows = (tensor.to(device, non_blocking=True) for tensor in made)
            yield normalised(x, self.normalise).permute(0, 3, 1, 2), self.y.index_select(0, rows)


class FolderStream:
    """The batches of a training run, by absolute step; asked for in turn, they are ready ahead of time."""

    def __init__(
        self, split: FolderSplit, augment: Augment, size: int, steps_per_epoch: int, seed: int, index: tuple[int, ...]
    ) -> None:
        self.split, self.augment, self.seed, self.index = split, augment, seed, index
        self.size, self.steps_per_epoch = size, steps_per_epoch
        self._next = -1
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        if step != self._next:
            where = self.size, self.steps_per_epoch, len(self.split), self.seed, self.index
            self._batches = self.split.read(_requests(step, *where, self.augment), self.split.workers)
        self._next = step + 1
        return next(self._batches)


def _requests(
    step: int, size: int, steps_per_epoch: int, count: int, seed: int, index: tuple[int, ...], augment: Augment
) -> Iterator[Request]:
    """What each step from this one on reads, without end.

    No method of the stream, which holds the reader of it: such a cycle would keep the worker processes alive.
    """
    key, at, rows = derive(seed, "augment", *index), -1, torch.empty(0)
    while True:
        epoch, position = divmod(step, steps_per_epoch)
        if epoch != at:
            at, rows = epoch, order(seed, index, epoch, count)
        chosen = rows[position * size : (position + 1) * size].numpy()
        yield chosen, Draws(key, epoch, augment) if augment.any else None
        step += 1


def folder_split(data: DataSettings, name: str, device: str) -> FolderSplit:
    """The split `train`, `val` or `test` of an image folder on a device."""
    found = folders.verify(data)
    images = found.test if name == "test" else found.train
    samples = torch.arange(len(images.labels)) if name == "test" else held(data, name)
    return FolderSplit(images, samples, data.normalise, data.size, data.resize, data.workers, device)
