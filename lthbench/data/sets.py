"""What is known of each data set before it is read: shape, counts, versions, and how to get it.

Torch-free, so that a grid is planned without data. The content is checked against the version when it is read.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, aside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

DAMAGED = (  # what readers of damaged files raise
    AttributeError, EOFError, ImportError, IndexError, KeyError, OSError, OverflowError, TypeError, ValueError,
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


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

    def __post_init__(self) -> None:
        if any(s <= 0 for s in self.std):
            raise UserError(f"dataset.normalise.std: {list(self.std)} are not all positive")


@dataclass(frozen=True)
class Augment(Settings):
    """Random crop from zero padding of `pad` pixels, and horizontal flips."""

    pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise UserError(f"dataset.augment.pad: {self.pad} is negative")

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
        if self.normalise.kind == "channel" and min(self.normalise.std) <= 0:
            raise UserError(f"dataset.normalise.std: {min(self.normalise.std)} is not positive")
        if self.augment.pad < 0:
            raise UserError(f"dataset.augment.pad: {self.augment.pad} is negative")

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
    if not Path(path).is_file():
        raise UserError(f"dataset: no file '{path}'")
    x, y, *_ = archive(path)
    shape = (x.shape[3], x.shape[1], x.shape[2])
    sha = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {"version": sha[:32], "shape": list(shape), "classes": int(y.max()) + 1, "samples": len(x)}


def archive(path: str | Path) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """x_train, y_train, x_test, y_test of an .npz file: images uint8 (N, H, W, C), labels uint8 (N,).

    Raises UserError for a damaged file and for arrays that do not fit together.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            x, y, xt, yt = (file[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    except DAMAGED as error:
        raise UserError(f"data set: '{path}' is damaged or has other arrays: {error}") from None
    if x.dtype != np.uint8 or xt.dtype != np.uint8 or x.ndim not in (3, 4) or x.shape[1:] != xt.shape[1:]:
        raise UserError(f"data set: '{path}' must hold uint8 images (N, H, W[, C]), all of one shape")
    if y.shape != x.shape[:1] or yt.shape != xt.shape[:1] or not len(y) or not len(yt):
        raise UserError(f"data set: '{path}' must hold one label for each image, (N,)")
    if y.dtype.kind not in "iu" or yt.dtype.kind not in "iu" or min(y.min(), yt.min()) < 0 or y.max() > 255:
        raise UserError(f"data set: '{path}' must hold labels that are whole numbers from 0 to 255")
    if yt.max() > y.max():
        raise UserError(f"data set: '{path}' has the label {yt.max()} in y_test only")
    if x.ndim == 3:
        x, xt = x[..., None], xt[..., None]
    return x, y.astype(np.uint8), xt, yt.astype(np.uint8)
