import gzip
import os
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest

from lthbench.base.errors import UserError
from lthbench.data.known import SETS, Version
from lthbench.data.read import Arrays, found, load
from lthbench.data.sets import Augment, DataSettings, Normalise, describe_file

RNG = np.random.default_rng(1)
CIFAR_TRAIN = RNG.integers(0, 256, (10, 32, 32, 3), np.uint8)
CIFAR_TEST = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
CIFAR_LABELS = RNG.integers(0, 10, 14).astype(np.uint8)
CIFAR = Arrays(CIFAR_TRAIN, CIFAR_LABELS[:10], CIFAR_TEST, CIFAR_LABELS[10:])
MNIST = Arrays(
    RNG.integers(0, 256, (5, 28, 28, 1), np.uint8),
    np.array([5, 0, 4, 1, 9], np.uint8),
    RNG.integers(0, 256, (3, 28, 28, 1), np.uint8),
    np.array([7, 2, 1], np.uint8),
)


def settings(name, root, version="official"):
    return DataSettings(name, version, Normalise(), Augment(), root=str(root))


def equal(one, other):
    names = ("x_train", "y_train", "x_test", "y_test")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


def declare(monkeypatch, name, version, arrays):
    """Make small made-up arrays a known version of a data set."""
    known = Version(len(arrays.y_train), len(arrays.y_test), arrays.digest())
    monkeypatch.setitem(SETS, name, replace(SETS[name], versions=SETS[name].versions | {version: known}))


def idx(array):
    """The IDX format: 0, 0, type 8, dimensions, each as a big-endian 32-bit number, then the bytes."""
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def write_mnist(folder, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (
        ("train-images-idx3-ubyte", MNIST.x_train[..., 0]),
        ("train-labels-idx1-ubyte", MNIST.y_train),
        ("t10k-images-idx3-ubyte", MNIST.x_test[..., 0]),
        ("t10k-labels-idx1-ubyte", MNIST.y_test),
    ):
        content = idx(array)
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)


def write_cifar(root, protocol=2, keys=str):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    parts = {f"data_batch_{i + 1}": slice(2 * i, 2 * i + 2) for i in range(5)}
    batches = {name: (CIFAR.x_train[rows], CIFAR.y_train[rows]) for name, rows in parts.items()}
    batches["test_batch"] = (CIFAR.x_test, CIFAR.y_test)
    for name, (x, y) in batches.items():
        content = {
            "batch_label": f"batch {name}",
            "labels": y.tolist(),
            "data": x.transpose(0, 3, 1, 2).reshape(len(x), 3072),
            "filenames": ["a.png"] * len(x),
        }
        (folder / name).write_bytes(pickle.dumps({keys(k): v for k, v in content.items()}, protocol))
    return folder


# ---- what is built in


def test_digits_are_scikit_learns_and_every_fifth_is_test():
    from sklearn.datasets import load_digits

    arrays, source = load(settings("digits", "nowhere")), load_digits()
    assert arrays.x_train.shape == (1437, 8, 8, 1)
    assert arrays.x_test.shape == (360, 8, 8, 1)
    assert arrays.x_train.dtype == arrays.y_train.dtype == np.uint8
    assert np.array_equal(arrays.x_test[1, :, :, 0], source.images[5] * 15)
    assert np.array_equal(arrays.y_test, source.target[::5])
    assert arrays.x_train.max() == 240


@pytest.mark.parametrize("name", [n for n in SETS if n.startswith("standin_")])
def test_standins_are_the_same_every_time_and_can_be_learned(name):
    arrays = load(settings(name, "nowhere"))
    (channels, height, width), version = SETS[name].shape, SETS[name].versions["official"]
    assert arrays.x_train.shape == (version.train, height, width, channels)
    assert arrays.x_test.shape == (version.test, height, width, channels)
    assert found(name, "nowhere") == "official"
    assert np.bincount(arrays.y_train, minlength=SETS[name].classes).min() >= 4
    some = np.flatnonzero(arrays.y_test < 10)
    means = np.stack([arrays.x_train[arrays.y_train == c].mean(0) for c in range(10)])
    distance = ((arrays.x_test[some, None] - means[None]) ** 2).reshape(len(some), 10, -1).sum(2)
    assert (distance.argmin(1) == arrays.y_test[some]).mean() > 0.95


