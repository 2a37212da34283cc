"""A data set as an experiment uses it: version, normalisation, augmentation, what is held out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, aside, later
from lthbench.data.known import CHOICES, FOLDERS, SETS


@dataclass(frozen=True)
class Normalise(Settings):
    """`channel`: (x/255 - mean) / std; `image`: each image to mean 0, std 1 (Renda); `unit`: to L2 norm 1."""

    kind: str = "channel"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        if any(s <= 0 for s in self.std):
            raise UserError(f"dataset.normalise.std: {list(self.std)} are not all positive")


@dataclass(frozen=True)
class Augment(Settings):
    """Random crop from zero padding of `pad` pixels, horizontal flips, and then rotations by up to `rotate` degrees
    either way (nearest pixel, zeros from outside, as torchvision does it).

    For image folders, instead of `pad`: a random part of the image, its area drawn from `scale` (shares of the
    whole), its width over height from `ratio`, resized (Szegedy et al. 2015, as torchvision does it).
    """

    pad: int = 0
    flip: bool = False
    scale: tuple[float, ...] = later(())
    ratio: tuple[float, ...] = later(())
    rotate: float = later(0.0)

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise UserError(f"dataset.augment.pad: {self.pad} is negative")
        if not 0 <= self.rotate <= 180:
            raise UserError(f"dataset.augment.rotate: {self.rotate} is not between 0 and 180 degrees")
        for name, bounds in (("scale", self.scale), ("ratio", self.ratio)):
            if bounds and not (len(bounds) == 2 and 0 < bounds[0] <= bounds[1]):
                raise UserError(f"dataset.augment.{name}: {list(bounds)} is not a lower and an upper bound above 0")
        if len(self.scale) != len(self.ratio):
            raise UserError("dataset.augment.scale, dataset.augment.ratio: both are given, or both are []")
        if self.scale and self.scale[1] > 1:
            raise UserError(f"dataset.augment.scale: {self.scale[1]} is more than the whole image")
        if self.scale and self.pad:
            raise UserError("dataset.augment.pad, dataset.augment.scale: one of them, the other 0 or []")

    @property
    def any(self) -> bool:
        return self.pad > 0 or self.flip or bool(self.scale) or self.rotate > 0


@dataclass(frozen=True)
class DataSettings(Settings):
    """A data set as an experiment uses it.

    `validation` training images, drawn by `split_seed` alone, are held out of training; of the others the first
    `train_images` so drawn are trained on (None: all). For `npz` files shape and counts are read from the file, and
    the version is its content's sha256.

    An image folder has a `size`: its images are decoded by `workers` processes while it is used, their shorter side
    is made `resize` and the middle cut out, unless `augment.scale` says otherwise for training.
    """

    name: str
    version: str
    normalise: Normalise
    augment: Augment
    validation: int = 0
    split_seed: int = 0
    shape: tuple[int, ...] = ()
    classes: int = 0
    samples: int = 0
    root: str = aside("data")
    download: bool = aside(False)
    size: int = later(0)
    resize: int = later(0)
    workers: int = aside(2)
    train_images: int | None = later(None)

    def __post_init__(self) -> None:
        if self.streamed:
            self._check_folder()
        elif self.name in FOLDERS:
            raise UserError(f"dataset.name: {self.name} is read from image files; say dataset={self.name}")
        elif self.name not in SETS and not self.name.endswith(".npz"):
            raise UserError(f"unknown data set '{self.name}'{near(self.name, CHOICES)}")
        elif self.augment.scale:
            raise UserError(f"dataset.augment.scale: is for image folders, not for {self.name}")
        elif self.name in SETS:
            known = SETS[self.name]
            if self.version not in known.versions:
                raise UserError(
                    f"dataset.version: {self.name} has no '{self.version}'{near(self.version, known.versions)}"
                )
            object.__setattr__(self, "shape", known.shape)
            object.__setattr__(self, "classes", known.classes)
            object.__setattr__(self, "samples", known.versions[self.version].train)
        if not 0 <= self.validation < self.samples:
            raise UserError(
                f"dataset.validation: {self.validation} is not between 0 and the {self.samples} training images"
            )
        rest = self.samples - self.validation
        if self.train_images is not None and not 1 <= self.train_images <= rest:
            raise UserError(f"dataset.train_images: {self.train_images} is not between 1 and the {rest} that there are")
        if self.split_seed < 0:
            raise UserError(f"dataset.split_seed: {self.split_seed} is negative")
        channels = self.shape[0]
        if self.normalise.kind not in ("channel", "image", "unit"):
            raise UserError(
                f"dataset.normalise.kind: unknown '{self.normalise.kind}'; choose from channel, image, unit"
            )
        for name, value in (("mean", self.normalise.mean), ("std", self.normalise.std)):
            if self.normalise.kind == "channel" and len(value) not in (1, channels):
                raise UserError(f"dataset.normalise.{name}: {len(value)} values for {channels} channels")
        if self.normalise.kind == "channel" and min(self.normalise.std) <= 0:
            raise UserError(f"dataset.normalise.std: {min(self.normalise.std)} is not positive")

    def _check_folder(self) -> None:
        if self.size < 1 or self.resize < self.size:
            raise UserError(f"dataset.resize: {self.resize} is less than dataset.size={self.size}, or that is none")
        if self.workers < 0:
            raise UserError(f"dataset.workers: {self.workers} is negative")
        if self.augment.rotate:
            raise UserError("dataset.augment.rotate: is for images in memory, not for image folders")

    @property
    def streamed(self) -> bool:
        """Whether it is a folder that is read while it is used."""
        return self.size != 0

    @property
    def train_samples(self) -> int:
        """Images that are trained on."""
        return self.samples - self.validation if self.train_images is None else self.train_images

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be measured."""
        return ("val", "test") if self.validation else ("test",)


def describe_file(path: str) -> dict[str, object]:
    """Version (sha256 of the file), shape, classes and count of an .npz with x_train, y_train, x_test, y_test."""
    from lthbench.data.formats import archive

    if not Path(path).is_file():
        raise UserError(f"dataset: no file '{path}'")
    try:
        x, y, *_ = archive(path)
    except UserError as error:
        raise UserError(f"data set: {error}") from None
    shape = (x.shape[3], x.shape[1], x.shape[2])
    sha = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {"version": sha[:32], "shape": list(shape), "classes": int(y.max()) + 1, "samples": len(x)}
