"""The file formats of the published data sets, each read into the same four arrays.

A format says whether its files are at a place and reads them. Damaged files are a UserError that names the file.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lthbench.base.errors import UserError

Bytes = NDArray[np.uint8]
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MAT_FILES = ("train_32x32.mat", "test_32x32.mat")
DAMAGED = (  # what readers of damaged files raise
    AttributeError, EOFError, ImportError, IndexError, KeyError, OSError, OverflowError, TypeError, ValueError,
    NotImplementedError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Arrays:
    """Images uint8 (N, H, W, C) and labels (N,), whole numbers, in the data set's own order."""

    x_train: Bytes
    y_train: NDArray[Any]
    x_test: Bytes
    y_test: NDArray[Any]

    def digest(self) -> str:
        """sha256 over all four arrays."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@contextmanager
def _reading(path: Path, what: str = "is damaged") -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"'{path}' {what}: {reason}") from None


# ---- IDX: MNIST, Fashion-MNIST


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)


def _idx_there(folder: Path) -> bool:
    return all(_idx_file(folder, name) for name in IDX_FILES)


def _idx(folder: Path) -> Arrays:
    x, y, xt, yt = (_idx_array(path) for name in IDX_FILES if (path := _idx_file(folder, name)))
    return Arrays(x[..., None], y, xt[..., None], yt)


def _idx_array(path: Path) -> Bytes:
    """An IDX file of bytes: two zeros, type 8, number of dimensions, the dimensions (big endian), the values."""
    with _reading(path):
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        shape = np.frombuffer(raw, ">i4", raw[3], offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape).copy()


# ---- the pickles of CIFAR-10 and CIFAR-100


def _cifar10_there(folder: Path) -> bool:
    return (folder / "test_batch").is_file() and (folder / "data_batch_1").is_file()


def _cifar10(folder: Path) -> Arrays:
    batches = [folder / f"data_batch_{i}" for i in range(1, 6)]
    train = [_cifar_batch(path, "labels") for path in batches if path.is_file()]
    test = _cifar_batch(folder / "test_batch", "labels")
    return Arrays(np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train]), *test)


def _cifar100_there(folder: Path) -> bool:
    return (folder / "train").is_file() and (folder / "test").is_file()


def _cifar100(folder: Path) -> Arrays:
    return Arrays(*_cifar_batch(folder / "train", "fine_labels"), *_cifar_batch(folder / "test", "fine_labels"))


class _ArraysOnly(pickle.Unpickler):
    """CIFAR's own files are pickles of arrays and lists; nothing else is let in."""

    def find_class(self, module: str, name: str) -> Any:
        array = module.split(".")[0] == "numpy" and name in {"_reconstruct", "_frombuffer", "ndarray", "dtype"}
        if array or (module, name) == ("_codecs", "encode"):  # how protocol 2 holds bytes
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"refused {module}.{name}")


def _cifar_batch(path: Path, labels: str) -> tuple[Bytes, Bytes]:
    with _reading(path), open(path, "rb") as file:
        batch = _ArraysOnly(file, encoding="latin1").load()
        x = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(x), _labels(batch[labels], len(x))


def _labels(values: Any, count: int) -> Bytes:
    y = np.asarray(values, np.uint8).reshape(-1)
    if len(y) != count:
        raise ValueError(f"{count} images, {len(y)} labels")
    return y


# ---- MATLAB: SVHN


def _mat_there(folder: Path) -> bool:
    return all((folder / name).is_file() for name in MAT_FILES)


def _mat(folder: Path) -> Arrays:
    return Arrays(*_mat_file(folder / MAT_FILES[0]), *_mat_file(folder / MAT_FILES[1]))


def _mat_file(path: Path) -> tuple[Bytes, Bytes]:
    """X is (H, W, C, N), y is (N, 1) with 10 for the digit 0."""
    from scipy.io.matlab import MatReadError, loadmat

    with _reading(path):
        try:
            content = loadmat(path, variable_names=["X", "y"])
        except MatReadError as error:  # no ValueError, whatever it is about
            raise ValueError(error) from None
        x = np.asarray(content["X"], np.uint8).transpose(3, 0, 1, 2)
        return np.ascontiguousarray(x), _labels(content["y"] % 10, len(x))


