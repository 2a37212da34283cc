"""Fashion-MNIST, CIFAR-100, SVHN and Tiny-ImageNet, on small made-up files in the sets' own formats."""

import gzip
import hashlib
import os
import pickle
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from lthbench.base.errors import UserError
from lthbench.data import read
from lthbench.data.folders import files, names_and_sizes
from lthbench.data.formats import Arrays
from lthbench.data.known import CHOICES, SETS, Version, standin
from lthbench.data.read import found, load
from lthbench.data.sets import Augment, DataSettings, Normalise

RNG = np.random.default_rng(2)


def settings(name, root, version="official", download=False):
    return DataSettings(name, version, Normalise(), Augment(), root=str(root), download=download)


def declare(monkeypatch, name, version, **known):
    made = Version(4, 2, **known)
    monkeypatch.setitem(SETS, name, replace(SETS[name], versions=SETS[name].versions | {version: made}))


def md5(folder, names):
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in names}


def images(count, height=32, channels=3):
    return RNG.integers(0, 256, (count, height, height, channels), np.uint8)


# ---- Fashion-MNIST


def write_fashion(folder):
    folder.mkdir(parents=True)
    arrays = {"train": (images(4, 28, 1), [9, 0, 3, 2]), "t10k": (images(2, 28, 1), [2, 1])}
    for split, (x, y) in arrays.items():
        for name, array in (("images-idx3", x[..., 0]), ("labels-idx1", np.array(y, np.uint8))):
            head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
            (folder / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return arrays


@pytest.mark.parametrize("place", ["fashion_mnist", "FashionMNIST/raw"])
def test_fashion_mnist_is_official_by_the_md5_of_its_files(place, tmp_path, monkeypatch):
    folder = tmp_path / place
    arrays = write_fashion(folder)
    assert found("fashion_mnist", str(tmp_path)) == "unknown"
    names = list(SETS["fashion_mnist"].versions["official"].files)
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    declare(monkeypatch, "fashion_mnist", "official", files=md5(folder, names))
    assert found("fashion_mnist", str(tmp_path)) == "official"
    data = load(settings("fashion_mnist", tmp_path))
    assert np.array_equal(data.x_train, arrays["train"][0])
    assert data.y_train.tolist() == [9, 0, 3, 2]
    assert data.y_test.tolist() == [2, 1]
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    assert found("fashion_mnist", str(tmp_path)) == "unknown"


def test_mnists_files_are_not_taken_for_fashion_mnists(tmp_path):
    write_fashion(tmp_path / "mnist")
    assert found("fashion_mnist", str(tmp_path)) is None
    assert found("mnist", str(tmp_path)).startswith("unknown (sha256 ")


# ---- CIFAR-100


def write_cifar100(folder):
    folder.mkdir(parents=True)
    x, fine = images(6), [99, 0, 42, 7, 3, 99]
    for name, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
        flat = x[rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
        content = {"data": flat, "fine_labels": fine[rows], "coarse_labels": [0] * len(flat), "filenames": ["a"]}
        (folder / name).write_bytes(pickle.dumps(content, 2))
    return x, fine


def test_cifar100s_pickles_are_read_with_their_fine_labels(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    x, fine = write_cifar100(folder)
    assert found("cifar100", str(tmp_path)).startswith("unknown (sha256 ")
    declare(monkeypatch, "cifar100", "official", files=md5(folder, SETS["cifar100"].versions["official"].files))
    assert found("cifar100", str(tmp_path)) == "official"
    data = load(settings("cifar100", tmp_path))
    assert np.array_equal(np.concatenate([data.x_train, data.x_test]), x)
    assert [*data.y_train.tolist(), *data.y_test.tolist()] == fine


def test_a_pickle_with_too_few_labels_is_damaged(tmp_path):
    write_cifar100(tmp_path / "cifar-100-python")
    content = {"data": np.zeros((3, 3072), np.uint8), "fine_labels": [1, 2]}
    (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(UserError, match=r"^data set cifar100: '.*test' is damaged: 3 images, 2 labels$"):
        load(settings("cifar100", tmp_path))


def write_pooled(path):
    x, y, test = images(6), np.array([0, 99, 5, 5, 1, 2]), np.array([0, 1, 0, 0, 0, 1], bool)
    np.savez(path, x=x, y=y, own_test_mask=test)
    return Arrays(x[~test], y[~test].astype(np.uint8), x[test], y[test].astype(np.uint8))


def test_the_pooled_cifar100_is_split_as_its_mask_says_and_is_not_the_official_one(tmp_path, monkeypatch):
    arrays = write_pooled(tmp_path / "cifar100_pooled.npz")
    declare(monkeypatch, "cifar100", "pooled", sha256=arrays.digest())
    assert found("cifar100", str(tmp_path)) == "pooled"
    data = load(settings("cifar100", tmp_path, "pooled"))
    assert data.digest() == arrays.digest()
    assert data.y_test.tolist() == [99, 2]
    with pytest.raises(UserError, match=r"is version 'pooled', not 'official' as declared; say dataset"):
        load(settings("cifar100", tmp_path))


def test_the_pooled_version_says_that_it_is_not_judged():
    assert "never judged beside published numbers" in SETS["cifar100"].versions["pooled"].note


# ---- SVHN


def write_svhn(folder, compress=False):
    folder.mkdir(parents=True, exist_ok=True)
    x, y = images(6), np.array([[1], [10], [9], [2], [10], [3]], np.uint8)
    for name, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
        content = {"X": x[rows].transpose(1, 2, 3, 0), "y": y[rows]}
        savemat(folder / f"{name}_32x32.mat", content, do_compression=compress)
    return x


@pytest.mark.parametrize("place", ["svhn", "SVHN", "."])
@pytest.mark.parametrize("compress", [False, True])
def test_svhn_is_read_and_its_label_ten_is_the_digit_nought(place, compress, tmp_path, monkeypatch):
    x = write_svhn(tmp_path / place, compress)
    assert found("svhn", str(tmp_path)) == "unknown"
    declare(monkeypatch, "svhn", "official", files=md5(tmp_path / place, SETS["svhn"].versions["official"].files))
    assert found("svhn", str(tmp_path)) == "official"
    data = load(settings("svhn", tmp_path))
    assert np.array_equal(np.concatenate([data.x_train, data.x_test]), x)
    assert data.y_train.tolist() == [1, 0, 9, 2]
    assert data.y_test.tolist() == [0, 3]
    assert data.x_train.flags.c_contiguous


def test_a_damaged_mat_file_is_named(tmp_path, monkeypatch):
    write_svhn(tmp_path / "svhn")
    path = tmp_path / "svhn" / "test_32x32.mat"
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:40], whole[:-2000]):
        path.write_bytes(content)
        declare(monkeypatch, "svhn", "official", files=md5(path.parent, SETS["svhn"].versions["official"].files))
        with pytest.raises(UserError, match=r"^data set svhn: '.*test_32x32\.mat' is damaged: ") as error:
            load(settings("svhn", tmp_path))
        assert "\n" not in str(error.value)


# ---- Tiny-ImageNet


def write_tiny(root):
    folder = root / "tiny-imagenet-200"
    colours = {"n02": (200, 0, 0), "n01": (0, 200, 0), "n03": (0, 0, 200)}
    for wnid, colour in colours.items():
        (folder / "train" / wnid / "images").mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
        for i in range(3):
            Image.new("RGB", (64, 64), colour).save(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    Image.new("L", (64, 64), 77).save(folder / "train" / "n01" / "images" / "n01_2.JPEG")
    (folder / "val" / "images").mkdir(parents=True)
    order = ["n03", "n01", "n02"]
    for i, wnid in enumerate(order):
        Image.new("RGB", (64, 64), colours[wnid]).save(folder / "val" / "images" / f"val_{i}.JPEG")
    rows = [f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t62\n" for i, wnid in enumerate(order)]
    (folder / "val" / "val_annotations.txt").write_text("".join(rows))
    return folder


def tiny_files(folder):
    lists = {name: names_and_sizes(files(folder / name)) for name in ("train", "val/images")}
    annotations = (folder / "val" / "val_annotations.txt").read_bytes()
    return {name: hashlib.md5(b).hexdigest() for name, b in {**lists, "val/val_annotations.txt": annotations}.items()}


def test_tiny_imagenet_is_decoded_with_labels_in_the_order_of_the_wnids(tmp_path, monkeypatch):
    folder = write_tiny(tmp_path)
    declare(monkeypatch, "tiny_imagenet", "official", files=tiny_files(folder))
    assert found("tiny_imagenet", str(tmp_path)) == "official"
    data = load(settings("tiny_imagenet", tmp_path))
    assert data.x_train.shape == (9, 64, 64, 3)
    assert data.y_train.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.y_test.tolist() == [2, 0, 1]
    strongest = data.x_train.reshape(9, -1, 3).mean(1).argmax(1)
    assert strongest[[0, 1, 3, 4, 5, 6, 7, 8]].tolist() == [1, 1, 0, 0, 0, 2, 2, 2]
    assert (data.x_train[2] == 77).all()  # grey files become three channels
    assert data.x_test.reshape(3, -1, 3).mean(1).argmax(1).tolist() == [2, 1, 0]


def test_tiny_imagenet_with_a_file_missing_or_changed_is_not_official(tmp_path, monkeypatch):
    folder = write_tiny(tmp_path)
    declare(monkeypatch, "tiny_imagenet", "official", files=tiny_files(folder))
    path = folder / "train" / "n02" / "images" / "n02_1.JPEG"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0")
    assert found("tiny_imagenet", str(tmp_path)) == "unknown"
    path.unlink()
    with pytest.raises(UserError, match=r"is version 'unknown', not 'official' as declared$"):
        load(settings("tiny_imagenet", tmp_path))


def test_listing_opens_no_image(tmp_path, monkeypatch):
    folder = write_tiny(tmp_path)
    for path in (folder / "train").glob("*/images/*"):
        path.write_bytes(b"no image")
    assert found("tiny_imagenet", str(tmp_path)) == "unknown"
    declare(monkeypatch, "tiny_imagenet", "official", files=tiny_files(folder))
    assert found("tiny_imagenet", str(tmp_path)) == "official"
    with pytest.raises(UserError, match=r"^data set tiny_imagenet: image '.*n01_0\.JPEG' is damaged: "):
        load(settings("tiny_imagenet", tmp_path))


# ---- all of them


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar100", "svhn", "tiny_imagenet"])
def test_what_is_absent_says_how_to_get_it(name, tmp_path):
    assert found(name, str(tmp_path)) is None
    with pytest.raises(UserError) as error:
        load(settings(name, tmp_path))
    get = SETS[name].get.replace("{data}", str(tmp_path))
    assert str(error.value) == f"data set {name} is not in '{tmp_path}'; it needs {get}"


@pytest.mark.parametrize(
    ("name", "kind", "place"),
    [("fashion_mnist", "FashionMNIST", ""), ("cifar100", "CIFAR100", ""), ("svhn", "SVHN", "svhn")],
)
def test_download_calls_torchvision_for_both_splits_where_we_look(name, kind, place, tmp_path, monkeypatch):
    from torchvision import datasets

    writers = {"fashion_mnist": write_fashion, "cifar100": write_cifar100, "svhn": write_svhn}
    folders = {"fashion_mnist": "FashionMNIST/raw", "cifar100": "cifar-100-python", "svhn": "svhn"}
    folder, calls = tmp_path / folders[name], []

    def fake(root, split, download):
        calls.append((root, split, download))
        if not folder.exists():
            writers[name](folder)
            declare(monkeypatch, name, "official", files=md5(folder, SETS[name].versions["official"].files))

    monkeypatch.setattr(datasets, kind, fake)
    load(settings(name, tmp_path, download=True))
    splits = ("train", "test") if name == "svhn" else (True, False)
    assert calls == [(str(tmp_path / place), split, True) for split in splits]


def test_the_md5_are_torchvisions():
    from torchvision import datasets

    published = {
        "fashion_mnist": dict(datasets.FashionMNIST.resources),
        "cifar10": dict(datasets.CIFAR10.train_list + datasets.CIFAR10.test_list),
        "cifar100": dict(datasets.CIFAR100.train_list + datasets.CIFAR100.test_list),
        "svhn": {name: md5 for _, name, md5 in (datasets.SVHN.split_list[s] for s in ("train", "test"))},
    }
    for name, expected in published.items():
        assert SETS[name].versions["official"].files == expected


def test_a_set_without_a_downloader_says_so(tmp_path):
    with pytest.raises(UserError, match=r"^dataset\.download: tiny_imagenet has no downloader; it needs "):
        load(settings("tiny_imagenet", tmp_path, download=True))


def test_a_download_that_fails_is_one_line(tmp_path, monkeypatch):
    from torchvision import datasets

    def fails(*_, **__):
        raise RuntimeError("Error downloading train")

    monkeypatch.setattr(datasets, "CIFAR100", fails)
    with pytest.raises(UserError, match=rf"^data set cifar100 could not be downloaded to '{tmp_path}': Error down"):
        load(settings("cifar100", tmp_path, download=True))


def test_every_choice_has_its_settings_and_a_standin():
    from lthbench.cli.compose import conf_dir

    options = {p.stem for p in Path(conf_dir(), "dataset").iterdir()}
    assert options == {*CHOICES, "npz", "imagefolder"}
    assert all(standin(name) in SETS for name in CHOICES)


def test_known_sets_are_read_without_torch():
    code = "import lthbench.data.known, lthbench.data.sets, sys; sys.exit('torch' in sys.modules)"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion_mnist", "cifar100", "svhn", "tiny_imagenet"])
def test_the_real_files(name):
    root = os.environ.get("LTHBENCH_DATA", "data")
    version = found(name, root)
    if version is None:
        pytest.skip(f"{name} is not in LTHBENCH_DATA")
    data, known = load(settings(name, root, version)), SETS[name]
    assert len(data.x_train) == len(data.y_train) == known.versions[version].train
    assert len(data.x_test) == len(data.y_test) == known.versions[version].test
    assert data.x_train.shape[1:] == (*known.shape[1:], known.shape[0])
    assert len(np.bincount(data.y_train)) == known.classes
    assert np.bincount(data.y_test).min() > 0
    read._load.cache_clear()
