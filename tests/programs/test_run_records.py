"""A run's JSON: the same for the same id but for curves, cost and environment; nothing else is read as one."""

import json
import os

import pytest
from engine.small_runs import compute, small

from lthbench.base.errors import UserError
from lthbench.base.settings import canonical
from lthbench.engine.store import Store
from lthbench.launch import local
from lthbench.programs import experiment, record
from lthbench.programs.identity import identity

RUN = small("early", "0.36", schedule="iterative", every=20)
FREE = {"curves", "cost", "environment"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run and the folder of its results."""
    out = tmp_path_factory.mktemp("out")
    assert not local.run([experiment(RUN)], Store(out / "store"), out).failed
    return out


def result(out):
    return record.read(out / "runs" / f"{experiment(RUN).id}.json")


def test_the_record_says_what_was_asked_and_what_came_out(made):
    found, run = result(made), experiment(RUN)
    assert found["schema"] == record.SCHEMA and found["id"] == run.id and found["seed"] == 0
    assert found["config"] == json.loads(canonical(identity(RUN)))
    assert found["stages"] == {role: ref.ref for role, ref in run.roles.items()}
    assert found["stages"]["dense"].endswith("@40") and found["stages"]["result"] == run.id
    assert found["sparsity"]["prunable"] == {"removed": 835, "total": 2320}
    assert set(found["metrics"]) == {"val", "test"} and 0 <= found["metrics"]["test"]["accuracy"] <= 1
    assert sorted(found["curves"]["val"], key=int) == ["20", "40"]
    assert found["metrics"]["val"]["loss"] == pytest.approx(found["curves"]["val"]["40"]["loss"], abs=0)
    assert found["cost"]["trajectories"] == 3 and found["cost"]["train_seconds"] > 0
    assert found["environment"]["threads"] == 1 and found["environment"]["device"] == "cpu"
    assert sum(layer["kept"] for layer in found["layers"].values()) == 2320 - 835


def test_the_same_id_is_the_same_record_elsewhere_and_spelled_otherwise(made, tmp_path):
    other = small("early", "9/25", schedule="iterative", k=10, unit="iteration", retrain="lrw", every=5)
    assert experiment(other).id == experiment(RUN).id
    assert not local.run([experiment(other)], Store(tmp_path / "store"), tmp_path).failed
    one, two = result(made), result(tmp_path)
    assert {k: v for k, v in one.items() if k not in FREE} == {k: v for k, v in two.items() if k not in FREE}
    for series, points in one["curves"].items():
        assert points.items() <= two["curves"][series].items()
    assert len(two["curves"]["val"]) > len(one["curves"]["val"])


def test_points_asked_later_make_the_record_grow(made, tmp_path):
    store = Store(tmp_path / "store")
    local.run([experiment(RUN)], store, tmp_path)
    before = result(tmp_path)
    finer = experiment(small("early", "0.36", schedule="iterative", every=5))
    outcome = local.run([finer], store, tmp_path)
    assert outcome.computed == {finer.trajectory}
    after = result(tmp_path)
    assert {k: v for k, v in after.items() if k not in FREE} == {k: v for k, v in before.items() if k not in FREE}
    assert before["curves"]["val"].items() < after["curves"]["val"].items()


def test_a_record_that_is_gone_is_written_again_without_computing(made):
    path = made / "runs" / f"{experiment(RUN).id}.json"
    before = path.read_text()
    path.unlink()
    outcome = local.run([experiment(RUN)], Store(made / "store"), made)
    assert not outcome.computed and path.read_text() == before


def test_threads_are_recorded_and_name_nothing(tmp_path):
    """The bits may differ with the number of threads, the id does not."""
    import torch

    run = experiment(small(sparsity="0", steps=2))
    for threads in (2, 1):
        assert not local.run(
            [run], Store(tmp_path / f"store {threads}"), tmp_path / str(threads), threads=threads
        ).failed
        found = record.read(tmp_path / str(threads) / "runs" / f"{run.id}.json")
        assert found["environment"]["threads"] == threads == torch.get_num_threads()


def test_a_damaged_result_is_listed_and_made_again(made, tmp_path):
    store = Store(tmp_path / "store")
    run = experiment(RUN)
    local.run([run], store, tmp_path)
    before = result(tmp_path)
    (tmp_path / "runs" / f"{run.id}.json").unlink()
    (store.folder(run.id) / "out.json").write_text("{")
    first = local.run([run], store, tmp_path)
    assert first.failed == {} or list(first.failed) == [run.result]
    assert not local.run([run], store, tmp_path).failed
    after = result(tmp_path)
    assert {k: v for k, v in after.items() if k not in FREE} == {k: v for k, v in before.items() if k not in FREE}


def test_a_record_is_of_a_result_that_is_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        record.record(experiment(RUN), Store(tmp_path), "cpu", 1)


def test_a_run_without_training_has_no_curves(tmp_path):
    run = experiment(small(sparsity="0", steps=0))
    store = Store(tmp_path)
    compute(store, run)
    found = record.record(run, store, "cpu", 1)
    assert found["curves"] == {} and found["cost"]["trajectories"] == 0 and found["seed"] == 0


def test_writing_is_all_or_nothing(made, tmp_path, monkeypatch):
    value = result(made)
    path = record.write(tmp_path, value)
    assert record.read(path) == value and [p.name for p in tmp_path.iterdir()] == [f"{value['id']}.json"]

    def full(source, target):
        raise OSError("no room")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no room"):
        record.write(tmp_path, value | {"seed": 1})
    monkeypatch.undo()
    assert record.read(path) == value
    with pytest.raises(ValueError, match="JSON"):
        record.write(tmp_path, value | {"seed": float("nan")})
    assert record.read(path) == value


def text(value):
    return json.dumps(value)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda v: "", "is no JSON"),
        (lambda v: text(v)[:-9], "is no JSON"),
        (lambda v: "[1]", "is no result of schema 1"),
        (lambda v: "7", "is no result of schema 1"),
        (lambda v: text({**v, "schema": 0}), "is no result of schema 1"),
        (lambda v: text({**v, "schema": 2}), "is no result of schema 1"),
        (lambda v: text({k: x for k, x in v.items() if k != "schema"}), "is no result of schema 1"),
        (lambda v: text({**v, "metrics": None}), "'metrics' is missing or no dict"),
        (lambda v: text({k: x for k, x in v.items() if k != "stages"}), "'stages' is missing or no dict"),
        (lambda v: text({**v, "final_weights_sha256": 1}), "'final_weights_sha256' is missing or no str"),
        (lambda v: text({**v, "id": "0" * 32}), "holds the result of 0000"),
    ],
)
def test_other_files_are_refused_in_one_line(made, tmp_path, spoil, says):
    value = result(made)
    path = tmp_path / f"{value['id']}.json"
    path.write_text(spoil(value))
    with pytest.raises(UserError, match=says) as refused:
        record.read(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / f"{'0' * 32}.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="is no JSON"):
        record.read(path)
