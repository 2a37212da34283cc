"""Files of the store: what is written is read, and what is damaged is noticed, set aside and made again."""

import random
import shutil

import pytest
import torch
from engine.conftest import IMP
from engine.small_runs import Interrupt, Log, compute, consumers, contents, small, stages
from safetensors.torch import save

from lthbench.engine.graph import Best
from lthbench.engine.store import At, Damaged, Output, Points, Store, moments_file, progress_file, state_file
from lthbench.programs import experiment

ROLES = experiment(IMP).roles
DENSE, MASK, LEVEL = ROLES["dense"].stage, ROLES["mask 1"], ROLES["net 1"].stage
INIT, RESULT = ROLES["init"], ROLES["result"]


def test_tensors_come_back_as_they_went(tmp_path):
    store = Store(tmp_path)
    odd = {
        "float": torch.tensor([0.1, -0.0, float("inf"), float("nan")]),
        "half": torch.tensor([[1.5]], dtype=torch.bfloat16),
        "mask": torch.tensor([True, False, True]),
        "count": torch.tensor(7),
        "nothing": torch.zeros(0, 3),
        "turned": torch.arange(6.0).view(2, 3).t(),
    }
    meta = {"b": [1, 2.5, None], "a": {"text": 'quoted "ü"'}}
    store.write(INIT, "out.safetensors", odd, meta)
    tensors, values = store.read(INIT.id, "out.safetensors")
    assert values == meta and list(values) == ["a", "b"]
    assert tensors.keys() == odd.keys()
    for name, tensor in odd.items():
        assert tensors[name].dtype == tensor.dtype and tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name].nan_to_num(), tensor.nan_to_num())
    assert tensors["float"][1].signbit()  # -0 stays -0


def test_the_same_content_is_the_same_bytes(tmp_path):
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    for number, order in enumerate([["a", "b"], ["b", "a"]] * 5):
        Store(tmp_path / str(number)).write(INIT, "out.safetensors", {n: tensors[n] for n in order}, {"y": 1, "x": 2})
    assert len({tuple(contents(folder).values()) for folder in tmp_path.iterdir()}) == 1


def test_json_comes_back_and_what_json_has_not_is_refused(tmp_path):
    store = Store(tmp_path)
    store.write_json(INIT, "out.json", {"b": 1.5, "a": [None, "x"]})
    assert store.output(INIT) == {"a": [None, "x"], "b": 1.5}
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(INIT, "out.json", {"loss": float("nan")})
    assert store.output(INIT) == {"a": [None, "x"], "b": 1.5}


def test_curves_only_grow(tmp_path):
    store = Store(tmp_path)
    assert store.curve(DENSE.id) == {}
    store.extend_curve(DENSE, {"val": {20: {"loss": 1.0}, 5: {"loss": 3.0}}})
    store.extend_curve(DENSE, {"test": {20: {"loss": 2.0}}, "val": {10: {"loss": 2.0}}})
    curve = store.curve(DENSE.id)
    assert curve == {
        "val": {5: {"loss": 3.0}, 10: {"loss": 2.0}, 20: {"loss": 1.0}},
        "test": {20: {"loss": 2.0}},
    }


@pytest.mark.parametrize(
    ("first", "every", "until", "steps"),
    [
        (0, 5, 12, [5, 10, 12]),
        (0, 5, 10, [5, 10]),
        (7, 5, 20, [10, 15, 20]),  # counted on the dense schedule
        (10, 5, 20, [15, 20]),  # after the first step, not at it
        (0, 50, 10, [10]),
        (10, 5, 10, [10]),  # no training at all: the state as it is
    ],
)
def test_measured_steps(first, every, until, steps):
    assert list(Points("val", every, until).steps(first)) == steps


def test_what_a_store_has(copied):
    assert copied.has(INIT, Output()) and copied.has(MASK, Output()) and copied.has(RESULT, Output())
    assert copied.has(DENSE, At(10, full=True)) and copied.has(DENSE, At(40))
    assert not copied.has(DENSE, At(20))
    assert copied.has(DENSE, Points("val", 20, 40)) is False  # only the last trajectory was asked for points
    last = ROLES["net 2"].stage
    assert copied.has(last, Points("val", 20, 40)) and copied.has(last, Points("test", 40, 40))
    assert not copied.has(last, Points("val", 5, 40)) and not copied.has(last, Points("val", 20, 60))
    assert not copied.has(LEVEL, At(Best("val.loss", 20, 40)))
    (copied.folder(DENSE.id) / moments_file(10)).unlink()
    assert copied.has(DENSE, At(10)) and not copied.has(DENSE, At(10, full=True))
    other = stages(small(seed=9))[0]
    assert not copied.has(other, Output()) and copied.names(other.id) == set()