def test_a_standin_keeps_its_content():
    arrays = load(settings("standin_digits", "nowhere"))
    assert arrays.digest() == "a79a28009cfd939ed0dc0bde9483e9472cd5580fa2516eef38a070076652fc63"


# ---- MNIST


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "."])
@pytest.mark.parametrize("zipped", [True, False])
def test_mnist_files_are_read_where_they_may_lie(folder, zipped, tmp_path, monkeypatch):
    declare(monkeypatch, "mnist", "official", MNIST)
    write_mnist(tmp_path / folder, zipped)
    assert found("mnist", str(tmp_path)) == "official"
    assert equal(load(settings("mnist", tmp_path)), MNIST)


def test_mnist_of_another_content_is_named(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(UserError) as error:
        load(settings("mnist", tmp_path))
    known = f"unknown (sha256 {MNIST.digest()[:12]})"
    assert str(error.value) == f"data set mnist in '{tmp_path}' is version '{known}', not 'official' as declared"


def test_mnist_that_is_absent_says_where_it_was_looked_for_and_how_to_get_it(tmp_path):
    assert found("mnist", str(tmp_path)) is None
    with pytest.raises(UserError) as error:
        load(settings("mnist", tmp_path))
    assert str(error.value) == (
        f"data set mnist is not in '{tmp_path}'; it needs the four *-ubyte.gz files in {tmp_path}/mnist, "
        "or dataset.download=true"
    )


def test_three_of_four_files_are_not_there(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert found("mnist", str(tmp_path)) is None


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_mnist_files_are_refused_in_one_line(name, zipped, tmp_path):
    write_mnist(tmp_path, zipped)
    path = tmp_path / (name + ".gz" * zipped)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(255 - b for b in whole[middle : middle + 4]) + whole[middle + 4 :]
    for damaged in (b"", whole[:-5], whole[:3], *([flipped] if zipped else [])):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"^data set mnist: '.*' is damaged: ") as error:
            load(settings("mnist", tmp_path))
        assert "\n" not in str(error.value)


# ---- CIFAR-10


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_cifar_pickles_are_read_in_their_order(protocol, tmp_path, monkeypatch):
    declare(monkeypatch, "cifar10", "rebuilt", CIFAR)
    write_cifar(tmp_path, protocol)
    assert found("cifar10", str(tmp_path)) == "rebuilt"
    assert equal(load(settings("cifar10", tmp_path, "rebuilt")), CIFAR)


def test_cifar_archive_is_read(tmp_path, monkeypatch):
    declare(monkeypatch, "cifar10", "rebuilt", CIFAR)
    np.savez(tmp_path / "cifar10.npz", **vars(CIFAR), more=np.zeros(3))
    assert equal(load(settings("cifar10", tmp_path, "rebuilt")), CIFAR)


def test_cifar_of_another_version_says_which_to_declare(tmp_path, monkeypatch):
    declare(monkeypatch, "cifar10", "rebuilt", CIFAR)
    np.savez(tmp_path / "cifar10.npz", **vars(CIFAR))
    with pytest.raises(UserError) as error:
        load(settings("cifar10", tmp_path))
    assert str(error.value) == (
        f"data set cifar10 in '{tmp_path}' is version 'rebuilt', not 'official' as declared; "
        "say dataset.version=rebuilt"
    )


def test_cifar_of_unknown_content_is_no_version(tmp_path):
    write_cifar(tmp_path)
    assert found("cifar10", str(tmp_path)) == f"unknown (sha256 {CIFAR.digest()[:12]})"
    with pytest.raises(UserError, match=r"is version 'unknown .*, not 'rebuilt' as declared$"):
        load(settings("cifar10", tmp_path, "rebuilt"))


def test_official_cifar_is_known_by_the_md5_of_its_files(tmp_path, monkeypatch):
    import hashlib

    folder = write_cifar(tmp_path)
    md5 = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    official = Version(10, 4, files=md5)
    monkeypatch.setitem(
        SETS, "cifar10", replace(SETS["cifar10"], versions=SETS["cifar10"].versions | {"official": official})
    )
    assert found("cifar10", str(tmp_path)) == "official"
    (folder / "data_batch_3").write_bytes((folder / "data_batch_2").read_bytes())
    assert found("cifar10", str(tmp_path)).startswith("unknown")


def test_cifar_that_is_absent(tmp_path):
    with pytest.raises(UserError) as error:
        load(settings("cifar10", tmp_path))
    assert str(error.value) == (
        f"data set cifar10 is not in '{tmp_path}'; it needs cifar-10-batches-py/ or cifar10.npz in {tmp_path}, "
        "or dataset.download=true"
    )


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_batch_with_code_is_refused_and_not_run(tmp_path):
    folder = write_cifar(tmp_path)
    content = {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2], "x": Payload(str(tmp_path / "trace"))}
    (folder / "data_batch_2").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(UserError, match=r"data_batch_2' is damaged: refused posix\.mkdir|refused nt\.mkdir"):
        load(settings("cifar10", tmp_path, "rebuilt"))
    assert not (tmp_path / "trace").exists()


