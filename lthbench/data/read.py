"""Finding data sets on disk, reading them once a process, and checking that they are what was declared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path

from lthbench.base.errors import UserError
from lthbench.data import folders
from lthbench.data.formats import FORMATS, Arrays, archive
from lthbench.data.known import FOLDERS, SETS
from lthbench.data.made import made
from lthbench.data.sets import DataSettings


def load(settings: DataSettings) -> Arrays:
    """The data set, read once a process.

    Raises UserError where it is absent (where it looked, how to get it) or of another version.
    """
    return _load(settings.name, settings.version, settings.root, settings.download)


def verify(settings: DataSettings) -> None:
    """Raise UserError where a data set is absent or of another version; one that fits in memory is then read."""
    if settings.streamed:
        folders.verify(settings)
    else:
        load(settings)


def found(name: str, root: str) -> str | None:
    """The version of a data set that lies in a folder; None where there is none. No image file is opened."""
    if name in FOLDERS:
        return folders.seen(name, root)
    if not SETS[name].places:
        return "official"
    try:
        copy = Copy.find(name, root)
        return None if copy is None else copy.version
    except UserError as error:
        return str(error)


class Copy:
    """A copy of a data set on disk, read when it is asked for."""

    def __init__(self, name: str, place: Path, kind: str) -> None:
        self.name, self.place, self.kind = name, place, kind

    @classmethod
    def find(cls, name: str, root: str) -> Copy | None:
        """The first place at which the files are."""
        places = ((Path(root, where), kind) for where, kind in SETS[name].places)
        return next((cls(name, place, kind) for place, kind in places if FORMATS[kind].there(place)), None)

    @cached_property
    def arrays(self) -> Arrays:
        try:
            return FORMATS[self.kind].read(self.place)
        except UserError as error:
            raise UserError(f"data set {self.name}: {error}") from None

    @cached_property
    def version(self) -> str:
        """The version's name, by its files where that is enough, else by its content."""
        versions = SETS[self.name].versions
        for name, version in versions.items():
            if version.files and self._has(version.files):
                return name
        if not any(version.sha256 for version in versions.values()):
            return "unknown"
        digest = self.arrays.digest()
        by_content = (v for v, version in versions.items() if version.sha256 and digest.startswith(version.sha256))
        return next(by_content, f"unknown (sha256 {digest[:12]})")

    def _has(self, files: Mapping[str, str]) -> bool:
        return all((self.place / name).exists() for name in files) and all(
            _md5(self.place / name) == md5 for name, md5 in files.items()
        )


def _md5(path: Path) -> str:
    """Of a file its md5, of a folder that of its images' names and sizes."""
    content = folders.names_and_sizes(folders.files(path)) if path.is_dir() else path.read_bytes()
    return hashlib.md5(content).hexdigest()


@lru_cache(maxsize=2)
def _load(name: str, version: str, root: str, download: bool) -> Arrays:
    if name.endswith(".npz"):
        if hashlib.sha256(Path(name).read_bytes()).hexdigest()[:32] != version:
            raise UserError(f"dataset: '{name}' has changed since its version was declared")
        return Arrays(*archive(name))
    known = SETS[name]
    if not known.places:
        return made(name)
    if download:
        _download(name, Path(root))
    copy = Copy.find(name, root)
    if copy is None:
        raise UserError(f"data set {name} is not in '{root}'; it needs {known.get.replace('{data}', root)}")
    if copy.version != version:
        raise UserError(
            f"data set {name} in '{root}' is version '{copy.version}', not '{version}' as declared"
            + (f"; say dataset.version={copy.version}" if copy.version in known.versions else "")
        )
    return copy.arrays


def _download(name: str, root: Path) -> None:
    """Fetch with torchvision's downloader, which checks the official digests; does nothing if they are there."""
    from torchvision import datasets

    get = {
        "mnist": lambda train: datasets.MNIST(str(root), train, download=True),
        "fashion_mnist": lambda train: datasets.FashionMNIST(str(root), train, download=True),
        "cifar10": lambda train: datasets.CIFAR10(str(root), train, download=True),
        "cifar100": lambda train: datasets.CIFAR100(str(root), train, download=True),
        "svhn": lambda train: datasets.SVHN(str(root / "svhn"), "train" if train else "test", download=True),
    }.get(name)
    if get is None:
        raise UserError(f"dataset.download: {name} has no downloader; it needs {SETS[name].get}")
    try:
        for train in (True, False):
            get(train)
    except (OSError, RuntimeError) as error:
        raise UserError(f"data set {name} could not be downloaded to '{root}': {error}") from None
