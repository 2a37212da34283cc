import hashlib

import numpy as np
import pytest

from lthbench.base.errors import UserError
from lthbench.data.known import SETS, standin
from lthbench.data.sets import Augment, DataSettings, Normalise, describe_file


def settings(name="cifar10", version="official", normalise=None, augment=None, **values):
    return DataSettings(name, version, normalise or Normalise(), augment or Augment(), **values)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "samples"),
    [
        ("digits", (1, 8, 8), 10, 1437),
        ("mnist", (1, 28, 28), 10, 60000),
        ("cifar10", (3, 32, 32), 10, 50000),
        ("standin_cifar10", (3, 32, 32), 10, 512),
    ],
)
def test_what_is_known_before_reading(name, shape, classes, samples):
    data = settings(name)
    assert (data.shape, data.classes, data.samples) == (shape, classes, samples)
    assert settings(name, validation=100).train_samples == samples - 100


def test_versions_have_their_own_counts():
    assert settings(version="partial").samples == 10000
    assert settings(version="rebuilt").samples == 50000


def test_splits_that_can_be_measured():
    assert settings().splits == ("test",)
    assert settings(validation=1).splits == ("val", "test")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "cifar"}, "unknown data set 'cifar'; did you mean 'cifar10'?"),
        ({"version": "rebuild"}, "dataset.version: cifar10 has no 'rebuild'; did you mean 'rebuilt'?"),
        ({"validation": -1}, "dataset.validation: -1 is not between 0 and the 50000 training images"),
        ({"validation": 50000}, "dataset.validation: 50000 is not between 0 and the 50000 training images"),
        ({"split_seed": -1}, "dataset.split_seed: -1 is negative"),
        (
            {"normalise": Normalise("pixel")},
            "dataset.normalise.kind: unknown 'pixel'; choose from channel, image, unit",
        ),
        ({"normalise": Normalise("channel", (0.5, 0.5))}, "dataset.normalise.mean: 2 values for 3 channels"),
        (
            {"normalise": Normalise("channel", (0.5,), (0.5,) * 4)},
            "dataset.normalise.std: 4 values for 3 channels",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(values, message):
    with pytest.raises(UserError) as error:
        settings(**values)
    assert str(error.value) == message


@pytest.mark.parametrize("std", [(0.0,), (0.2, -0.1, 0.3)])
def test_a_spread_that_is_not_positive(std):
    with pytest.raises(UserError, match=r"^dataset\.normalise\.std: .* are not all positive$"):
        Normalise("channel", (0.5,), std)


def test_padding_that_is_negative():
    with pytest.raises(UserError, match=r"^dataset\.augment\.pad: -1 is negative$"):
        Augment(-1)


def test_a_standin_has_its_models_shape():
    for name, known in SETS.items():  # of imagenet the classes only
        assert SETS[standin(name)].shape == known.shape
        assert SETS[standin(name)].classes == known.classes
        assert standin(standin(name)) == standin(name)


def write(path, **arrays):
    rng = np.random.default_rng(0)
    content = {
        "x_train": rng.integers(0, 256, (6, 5, 4, 3), np.uint8),
        "y_train": np.array([0, 1, 2, 3, 2, 1]),
        "x_test": rng.integers(0, 256, (2, 5, 4, 3), np.uint8),
        "y_test": np.array([3, 0]),
    } | arrays
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    return str(path)


def test_a_file_is_described_by_its_content(tmp_path):
    path = write(tmp_path / "own.npz")
    sha = hashlib.sha256((tmp_path / "own.npz").read_bytes()).hexdigest()
    assert describe_file(path) == {"version": sha[:32], "shape": [3, 5, 4], "classes": 4, "samples": 6}


def test_a_file_of_grey_images_has_one_channel(tmp_path):
    path = write(tmp_path / "own.npz", x_train=np.zeros((6, 5, 4), np.uint8), x_test=np.zeros((2, 5, 4), np.uint8))
    assert describe_file(path)["shape"] == [1, 5, 4]


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": None},
        {"y_train": None},
        {"x_train": np.zeros((6, 60), np.uint8)},
        {"x_train": np.zeros((0, 5, 4, 3), np.uint8), "y_train": np.zeros(0, np.int64)},
        {"x_train": np.array([object()] * 6)},
        {"x_train": np.zeros((6, 5, 4, 3), np.float32)},
        {"x_test": np.zeros((2, 5, 4, 3), np.int64)},
        {"x_test": np.zeros((2, 5, 5, 3), np.uint8)},
        {"y_train": np.zeros(5, np.int64)},
        {"y_train": np.zeros((6, 1), np.int64)},
        {"y_train": np.array([0, 1, 2, 3, 2, 300])},
        {"y_train": np.array([0, 1, 2, 3, 2, -1])},
        {"y_train": np.array([0.0, 1.0, 2.5, 3.0, 2.0, 1.0])},
        {"y_test": np.zeros(3, np.int64)},
        {"y_test": np.array([3, 4])},
    ],
)
def test_arrays_that_do_not_fit_together_are_refused_in_one_line(arrays, tmp_path):
    path = write(tmp_path / "own.npz", **arrays)
    with pytest.raises(UserError, match=r"^data set: '.*own\.npz' ") as error:
        describe_file(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"\x93NUMPY"])
def test_a_file_that_is_no_archive_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^data set: '.*own\.npz' "):
        describe_file(str(path))


def test_a_file_cut_short_is_refused_in_one_line(tmp_path):
    path = tmp_path / "own.npz"
    write(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"^data set: '.*own\.npz' "):
        describe_file(str(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"^dataset: no file '.*own\.npz'$"):
        describe_file(str(tmp_path / "own.npz"))