# ---- NumPy archives


def archive(path: str | Path) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """x_train, y_train, x_test, y_test of an .npz file: images uint8 (N, H, W, C), labels uint8 (N,).

    Raises UserError for a damaged file and for arrays that do not fit together.
    """
    with _reading(Path(path), "is damaged or has other arrays"), np.load(path, allow_pickle=False) as file:
        x, y, xt, yt = (file[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    if x.dtype != np.uint8 or xt.dtype != np.uint8 or x.ndim not in (3, 4) or x.shape[1:] != xt.shape[1:]:
        raise UserError(f"'{path}' must hold uint8 images (N, H, W[, C]), all of one shape")
    if y.shape != x.shape[:1] or yt.shape != xt.shape[:1] or not len(y) or not len(yt):
        raise UserError(f"'{path}' must hold one label for each image, (N,)")
    if y.dtype.kind not in "iu" or yt.dtype.kind not in "iu" or min(y.min(), yt.min()) < 0 or y.max() > 255:
        raise UserError(f"'{path}' must hold labels that are whole numbers from 0 to 255")
    if yt.max() > y.max():
        raise UserError(f"'{path}' has the label {yt.max()} in y_test only")
    if x.ndim == 3:
        x, xt = x[..., None], xt[..., None]
    return x, y.astype(np.uint8), xt, yt.astype(np.uint8)


def _pooled(path: Path) -> Arrays:
    """Training and test images in one array x, with labels y and own_test_mask, which says what is test."""
    with _reading(path, "is damaged or has other arrays"), np.load(path, allow_pickle=False) as file:
        x, y, test = file["x"], file["y"], file["own_test_mask"].astype(bool)
        return Arrays(x[~test], y[~test].astype(np.uint8), x[test], y[test].astype(np.uint8))


# ---- Tiny-ImageNet's folder of JPEG files


def _tiny_there(folder: Path) -> bool:
    return (folder / "train").is_dir() and (folder / "val" / "val_annotations.txt").is_file()


def _tiny(folder: Path) -> Arrays:
    """train/<wnid>/images/*.JPEG and val/images, whose classes val_annotations.txt names; decoded once a process."""
    wnids = sorted(p.name for p in (folder / "train").iterdir() if p.is_dir())
    train = [
        (p, i) for i, wnid in enumerate(wnids) for p in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
    ]
    annotations = folder / "val" / "val_annotations.txt"
    with _reading(annotations):
        rows = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line]
        test = [(folder / "val" / "images" / name, wnids.index(wnid)) for name, wnid in rows]
    return Arrays(*_pictures(train), *_pictures(test))


def _pictures(labelled: list[tuple[Path, int]]) -> tuple[Bytes, Bytes]:
    x = np.empty((len(labelled), 64, 64, 3), np.uint8)
    for row, (path, _) in zip(x, labelled):
        with _reading(path):
            row[...] = picture(path)
    return x, np.array([label for _, label in labelled], np.uint8)


def picture(path: str | Path) -> Any:
    """An image file as a PIL image in RGB. Raises UserError, naming the file, for whatever cannot be decoded."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except Exception as error:  # whatever a decoder raises, it is this file that it stumbled over
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"image '{path}' is damaged: {reason}") from None


class Format(NamedTuple):
    """Whether the files are at a place, and how they are read."""

    there: Callable[[Path], bool]
    read: Callable[[Path], Arrays]


FORMATS = {
    "idx": Format(_idx_there, _idx),
    "cifar10": Format(_cifar10_there, _cifar10),
    "cifar100": Format(_cifar100_there, _cifar100),
    "mat": Format(_mat_there, _mat),
    "npz": Format(Path.is_file, lambda path: Arrays(*archive(path))),
    "pooled": Format(Path.is_file, _pooled),
    "tiny": Format(_tiny_there, _tiny),
}
