"""Image folders: what lies there, how images are cut, and that batches depend on nothing but what names them."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as vision

from lthbench.base.errors import UserError
from lthbench.base.seeds import derive, generator
from lthbench.cli.resolve import _data
from lthbench.data import images as room
from lthbench.data import stream as memory
from lthbench.data.folders import describe_folder, listing, seen
from lthbench.data.images import middle, part
from lthbench.data.known import FOLDERS, SETS
from lthbench.data.read import found, verify
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import draws, normalised, split

PARTS = Augment(0, True, (0.08, 1.0), (3 / 4, 4 / 3))
CROPS = Augment(2, True)
SHAPES = [(30, 20), (20, 30), (24, 24), (41, 17), (16, 60), (18, 18), (25, 19)]


def write(folder, classes=("ant", "bee", "cat"), train=7, test=3, held="val"):
    """Images of several shapes, kinds and depths below their class."""
    rng = np.random.default_rng(5)
    for part_, count in (("train", train), (held, test)):
        for c, name in enumerate(classes):
            below = folder / part_ / name / ("images" if c == 1 else "")
            below.mkdir(parents=True)
            for i in range(count):
                width, height = SHAPES[i % len(SHAPES)]
                pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
                image = Image.fromarray(pixels).convert("L" if i == 2 else "RGB")
                image.save(below / f"{i}.{'JPEG' if i == 1 else 'png'}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("folders") / "animals")


def settings(folder, augment=PARTS, workers=0, size=16, resize=18, **values):
    known = describe_folder(str(folder), "data", size)
    known["shape"] = tuple(known["shape"])
    data = DataSettings(
        str(folder), normalise=Normalise(), augment=augment, size=size, resize=resize, workers=workers, **known
    )
    return replace(data, **values)


def fresh(data, name="train"):
    return split.__wrapped__(data, name)


def run(data, steps, size=5, seed=3, index=(0, 0), drop_last=False):
    """The batches of these steps."""
    train = fresh(data)
    per_epoch = len(train) // size if drop_last else -(-len(train) // size)
    stream = train.stream(data.augment, size, per_epoch, seed, index)
    return [stream.batch(step) for step in steps]


def same(one, other):
    return all(torch.equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True))


# ---- what lies there


def test_a_folder_is_described_by_its_files(folder):
    known = describe_folder(str(folder), "data", 16)
    assert known == {"version": listing(folder).version, "shape": [3, 16, 16], "classes": 3, "samples": 21}
    there = listing(folder)
    assert there.classes == ["ant", "bee", "cat"]
    assert there.train.labels.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert there.train.path(8) == str(folder / "train" / "bee" / "images" / "1.JPEG")
    assert there.test.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert len(known["version"]) == 32


def version(folder):
    listing.cache_clear()
    return listing(folder).version


def test_the_version_is_that_of_names_and_sizes_and_of_nothing_else(tmp_path):
    folder = write(tmp_path / "one")
    before = version(folder)
    assert version(write(tmp_path / "two")) == before  # wherever it lies
    (folder / "train" / "notes.txt").write_text("hello")
    (folder / "train" / "ant" / ".hidden.png").write_text("hello")
    (folder / "elsewhere").mkdir()
    os.utime(folder / "train" / "ant" / "0.png", (1, 1))
    assert version(folder) == before
    moved = folder / "train" / "cat" / "0.png"
    moved.rename(folder / "train" / "ant" / "9.png")
    renamed = version(folder)
    assert renamed != before
    (folder / "train" / "ant" / "9.png").rename(moved)
    assert version(folder) == before
    moved.write_bytes(moved.read_bytes() + b"\0")
    assert version(folder) not in (before, renamed)


def test_test_images_come_from_test_or_else_from_val(tmp_path):
    assert len(listing(write(tmp_path / "a", held="test", test=2)).test.labels) == 6
    both = write(tmp_path / "b", test=3)
    write(tmp_path / "c", test=1, held="test")
    (tmp_path / "c" / "test").rename(both / "test")
    assert len(listing(both).test.labels) == 3
    unlabelled = write(tmp_path / "d", test=2)
    (unlabelled / "test" / "images").mkdir(parents=True)
    (unlabelled / "val" / "ant" / "0.png").rename(unlabelled / "test" / "images" / "0.png")
    assert len(listing(unlabelled).test.labels) == 5


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ((), "dataset: no folder '{}'"),
        (("val/ant/0.png",), "dataset: '{}' has no folder 'train'"),
        (("train/0.png",), "dataset: '{}/train' has no classes: images go into a folder for each class"),
        (("train/ant/0.txt",), "dataset: '{}/train' has no classes: images go into a folder for each class"),
        (("train/ant/0.png",), "dataset: '{}' has no images in test/<class>/ or val/<class>/"),
        (("train/ant/0.png", "val/0.png"), "dataset: '{}' has no images in test/<class>/ or val/<class>/"),
        (
            ("train/ant/0.png", "val/bat/0.png"),
            "dataset: '{0}' has no images in test/<class>/ or val/<class>/: "
            "'{0}/val' has the class 'bat', which 'train' lacks",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(made, message, tmp_path):
    folder = tmp_path / "images"
    for name in made:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    with pytest.raises(UserError) as error:
        describe_folder(str(folder), "data", 16)
    assert str(error.value) == message.format(folder)


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    folder = write(tmp_path / "images")
    (folder / "train" / "ant" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"^dataset: '.*gone\.png' cannot be read: No such file"):
        listing(folder)


def test_a_folder_that_changes_is_noticed(tmp_path):
    folder = write(tmp_path / "images")
    data = settings(folder)
    verify(data)
    (folder / "train" / "ant" / "0.png").unlink()
    listing.cache_clear()
    with pytest.raises(UserError, match=r"^dataset: '.*images' is version '\w{32}', not '\w{32}' as declared$"):
        verify(data)


# ---- settings


def test_the_settings_of_a_folder_are_in_its_id_and_workers_are_not(folder):
    data = settings(folder)
    identity = data.spelled_out()
    assert (identity["size"], identity["resize"]) == (16, 18)
    assert identity["augment"]["scale"] == [0.08, 1.0]
    assert not {"workers", "root", "download"} & set(identity)
    assert replace(data, workers=5).text == data.text
    assert data.shape == (3, 16, 16)
    assert data.splits == ("test",)


def test_what_folders_brought_is_in_no_id_of_a_set_in_memory():
    data = DataSettings("mnist", "official", Normalise(), Augment())
    assert set(data.spelled_out()) == {
        "name", "version", "normalise", "augment", "validation", "split_seed", "shape", "classes", "samples",
    }  # fmt: skip
    assert set(data.spelled_out()["augment"]) == {"pad", "flip"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resize": 15}, "dataset.resize: 15 is less than dataset.size=16, or that is none"),
        ({"size": -1}, "dataset.resize: 18 is less than dataset.size=-1, or that is none"),
        ({"workers": -1}, "dataset.workers: -1 is negative"),
        ({"validation": 21}, "dataset.validation: 21 is not between 0 and the 21 training images"),
    ],
)
def test_settings_of_folders_that_cannot_be(values, message, folder):
    with pytest.raises(UserError) as error:
        replace(settings(folder), **values)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, True, (0.5,), (1.0, 1.0)), "dataset.augment.scale: [0.5] is not a lower and an upper bound above 0"),
        ((0, True, (0.5, 0.2), (1.0, 1.0)), "dataset.augment.scale: [0.5, 0.2] is not a lower and an upper bound"),
        ((0, True, (0.5, 1.5), (1.0, 1.0)), "dataset.augment.scale: 1.5 is more than the whole image"),
        ((0, True, (0.5, 1.0), (0.0, 1.0)), "dataset.augment.ratio: [0.0, 1.0] is not a lower and an upper bound"),
        ((0, True, (0.5, 1.0), ()), "dataset.augment.scale, dataset.augment.ratio: both are given, or both are []"),
        ((4, True, (0.5, 1.0), (1.0, 1.0)), "dataset.augment.pad, dataset.augment.scale: one of them"),
    ],
)
def test_random_parts_that_cannot_be(values, message):
    with pytest.raises(UserError) as error:
        Augment(*values)
    assert str(error.value).startswith(message)


def test_random_parts_are_for_folders():
    with pytest.raises(UserError, match=r"^dataset\.augment\.scale: is for image folders, not for cifar10$"):
        DataSettings("cifar10", "official", Normalise(), PARTS)


def test_a_published_folder_is_chosen_as_a_group():
    with pytest.raises(UserError, match=r"^dataset\.name: imagenet is read from image files; say dataset=imagenet$"):
        DataSettings("imagenet", "official", Normalise(), Augment())


def section(name, **values):
    return {
        "name": name, "version": None, "validation": 0, "split_seed": 0, "size": 16, "resize": None,
        "normalise": {"kind": "channel", "mean": [0.5], "std": [0.5]},
        "augment": {"pad": 0, "flip": True, "scale": [0.08, 1.0], "ratio": [0.75, 1.25]}, "workers": 1,
    } | values  # fmt: skip


def test_the_command_line_reads_version_and_counts_from_the_folder(folder):
    data = _data(section(str(folder)), "data", False)
    assert (data.version, data.samples, data.classes) == (listing(folder).version, 21, 3)
    assert (data.size, data.resize, data.workers) == (16, 18, 1)
    assert _data(section(str(folder), resize=40), "data", False).resize == 40
    with pytest.raises(UserError, match=r"^dataset\.size: 0 is not positive$"):
        _data(section(str(folder), size=0), "data", False)
    with pytest.raises(UserError, match=r"^dataset\.name: name the folder, dataset=imagefolder dataset\.name=DIR$"):
        _data(section("???"), "data", False)


def test_imagenet_lies_below_the_data_folder_and_is_counted(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=rf"^data set imagenet is not in '{tmp_path}'; it needs .*{tmp_path}/imagenet"):
        _data(section("imagenet"), str(tmp_path), False)
    assert found("imagenet", str(tmp_path)) is None
    folder = write(tmp_path / "imagenet")
    assert seen("imagenet", str(tmp_path)).startswith("3 classes in train, 3 in val")
    with pytest.raises(UserError, match=r"has 3 classes, 21 training and 9 test images, imagenet has 1000, 12"):
        _data(section("imagenet"), str(tmp_path), False)
    monkeypatch.setitem(FOLDERS, "imagenet", replace(FOLDERS["imagenet"], classes=3, train=21, test=9))
    data = _data(section("imagenet"), str(tmp_path), False)
    assert data.name == "imagenet"
    assert data.version == listing(folder).version
    assert len(fresh(data, "test")) == 9


def test_a_scale_on_made_up_data_needs_no_folder():
    data = _data(section("imagenet"), "nowhere", True)
    assert (data.name, data.streamed, data.augment) == ("standin_imagenet", False, Augment(4, True))
    assert data.shape == SETS["standin_imagenet"].shape


# ---- how images are cut


@pytest.mark.parametrize("shape", [*SHAPES, (300, 200), (201, 333)])
@pytest.mark.parametrize(("resize", "size"), [(18, 16), (16, 16), (40, 16), (17, 16)])
def test_the_middle_is_torchvisions(shape, resize, size):
    pixels = np.random.default_rng(0).integers(0, 256, (shape[1], shape[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    expected = vision.center_crop(vision.resize(image, resize), size)
    assert np.array_equal(middle(image, resize, size), np.asarray(expected))


def test_random_parts_are_within_the_image_and_of_the_asked_area_and_aspect():
    rng = np.random.default_rng(0)
    areas, aspects, places = [], [], []
    for words in rng.integers(0, 2**32, (4000, 3 + 2 * room.TRIES)).tolist():
        left, top, width, height = part((500, 500), words, PARTS)
        assert 0 <= left <= left + width <= 500
        assert 0 <= top <= top + height <= 500
        areas.append(width * height / 250000)
        aspects.append(math.log(width / height))
        if width < 500 and height < 500:
            places.append((left / (500 - width), top / (500 - height)))
    assert 0.07 < min(areas) < 0.1
    assert 0.95 < max(areas) <= 1
    assert min(aspects) > math.log(3 / 4) - 0.01
    assert max(aspects) < math.log(4 / 3) + 0.01
    assert abs(np.mean(aspects)) < 0.02
    assert np.abs(np.mean(places, 0) - 0.5).max() < 0.03
    assert abs(np.corrcoef(np.array(places).T)[0, 1]) < 0.06
    assert 0.45 < np.mean(areas) < 0.55


@pytest.mark.parametrize(
    ("shape", "expected"), [((100, 10), (43, 0, 13, 10)), ((10, 100), (0, 43, 10, 13)), ((12, 10), (0, 0, 12, 10))]
)
def test_where_no_part_fits_the_middle_is_taken(shape, expected):
    none = Augment(0, False, (1.0, 1.0), (3 / 4, 4 / 3))
    words = [7, 7, 7] + [0, 0] * room.TRIES
    assert part(shape, words, none) == expected


def test_parts_of_an_epoch_are_cut_as_torchvision_cuts_them(folder):
    data = settings(folder, validation=4)
    batches = run(data, range(8, 12), seed=6, index=(2, 1))  # 17 images: this is epoch 2
    x, y = (torch.cat(parts) for parts in zip(*batches))
    train, key = fresh(data), derive(6, "augment", 2, 1)
    samples = train.samples[torch.randperm(17, generator=generator(6, "order", 2, 1, 2))]
    words = torch.stack([memory.hashed(key, 2, samples, purpose) for purpose in range(23)], 1).tolist()
    flips = draws(key, 2, samples, Augment(0, True))[2].tolist()
    for row, (sample, word, flip) in enumerate(zip(samples.tolist(), words, flips)):
        image = Image.open(listing(folder).train.path(sample)).convert("RGB")
        left, top, width, height = part(image.size, word, PARTS)
        cut = vision.resized_crop(image, top, left, height, width, [16, 16])
        pixels = torch.from_numpy(np.array(vision.hflip(cut) if flip else cut))
        assert torch.equal(x[row], normalised(pixels[None], data.normalise)[0].permute(2, 0, 1))
    assert torch.equal(y, torch.from_numpy(listing(folder).train.labels)[samples])
    assert {True, False} == set(flips)


def test_padded_crops_are_those_of_a_set_in_memory(folder):
    """The middles of all images, held in memory, give the same batches."""
    data = settings(folder, CROPS)
    decoded = [middle(Image.open(listing(folder).train.path(i)).convert("RGB"), 18, 16) for i in range(21)]
    held = memory.Split(torch.from_numpy(np.stack(decoded)), fresh(data).y, torch.arange(21), data.normalise)
    stream = held.stream(CROPS, 5, 5, 3, (0, 0))
    assert same(run(data, range(12)), [stream.batch(step) for step in range(12)])


# ---- batches


@pytest.mark.parametrize("augment", [PARTS, CROPS, Augment()], ids=["parts", "crops", "plain"])
def test_batches_depend_on_no_number_of_workers_and_no_starting_point(augment, folder):
    data = settings(folder, augment)
    expected = run(data, range(14))
    assert [len(y) for _, y in expected[:5]] == [5, 5, 5, 5, 1]
    assert same(run(replace(data, workers=2), range(14)), expected)
    assert same(run(replace(data, workers=1), range(7, 14)), expected[7:])  # resumed
    jumps = [3, 4, 0, 13, 13, 2]
    assert same(run(data, jumps), [expected[step] for step in jumps])
    assert expected[0][0].is_contiguous(memory_format=torch.channels_last)
    assert expected[0][0].shape == (5, 3, 16, 16)


def test_seed_index_and_epoch_move_batches(folder):
    data = settings(folder)
    first = run(data, range(5))
    for other in (run(data, range(5), seed=4), run(data, range(5), index=(0, 1)), run(data, range(5, 10))):
        assert not same(first, other)


def test_an_epoch_takes_every_training_image_once_and_no_held_out_one(folder):
    data = settings(folder, Augment(), validation=6, split_seed=2)
    train, val = fresh(data), fresh(data, "val")
    assert sorted([*train.samples.tolist(), *val.samples.tolist()]) == list(range(21))
    whole = train.batch(slice(None))
    seen_rows = torch.cat([x for x, _ in run(data, range(3, 6))])
    at = [int((whole == x).flatten(1).all(1).nonzero()) for x in seen_rows]
    assert sorted(at) == list(range(15))
    assert len(run(data, range(3), size=4, drop_last=True)[2][1]) == 4


def test_a_folder_answers_as_a_set_in_memory_does(folder):
    data = settings(folder, workers=2)
    test = fresh(data, "test")
    decoded = [middle(Image.open(listing(folder).test.path(i)).convert("RGB"), 18, 16) for i in range(9)]
    held = memory.Split(torch.from_numpy(np.stack(decoded)), test.y, test.samples, data.normalise)
    assert len(test) == 9
    for index in (slice(2, 5), slice(None), torch.tensor([8, 0, 8])):
        assert torch.equal(test.batch(index), held.batch(index))
    assert [rows for rows, _ in test.batches(4)] == [slice(0, 4), slice(4, 8), slice(8, 9)]
    assert torch.equal(torch.cat([x for _, x in test.batches(4)]), held.batch(slice(None)))


def test_pieces_of_a_large_batch_are_put_together_in_order(folder, monkeypatch):
    test = fresh(settings(folder, workers=2), "test")
    whole = test.batch(slice(None))
    monkeypatch.setattr(room, "PIECE", 2)
    assert torch.equal(test.batch(slice(None)), whole)


def test_measuring_and_scoring_take_a_folder_as_they_take_arrays(folder, monkeypatch):
    from lthbench.evaluation.metrics import measure
    from lthbench.pruning.scoring import Scoring, draw

    data = settings(folder)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 3))
    rng = torch.get_rng_state()
    result = measure(net, fresh(data, "test"), per_class=True)
    logits, y = net(fresh(data, "test").batch(slice(None))).detach(), fresh(data, "test").y
    assert result["accuracy"] == float((logits.argmax(1) == y).double().mean())
    assert result["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, y)), rel=1e-6)
    monkeypatch.setattr(room, "EVALUATION_VALUES", 3 * 16**2 * 2)
    pieces = measure(net, fresh(data, "test"))
    assert pieces["accuracy"] == result["accuracy"]
    assert pieces["loss"] == pytest.approx(result["loss"], rel=1e-6)
    batches = draw(Scoring(data=replace(data, augment=Augment()), seed=1, batches=2, per_class=2), 0)
    assert [y.tolist() for _, y in batches] == [[0, 0, 1, 1, 2, 2]] * 2
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_in_one_line(workers, tmp_path):
    folder = write(tmp_path / "images")
    path = folder / "train" / "cat" / "1.JPEG"
    for content in (b"", b"no image", path.read_bytes()[:-300]):
        path.write_bytes(content)
        listing.cache_clear()
        with pytest.raises(ValueError, match=r"^image '.*cat/1\.JPEG' is damaged: ") as error:
            run(settings(folder, workers=workers), range(5))
        assert "\n" not in str(error.value)


def test_an_image_that_is_gone_is_damage_and_no_missing_stage(tmp_path):
    folder = write(tmp_path / "images")
    data = settings(folder)
    train = fresh(data)
    (folder / "train" / "ant" / "3.png").unlink()
    with pytest.raises(ValueError, match=r"^image '.*ant/3\.png' is damaged: "):
        train.batch(slice(None))


def test_workers_end_with_what_they_work_for(folder):
    import multiprocessing

    data = settings(folder, workers=2)
    train = fresh(data)
    stream = train.stream(data.augment, 5, 5, 0, (0, 0))
    stream.batch(0)
    assert len(multiprocessing.active_children()) == 2
    stream.batch(3)  # elsewhere: others begin
    assert len(multiprocessing.active_children()) == 2
    del stream
    assert not multiprocessing.active_children()


# ---- the whole command


ONE = [
    "dataset=imagefolder", "dataset.size=8", "dataset.validation=5", "train.epochs=2", "train.batch=8",
    "schedule=oneshot", "sparsity=0.5", "model=lenet_300_100", "train.evaluate.every=1", "train.evaluate.unit=epoch",
]  # fmt: skip


def command(*words):
    from lthbench.cli.main import main

    return main(list(words))


def weights(out):
    import json

    (path,) = (out / "runs").glob("*.json")
    return path.stem, json.loads(path.read_text())["final_weights_sha256"]


@pytest.mark.slow
def test_a_run_on_a_folder_is_the_same_for_any_workers_and_jobs(folder, tmp_path):
    results = set()
    for workers, jobs in ((0, 1), (2, 1), (2, 2)):
        out = tmp_path / f"{workers}-{jobs}"
        words = f"dataset.name={folder}", f"dataset.workers={workers}", f"jobs={jobs}", f"out={out}"
        assert command(*ONE, *words) == 0
        results.add(weights(out))
    assert len(results) == 1


@pytest.mark.slow
def test_a_damaged_image_fails_its_stage_with_the_files_name(tmp_path, capsys):
    folder = write(tmp_path / "images")
    (folder / "train" / "cat" / "1.JPEG").write_bytes(b"no image")
    code = command(*ONE, f"dataset.name={folder}", f"out={tmp_path / 'out'}", "jobs=1", "dataset.validation=0")
    assert code == 1
    said = "".join(capsys.readouterr())
    assert "cat/1.JPEG' is damaged" in said.replace("\n", "")
