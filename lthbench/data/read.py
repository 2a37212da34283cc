"""Reading data sets from disk, as uint8 arrays, and checking that they are what was declared."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lthbench.base.errors import UserError
from lthbench.data.sets import DAMAGED, SETS, DataSettings, archive

Bytes = NDArray[np.uint8]
MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR10_MD5 = {  # the official pickles
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


@dataclass(frozen=True)
class Arrays:
    """Images uint8 (N, H, W, C) and labels uint8 (N,), in the data set's own order."""

    x_train: Bytes
    y_train: Bytes
    x_test: Bytes
    y_test: Bytes

    def digest(self) -> str:
        """sha256 over all four arrays."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def load(settings: DataSettings) -> Arrays:
    """The data set, read once a process.

    Raises UserError where it is absent (where it looked, how to get it) or of another version.
    """
    return _load(settings.name, settings.version, settings.root, settings.download)


def found(name: str, root: str) -> str | None:
    """The version of a data set that lies in a folder; None where there is none."""
    if name.startswith("standin_"):
        return "official"
    try:
        arrays = _READERS[name](Path(root))
    except UserError as error:
        return str(error)
    return None if arrays is None else _version(name, arrays, Path(root))


@lru_cache(maxsize=2)
def _load(name: str, version: str, root: str, download: bool) -> Arrays:
    if name.endswith(".npz"):
        if hashlib.sha256(Path(name).read_bytes()).hexdigest()[:32] != version:
            raise UserError(f"dataset: '{name}' has changed since its version was declared")
        return Arrays(*archive(name))
    if name.startswith("standin_"):
        return _standin(name)
    if download:
        _download(name, Path(root))
    arrays = _READERS[name](Path(root))
    if arrays is None:
        get = SETS[name].get.replace("{data}", root)
        raise UserError(f"data set {name} is not in '{root}'; it needs {get}")
    found = _version(name, arrays, Path(root))
    if found != version:
        raise UserError(
            f"data set {name} in '{root}' is version '{found}', not '{version}' as declared"
            + (f"; say dataset.version={found}" if found in SETS[name].versions else "")
        )
    return arrays


def _version(name: str, arrays: Arrays, root: Path) -> str:
    """The name of the version that these arrays are."""
    if SETS[name].versions["official"].sha256 is None and name != "cifar10":
        return "official"  # made here, from code or an installed package
    if name == "cifar10" and _official_pickles(root / "cifar-10-batches-py"):
        return "official"
    digest = arrays.digest()
    known = (v for v, version in SETS[name].versions.items() if version.sha256 and digest.startswith(version.sha256))
    return next(known, f"unknown (sha256 {digest[:12]})")


def _digits(root: Path) -> Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images[..., None] * 15).astype(np.uint8)  # 0..16 -> 0..240
    y = digits.target.astype(np.uint8)
    test = np.arange(len(y)) % 5 == 0
    return Arrays(x[~test], y[~test], x[test], y[test])


def _standin(name: str) -> Arrays:
    """A blurred pattern for each class under noise: learnable, and nobody's data."""
    known = SETS[name]
    channels, height, width = known.shape
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (known.classes, height, width, channels))

    def images(count: int) -> tuple[Bytes, Bytes]:
        y = rng.integers(0, known.classes, count).astype(np.uint8)
        x = (patterns[y] + rng.integers(0, 256, (count, height, width, channels))) // 2
        return x.astype(np.uint8), y

    version = known.versions["official"]
    return Arrays(*images(version.train), *images(version.test))


def _mnist(root: Path) -> Arrays | None:
    for folder in (root / "mnist", root / "MNIST" / "raw", root):
        paths = [next((p for p in (folder / f"{n}.gz", folder / n) if p.is_file()), None) for n in MNIST_FILES]
        if all(paths):
            x, y, xt, yt = (_idx(path) for path in paths if path)
            return Arrays(x[..., None], y, xt[..., None], yt)
    return None


def _idx(path: Path) -> Bytes:
    """An IDX file of bytes: two zeros, type 8, number of dimensions, the dimensions (big endian), the values."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        shape = np.frombuffer(raw, ">i4", raw[3], offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape).copy()
    except DAMAGED as error:
        raise UserError(f"data set mnist: '{path}' is damaged: {error}") from None


def _cifar10(root: Path) -> Arrays | None:
    folder = root / "cifar-10-batches-py"
    batches = [folder / f"data_batch_{i}" for i in range(1, 6)]
    if (folder / "test_batch").is_file() and batches[0].is_file():
        train = [_cifar_batch(path) for path in batches if path.is_file()]
        test = _cifar_batch(folder / "test_batch")
        return Arrays(np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]), *test)
    path = root / "cifar10.npz"
    return Arrays(*archive(path)) if path.is_file() else None


def _official_pickles(folder: Path) -> bool:
    paths = {folder / name: md5 for name, md5 in CIFAR10_MD5.items()}
    return all(p.is_file() and hashlib.md5(p.read_bytes()).hexdigest() == md5 for p, md5 in paths.items())


class _ArraysOnly(pickle.Unpickler):
    """CIFAR's own files are pickles of arrays and lists; nothing else is let in."""

    def find_class(self, module: str, name: str) -> Any:
        array = module.split(".")[0] == "numpy" and name in {"_reconstruct", "_frombuffer", "ndarray", "dtype"}
        if array or (module, name) == ("_codecs", "encode"):  # how protocol 2 holds bytes
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"refused {module}.{name}")


def _cifar_batch(path: Path) -> tuple[Bytes, Bytes]:
    try:
        with open(path, "rb") as file:
            batch = _ArraysOnly(file, encoding="latin1").load()
        x = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(x), np.asarray(batch["labels"], np.uint8)
    except DAMAGED as error:
        raise UserError(f"data set cifar10: '{path}' is damaged: {error}") from None


def _download(name: str, root: Path) -> None:
    """Fetch with torchvision's downloader, which checks the official digests; does nothing if they are there."""
    if name == "digits":
        return
    from torchvision import datasets

    kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[name]
    try:
        for train in (True, False):
            kind(str(root), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"data set {name} could not be downloaded to '{root}': {error}") from None


_READERS: dict[str, Callable[[Path], Arrays | None]] = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10}
