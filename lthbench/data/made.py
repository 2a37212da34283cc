"""Data sets that need no files: scikit-learn's digits, and stand-ins of the others' shapes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lthbench.data.formats import Arrays, Bytes
from lthbench.data.known import SETS

_CHUNK = 512  # images made at a time: what they are does not depend on it


def made(name: str) -> Arrays:
    """The images and labels of a built-in set."""
    return _digits() if name == "digits" else _standin(name)


def _digits() -> Arrays:
    package = find_spec("sklearn")  # found, not imported: its load_digits() takes a second for these 57 KB
    assert package is not None and package.origin is not None
    rows = np.loadtxt(
        Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", dtype=np.uint8, delimiter=","
    )
    x = rows[:, :-1].reshape(-1, 8, 8, 1) * np.uint8(15)  # 0..16 -> 0..240
    y = rows[:, -1].copy()
    test = np.arange(len(y)) % 5 == 0
    return Arrays(x[~test], y[~test], x[test], y[test])


def _standin(name: str) -> Arrays:
    """A blurred pattern for each class under noise: learnable, and nobody's data."""
    known = SETS[name]
    channels, height, width = known.shape
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (known.classes, height, width, channels))

    def images(count: int) -> tuple[Bytes, NDArray[Any]]:
        if known.classes <= 10:
            y = rng.integers(0, known.classes, count)
        else:  # as many of each class, so that each can be scored
            y = rng.permutation(np.arange(count) % known.classes)
        x = np.empty((count, height, width, channels), np.uint8)
        for begin in range(0, count, _CHUNK):
            rows = y[begin : begin + _CHUNK]
            x[begin : begin + _CHUNK] = (patterns[rows] + rng.integers(0, 256, (len(rows), *x.shape[1:]))) // 2
        return x, y.astype(np.int64 if known.classes > 256 else np.uint8)

    version = known.versions["official"]
    return Arrays(*images(version.train), *images(version.test))