def test_resumption_starts_at_the_latest_full_state_that_hides_nothing(copied):
    curve = {"val": {20: {}, 40: {}}}
    assert copied.resumable(DENSE, {At(40)}) == 40  # as it is, moments and all
    assert copied.resumable(DENSE, {At(39)}) == copied.resumable(DENSE, {At(10)}) == 10
    assert copied.resumable(DENSE, {At(9)}) is None
    assert copied.resumable(DENSE, {At(60), At(39)}) == 10
    assert copied.resumable(DENSE, {Points("val", 20, 60)}) == 10
    copied.extend_curve(DENSE, curve)
    assert copied.resumable(DENSE, {Points("val", 20, 60)}) == 40
    assert copied.resumable(DENSE, {Points("val", 20, 60), Points("test", 5, 40)}) is None
    assert copied.resumable(DENSE, {At(Best("val.loss", 5, 40)), At(60)}) is None  # nothing known of the best so far
    (copied.folder(DENSE.id) / moments_file(40)).unlink()
    assert copied.resumable(DENSE, {At(60)}) == 10


# ---- damage


def truncated(data):
    return data[: len(data) // 2]


def emptied(data):
    return b""


def flipped(data):
    return data[:-40] + bytes([data[-40] ^ 8]) + data[-39:]


def headless(data):
    return bytes(64) + data[64:]


def longer(data):
    return data + b"more"


def a_picture(data):
    return b"\x89PNG\r\n\x1a\n" + bytes(100)


def of_another_program(data):
    return save({"weight": torch.ones(3)}) if data[8:9] == b"{" else b'{"weight": [1, 1, 1]}'


def deleted(data):
    return None


DAMAGES = [truncated, emptied, flipped, headless, longer, a_picture, of_another_program, deleted]
FILES = {  # file -> the stages that read it
    "init": (INIT, "out.safetensors", [DENSE]),
    "mask": (MASK, "out.safetensors", [LEVEL]),
    "rewinding point": (DENSE, state_file(10), [LEVEL]),
    "its moments": (DENSE, moments_file(10), [LEVEL]),
    "end of dense training": (DENSE, state_file(40), [MASK]),
    "end of a level": (ROLES["net 2"].stage, state_file(40), [RESULT]),
}


def spoil(path, damage):
    """Damage a file; what it holds then (None: it is gone)."""
    broken = damage(path.read_bytes())
    path.unlink() if broken is None else path.write_bytes(broken)
    return broken


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("what", FILES)
def test_damaged_files_are_set_aside_and_made_again(copied, finished, what, damage):
    stage, name, readers = FILES[what]
    lost = [*readers, *consumers(readers, IMP)]
    for consumer in lost:
        shutil.rmtree(copied.folder(consumer.id))
    broken = spoil(copied.folder(stage.id) / name, damage)
    assert (name in copied.names(stage.id)) == (broken is not None)  # a damaged file is there until it is read
    outcome = compute(copied, IMP)
    assert not outcome.failed
    assert outcome.computed == {stage, *lost}
    assert contents(copied.root) == contents(finished)
    graves = list((copied.root / "damaged").glob("*"))
    assert [g.read_bytes() for g in graves] == ([] if broken is None else [broken])
    assert all(g.name.startswith(f"{stage.id}-{name}") for g in graves)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_damaged_file_that_nobody_needs_is_not_even_read(copied, finished, damage):
    spoil(copied.folder(DENSE.id) / state_file(40), damage)
    outcome = compute(copied, IMP)
    assert not outcome.computed and not outcome.failed
    assert not (copied.root / "damaged").exists()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_damaged_curve_is_measured_again(copied, finished, damage):
    last = ROLES["net 2"].stage
    spoil(copied.folder(last.id) / "curve.json", damage)
    outcome = compute(copied, IMP)
    assert not outcome.failed and outcome.computed == {last}
    assert contents(copied.root) == contents(finished)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("what", ["progress of the best point", "state for resumption"])
def test_damage_between_interruption_and_resumption(tmp_path, monkeypatch, damage, what):
    from lthbench.stages import train

    run = small(sparsity="0", every=5, select="best_val_loss")
    dense, best = experiment(run).trajectory, Best("val.loss", 5, 40)
    compute(Store(tmp_path / "undisturbed"), run)
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    store = Store(tmp_path / "store")
    with pytest.raises(KeyboardInterrupt):
        compute(store, run, listeners=[Interrupt(dense, 30)])
    assert {progress_file(best), "r000000025.safetensors"} <= store.names(dense.id)
    name = progress_file(best) if what.startswith("progress") else "r000000025.safetensors"
    spoil(store.folder(dense.id) / name, damage)
    outcome = compute(store, run)
    assert not outcome.failed
    assert contents(store.root) == contents(tmp_path / "undisturbed")


def test_no_single_flipped_bit_goes_unnoticed(tmp_path):
    """Every bit of the header and some of the rest: reading says Damaged, or gives what was written."""
    store = Store(tmp_path)
    mask = {"fc1.weight": torch.arange(300).remainder(3).bool(), "fc2.weight": torch.ones(5, dtype=torch.bool)}
    store.write(MASK, "out.safetensors", mask, {"diverged_at": None})
    path = store.folder(MASK.id) / "out.safetensors"
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    bits = [*range(8 * header), *random.Random(0).sample(range(8 * header, 8 * len(good)), 200)]
    wrong = {}
    for bit in bits:
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            tensors, meta = store.read(MASK.id, "out.safetensors")
        except Damaged:
            assert not path.exists()
            continue
        except Exception as error:
            wrong[bit] = f"{type(error).__name__}: {error}"
            continue
        if meta != {"diverged_at": None} or any(not torch.equal(tensors[name], mask[name]) for name in mask):
            wrong[bit] = "read as if nothing had happened"
    assert not wrong


def test_no_single_flipped_bit_of_a_json_goes_unnoticed(tmp_path):
    store = Store(tmp_path)
    value = {"metrics": {"test": {"accuracy": 0.9375, "loss": 1e-05}}, "diverged_at": None, "step": 440}
    store.write_json(RESULT, "out.json", value)
    path = store.folder(RESULT.id) / "out.json"
    good = path.read_bytes()
    wrong = {}
    for bit in range(8 * len(good)):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            if store.output(RESULT) != value:
                wrong[bit] = "read as if nothing had happened"
        except Damaged:
            assert not path.exists()
        except Exception as error:
            wrong[bit] = f"{type(error).__name__}: {error}"
    assert not wrong


def test_an_altered_description_is_seen_and_changes_no_result(copied, finished):
    path = copied.folder(DENSE.id) / "stage.json"
    text = path.read_text()
    path.write_text(text.replace('"lr":0.1', '"lr":0.2'))
    assert path.read_text() != text
    assert copied.describe(DENSE.id) is None
    assert copied.describe(MASK.id) is not None
    for other in (b"", b"\xff\xfe", text[:-1].encode()):
        path.write_bytes(other)
        assert copied.describe(DENSE.id) is None
    path.unlink()
    assert copied.describe(DENSE.id) is None
    (copied.folder(DENSE.id) / state_file(40)).unlink()
    for consumer in consumers([DENSE], IMP):
        shutil.rmtree(copied.folder(consumer.id))
    assert not compute(copied, IMP).failed  # whoever writes to the folder describes it again
    assert contents(copied.root) == contents(finished)


def test_ids_pass_over_what_is_not_theirs(copied):
    known = set(copied.ids())
    (copied.root / "zz" / ("0" * 32)).mkdir(parents=True)
    (copied.root / "ab" / "notes").mkdir(parents=True)
    (copied.root / "ab" / ("cd" + "0" * 30)).mkdir()
    (copied.root / "ab" / ("ab" + "0" * 30)).mkdir()  # nothing in it
    assert set(copied.ids()) == known == {s.id for s in stages(IMP)}


def test_half_written_files_are_invisible(copied):
    folder = copied.folder(DENSE.id)
    (folder / ".part-1-1").write_bytes(b"half")
    assert not any(name.startswith(".") for name in copied.names(DENSE.id))
    log = Log()
    assert not compute(copied, IMP, listeners=[log]).computed and not log.works()


def test_size_counts_the_files(copied):
    assert copied.size(INIT.id) == sum(p.stat().st_size for p in copied.folder(INIT.id).iterdir())
