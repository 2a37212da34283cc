"""What is known of each data set before it is read: shape, counts, versions, places, and how to get it.

Torch-free, so that a grid is planned without data. The content is checked against the version when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Version:
    """One state of a data set: its image counts, and what it is known by.

    That is sha256 of the content, or the md5 of `files` (of a folder: of its images' names and sizes). What has
    neither is made here.
    """

    train: int
    test: int
    sha256: str | None = None
    note: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """What a data set is: (channels, height, width), classes, versions by name, how to get it.

    `places` are (path below the data folder, format), the first that is there counts; none: it is built in.
    """

    shape: tuple[int, int, int]
    classes: int
    versions: dict[str, Version]
    what: str
    get: str = ""
    places: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FolderSet:
    """A published set that is read image by image from a folder below the data folder."""

    classes: int
    train: int
    test: int
    what: str
    get: str


SETS = {
    "digits": DataSet(
        (1, 8, 8),
        10,
        {"official": Version(1437, 360)},
        "scikit-learn's 8x8 digits; every fifth is test",
        "built in",
    ),
    "mnist": DataSet(
        (1, 28, 28),
        10,
        {"official": Version(60000, 10000, "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16")},
        "handwritten digits (LeCun et al. 1998)",
        "the four *-ubyte.gz files in {data}/mnist, or dataset.download=true",
        (("mnist", "idx"), ("MNIST/raw", "idx"), (".", "idx")),
    ),
    "fashion_mnist": DataSet(
        (1, 28, 28),
        10,
        {
            "official": Version(
                60000,
                10000,
                files={
                    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
                    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
                },
            )
        },
        "clothes, in MNIST's format (Xiao et al. 2017)",
        "the four *-ubyte.gz files in {data}/fashion_mnist, or dataset.download=true",
        (("fashion_mnist", "idx"), ("FashionMNIST/raw", "idx")),
    ),
    "cifar10": DataSet(
        (3, 32, 32),
        10,
        {
            "official": Version(
                50000,
                10000,
                None,
                "the official pickles, by their md5",
                {
                    "data_batch_1": "c99cafc152244af753f735de768cd75f",
                    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                    "data_batch_4": "634d18415352ddfa80567beed471001a",
                    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                    "test_batch": "40351d587109b95175f43aff81a1287e",
                },
            ),
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
        (("cifar-10-batches-py", "cifar10"), ("cifar10.npz", "npz")),
    ),
    "cifar100": DataSet(
        (3, 32, 32),
        100,
        {
            "official": Version(
                50000,
                10000,
                None,
                "the official pickles, by their md5",
                {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
            ),
            "pooled": Version(
                50000,
                10000,
                "3c5ce0adb4c2aa4d954e82671147ffe08e2506d5f3dd4b1ddf7fb33a853cd152",
                "the images are exact, the split is our own; never judged beside published numbers",
            ),
        },
        "small colour images of a hundred classes (Krizhevsky 2009)",
        "cifar-100-python/ or cifar100_pooled.npz in {data}, or dataset.download=true",
        (("cifar-100-python", "cifar100"), ("cifar100_pooled.npz", "pooled")),
    ),
    "svhn": DataSet(
        (3, 32, 32),
        10,
        {
            "official": Version(
                73257,
                26032,
                note="without the extra images",
                files={
                    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
                },
            )
        },
        "house numbers, cropped to a digit (Netzer et al. 2011)",
        "train_32x32.mat and test_32x32.mat in {data}/svhn, or dataset.download=true",
        (("svhn", "mat"), ("SVHN", "mat"), (".", "mat")),
    ),
    "tiny_imagenet": DataSet(
        (3, 64, 64),
        200,
        {
            "official": Version(
                100000,
                10000,
                note="by the names and sizes of its files; the test images are those called val",
                files={
                    "train": "e886f13d5614938e8715ac75bdd2d9bd",
                    "val/images": "9e7dba282456aaf622e8a6d4f66b5288",
                    "val/val_annotations.txt": "e9a8a28f9975223592f4c6da9fd2369b",
                },
            )
        },
        "200 classes of ImageNet at 64x64 (Stanford CS231n)",
        "the unpacked tiny-imagenet-200.zip of cs231n.stanford.edu in {data}",
        (("tiny-imagenet-200", "tiny"),),
    ),
}

FOLDERS = {
    "imagenet": FolderSet(
        1000,
        1281167,
        50000,
        "ILSVRC 2012 (Russakovsky et al. 2015); decoded while training, at dataset.size",
        "train/<class>/*.JPEG and val/<class>/*.JPEG in {data}/imagenet, from image-net.org",
    )
}

_STANDIN = {
    f"standin_{name}": DataSet(
        s.shape, s.classes, {"official": Version(max(512, 20 * s.classes), 256)}, f"made-up images of {name}'s shape"
    )
    for name, s in SETS.items()
}
_STANDIN["standin_imagenet"] = DataSet(
    (3, 16, 16), 1000, {"official": Version(4000, 1000)}, "made-up images of imagenet's classes, smaller"
)
CHOICES = (*SETS, *FOLDERS)  # what one names; a stand-in is what a scale takes in its place
SETS |= _STANDIN


def standin(name: str) -> str:
    """The made-up set of the same shape and classes."""
    return name if name in _STANDIN else f"standin_{name}"
