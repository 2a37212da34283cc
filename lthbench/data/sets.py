"""What is known of each data set before it is read: shape, counts, versions, and how to get it.

Torch-free, so that a grid is planned without data. The content is checked against the version when it is read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, aside


@dataclass(frozen=True)
class Version:
    """One state of a data set: image counts and sha256 of the content (None: nothing to compare with)."""

    train: int
    test: int
    sha256: str | None
    note: str = ""


@dataclass(frozen=True)
class DataSet:
    """What a data set is: (channels, height, width), classes, versions by name, how to get it."""

    shape: tuple[int, int, int]
    classes: int
    versions: dict[str, Version]
    what: str
    get: str = ""


SETS = {
    "digits": DataSet(
        (1, 8, 8),
        10,
        {"official": Version(1437, 360, None)},
        "scikit-learn's 8x8 digits; every fifth is test",
        "built in",
    ),
    "mnist": DataSet(
        (1, 28, 28),
        10,
        {"official": Version(60000, 10000, "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16")},
        "handwritten digits (LeCun et al. 1998)",
        "the four *-ubyte.gz files in {data}/mnist, or dataset.download=true",
    ),
    "cifar10": DataSet(
        (3, 32, 32),
        10,
        {
            "official": Version(50000, 10000, None, "the official pickles, by their md5"),
            "rebuilt": Version(
                50000,
                10000,
                "a3d8ea78674df0f44b4a894c9a7ea71889af44c1266cc2a1d0088e8d56dd2cf5",
                "103 of the 60,000 images are not exact",
            ),
            "partial": Version(
                10000,
                10000,
                "11b5cd58d6676ad32bedd04fa7b91d9a5a155e42b96664fbc73fbf33a1fd5174",
                "the first 10,000 training images only; no number for a paper's table",
            ),
        },
        "small colour images (Krizhevsky 2009)",
        "cifar-10-batches-py/ or cifar10.npz in {data}, or dataset.download=true",
    ),
}

_STANDIN = {
    f"standin_{name}": DataSet(
        s.shape, s.classes, {"official": Version(512, 256, None)}, f"made-up images of {name}'s shape"
    )
    for name, s in SETS.items()
}
SETS |= _STANDIN


def standin(name: str) -> str:
    """The made-up set of the same shape and classes."""
    return name if name in _STANDIN else f"standin_{name}"


@dataclass(frozen=True)
class Normalise(Settings):
    """`channel`: (x/255 - mean) / std; `image`: each image to mean 0, std 1 (Renda); `unit`: to L2 norm 1."""

    kind: str = "channel"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)


@dataclass(frozen=True)
class Augment(Settings):
    """Random crop from zero padding of `pad` pixels, and horizontal flips."""

    pad: int = 0
    flip: bool = False

    @property
    def any(self) -> bool:
        return self.pad > 0 or self.flip


@dataclass(frozen=True)
class DataSettings(Settings):
    """A data set as an experiment uses it.

    `validation` training images, drawn by `split_seed` alone, are held out of training. For `npz` files shape
    and counts are read from the file, and the version is its content's sha256.
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

    def __post_init__(self) -> None:
        if self.name not in SETS and not self.name.endswith(".npz"):
            raise UserError(f"unknown data set '{self.name}'{near(self.name, SETS)}")
        if self.name in SETS:
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

    @property
    def train_samples(self) -> int:
        """Images that are trained on."""
        return self.samples - self.validation

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that can be measured."""
        return ("val", "test") if self.validation else ("test",)


def describe_file(path: str) -> dict[str, object]:
    """Version (sha256 of the file), shape, classes and count of an .npz with x_train, y_train, x_test, y_test."""
    import numpy as np

    if not Path(path).is_file():
        raise UserError(f"dataset: no file '{path}'")
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x_train"], file["y_train"]
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"dataset: '{path}' does not hold uint8 x_train, y_train, x_test, y_test: {error}") from None
    shape = (1, *x.shape[1:]) if x.ndim == 3 else (x.shape[3], x.shape[1], x.shape[2])
    sha = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {"version": sha[:32], "shape": list(shape), "classes": int(y.max()) + 1, "samples": len(x)}