def test_damaged_cifar_files_are_refused_in_one_line(tmp_path):
    folder = write_cifar(tmp_path)
    whole = (folder / "data_batch_1").read_bytes()
    others = [[1, 2], {"data": np.zeros((2, 3072), np.uint8)}, {"data": np.zeros((2, 5)), "labels": [1, 2]}, "text"]
    bad = [b"", whole[:-100], whole[:50], b"\x80\x02.", b"0", b"hello", *(pickle.dumps(o, 2) for o in others)]
    for content in bad:
        (folder / "data_batch_1").write_bytes(content)
        with pytest.raises(UserError, match=r"^data set cifar10: '.*data_batch_1' is damaged: ") as error:
            load(settings("cifar10", tmp_path, "rebuilt"))
        assert "\n" not in str(error.value)


# ---- archives of one's own


def write_own(path, **arrays):
    content = {
        "x_train": RNG.integers(0, 256, (6, 9, 7, 3), np.uint8),
        "y_train": np.array([0, 1, 2, 3, 2, 1]),
        "x_test": RNG.integers(0, 256, (2, 9, 7, 3), np.uint8),
        "y_test": np.array([3, 0]),
    } | arrays
    np.savez(path, **content)
    return content


def own(path):
    described = describe_file(str(path))
    described["shape"] = tuple(described["shape"])
    return DataSettings(str(path), normalise=Normalise(), augment=Augment(), **described)


@pytest.mark.parametrize("grey", [False, True])
def test_an_archive_of_ones_own(grey, tmp_path):
    path, few = tmp_path / "own.npz", {}
    if grey:
        few = {"x_train": np.ones((6, 9, 7), np.uint8), "x_test": np.ones((2, 9, 7), np.uint8)}
    content = write_own(path, **few)
    arrays = load(own(path))
    assert arrays.x_train.shape == (6, 9, 7, 1 if grey else 3)
    assert np.array_equal(arrays.x_train.reshape(content["x_train"].shape), content["x_train"])
    assert arrays.y_test.tolist() == [3, 0]


def test_an_archive_that_changes_is_noticed(tmp_path):
    path = tmp_path / "own.npz"
    write_own(path)
    declared = own(path)
    write_own(path, y_test=np.array([3, 1]))
    with pytest.raises(UserError, match=r"^dataset: '.*own\.npz' has changed since its version was declared$"):
        load(declared)


def test_an_archive_cut_short_is_refused_in_one_line(tmp_path):
    path = tmp_path / "cifar10.npz"
    np.savez_compressed(path, **vars(CIFAR))
    whole = path.read_bytes()
    middle = len(whole) // 3
    for damaged in (b"", b"PK\x03\x04", b"text", whole[:-30], whole[:middle] + b"\xff" * 64 + whole[middle + 64 :]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged or has other arrays: ") as error:
            load(settings("cifar10", tmp_path))
        assert "\n" not in str(error.value)


# ---- the real files, where they are


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train", "test"), [("mnist", [5, 0, 4, 1, 9], [7, 2, 1, 0, 4]), ("cifar10", [6], [3])]
)
def test_the_real_data(name, train, test):
    root = os.environ.get("LTHBENCH_DATA", "data")
    version = found(name, root)
    if version is None:
        pytest.skip(f"{name} is not in LTHBENCH_DATA")
    arrays = load(settings(name, root, version))
    assert arrays.y_train[: len(train)].tolist() == train
    assert arrays.y_test[: len(test)].tolist() == test
    assert len(arrays.x_train) == SETS[name].versions[version].train
    assert arrays.x_test.shape == (10000, *SETS[name].shape[1:], SETS[name].shape[0])
    assert np.bincount(arrays.y_test).min() > 800
