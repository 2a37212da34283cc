"""Folders of images: which files, which classes, which version, without opening an image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lthbench.base.errors import UserError
from lthbench.data.known import FOLDERS
from lthbench.data.sets import DataSettings

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class Images:
    """The images of one split: paths below its folder, as bytes, and labels; `folder` / path is a file."""

    folder: Path
    paths: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    def path(self, row: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.paths[row].item()))


@dataclass(frozen=True, eq=False)
class Listing:
    """What lies in an image folder; `version` is a sha256 over the names and sizes of its images."""

    version: str
    classes: list[str]
    train: Images
    test: Images


def files(folder: Path) -> list[tuple[str, int]]:
    """Relative name and size of every image below a folder, sorted; what begins with a dot is left out."""
    found, skip = [], len(str(folder)) + 1
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                path = Path(place, name)
                try:
                    found.append((path.as_posix()[skip:], path.stat().st_size))
                except OSError as error:
                    raise UserError(f"dataset: '{path}' cannot be read: {error.strerror}") from None
    return sorted(found)


def names_and_sizes(found: Iterable[tuple[str, int]]) -> bytes:
    """What a digest of a folder is taken over."""
    return b"".join(b"%s\0%d\n" % (os.fsencode(name), size) for name, size in found)


def place(name: str, root: str) -> Path:
    """The folder of a set that is read image by image."""
    return Path(root, name) if name in FOLDERS else Path(name)


@lru_cache(maxsize=4)
def listing(folder: Path) -> Listing:
    """The images of `folder`/train/<class>/ and of `folder`/test/<class>/ or, where that has none, val/.

    Images may lie deeper below their class. Labels number the class names in their order. Read once a process.
    """
    if not folder.is_dir():
        raise UserError(f"dataset: no folder '{folder}'")
    if not (folder / "train").is_dir():
        raise UserError(f"dataset: '{folder}' has no folder 'train'")
    train = files(folder / "train")
    classes = sorted({name.split("/")[0] for name, _ in train if "/" in name})
    if not classes:
        raise UserError(f"dataset: '{folder / 'train'}' has no classes: images go into a folder for each class")
    unknown = ""
    for split in ("test", "val"):
        test = [(name, size) for name, size in files(folder / split) if "/" in name]
        others = sorted({name.split("/")[0] for name, _ in test} - set(classes))
        if test and not others:
            break
        if others and not unknown:
            unknown = f": '{folder / split}' has the class '{others[0]}', which 'train' lacks"
    else:
        raise UserError(f"dataset: '{folder}' has no images in test/<class>/ or val/<class>/{unknown}")
    train = [(name, size) for name, size in train if "/" in name]
    digest = hashlib.sha256(names_and_sizes(train) + b"\0" + names_and_sizes(test))
    number = {name: i for i, name in enumerate(classes)}
    images = _images(folder / "train", train, number), _images(folder / split, test, number)
    return Listing(digest.hexdigest()[:32], classes, *images)


def _images(folder: Path, found: list[tuple[str, int]], number: dict[str, int]) -> Images:
    labels = np.array([number[name.split("/")[0]] for name, _ in found], np.int64)
    return Images(folder, np.array([os.fsencode(name) for name, _ in found]), labels)


def describe_folder(name: str, root: str, size: int) -> dict[str, Any]:
    """Version, shape, classes and count of an image folder, as an experiment uses it."""
    folder = place(name, root)
    if name in FOLDERS and not folder.is_dir():
        get = FOLDERS[name].get.replace("{data}", root)
        raise UserError(f"data set {name} is not in '{root}'; it needs {get}")
    found = listing(folder)
    if name in FOLDERS:
        known = FOLDERS[name]
        counts = (len(found.classes), len(found.train.labels), len(found.test.labels))
        if counts != (known.classes, known.train, known.test):
            raise UserError(
                f"dataset: '{folder}' has {counts[0]} classes, {counts[1]} training and {counts[2]} test images, "
                f"{name} has {known.classes}, {known.train} and {known.test}; "
                f"what is not {name} is dataset=imagefolder dataset.name={folder}"
            )
    samples = len(found.train.labels)
    return {"version": found.version, "shape": [3, size, size], "classes": len(found.classes), "samples": samples}


def verify(data: DataSettings) -> Listing:
    """The listing of a declared folder. Raises UserError where it has changed."""
    found = listing(place(data.name, data.root))
    if found.version != data.version:
        raise UserError(f"dataset: '{data.name}' is version '{found.version}', not '{data.version}' as declared")
    return found


def seen(name: str, root: str) -> str | None:
    """What a look at a published set's folder shows, without going through its files."""
    folder = place(name, root)
    if not folder.is_dir():
        return None
    classes = [
        sum(p.is_dir() for p in (folder / split).iterdir()) if (folder / split).is_dir() else 0
        for split in ("train", "val")
    ]
    return f"{classes[0]} classes in train, {classes[1]} in val; counted when it is used"
