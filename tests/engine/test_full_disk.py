"""A disk that fills up: the last good file survives, the failure is listed, the others go on, a rerun succeeds."""

import errno
import os

import pytest
from engine.conftest import IMP
from engine.small_runs import compute, contents, small, stages

from lthbench.engine.store import Store
from lthbench.programs import experiment

ROLES = experiment(IMP).roles
FIRST, SECOND = ROLES["net 1"].stage, ROLES["net 2"].stage
OTHER = small("init", "0.36")  # shares the dense run with IMP, nothing else


def no_room():
    return OSError(errno.ENOSPC, "No space left on device")


def refuse(monkeypatch, full):
    """No room for files whose final path `full` accepts."""
    replace = os.replace

    def limited(source, target):
        if full(str(target)):
            raise no_room()
        replace(source, target)

    monkeypatch.setattr(os, "replace", limited)


def leftovers(root):
    return [str(path) for path in root.rglob(".part-*")] + [str(path) for path in root.rglob("claim.*")]


@pytest.mark.parametrize("name", ["s000000040", "o000000040", "curve.json", "stage.json"])
def test_a_state_that_cannot_be_written_fails_alone(tmp_path, monkeypatch, finished, name):
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        refuse(patch, lambda target: FIRST.id in target and name in target)
        outcome = compute(store, IMP, OTHER)
    assert outcome.failed[FIRST].startswith("OSError: [Errno 28] No space left on device")
    assert set(outcome.failed) == {FIRST, ROLES["mask 2"], SECOND, ROLES["result"]}
    assert outcome.computed == set(stages(IMP, OTHER)) - set(outcome.failed)
    assert store.output(experiment(OTHER).result)["metrics"]["test"]["accuracy"] > 0
    if name != "stage.json":
        assert "No space left" in store.read_json(FIRST.id, "failed.json")["error"]
    assert not leftovers(tmp_path)
    assert not compute(store, IMP).failed
    assert {path: data for path, data in contents(tmp_path).items() if path in contents(finished)} == contents(finished)
    assert "failed.json" not in store.names(FIRST.id)


def test_when_nothing_at_all_can_be_written_everything_is_listed(tmp_path, monkeypatch):
    def full(descriptor):
        raise no_room()

    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        outcome = compute(store, IMP, OTHER)
    start = ROLES["init"]
    assert "No space left" in outcome.failed[start] and "could not be recorded" in outcome.failed[start]
    assert set(outcome.failed) == set(stages(IMP, OTHER)) and not outcome.computed
    assert contents(tmp_path) == {} and not leftovers(tmp_path)
    assert not compute(store, IMP).failed


def test_no_room_for_a_claim_is_listed_too(tmp_path, monkeypatch):
    opened = os.open

    def limited(path, flags, *rest, **more):
        if flags & os.O_EXCL and str(tmp_path) in str(path):
            raise no_room()
        return opened(path, flags, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", limited)
        outcome = compute(Store(tmp_path), OTHER)
    assert "No space left" in outcome.failed[ROLES["init"]]
    assert not compute(Store(tmp_path), OTHER).failed


def test_the_last_good_file_survives(copied, monkeypatch):
    before = (copied.folder(SECOND.id) / "curve.json").read_bytes()
    refuse(monkeypatch, lambda target: "curve.json" in target)
    with pytest.raises(OSError, match="No space left"):
        copied.extend_curve(SECOND, {"test": {7: {"loss": 1.0}}})
    assert (copied.folder(SECOND.id) / "curve.json").read_bytes() == before
    assert 7 not in copied.curve(SECOND.id)["test"]
    assert not leftovers(copied.root)


def test_room_found_again_on_the_way_needs_no_second_look_at_what_is_done(tmp_path, monkeypatch, finished):
    """The disk is full at one write after the other; each rerun gets further, and the end is the same."""
    store, computed = Store(tmp_path), []
    for room in range(1, 200):
        left = [room % 7 + 1]

        def full(target, left=left):
            left[0] -= "failed.json" not in target
            return left[0] < 0

        with monkeypatch.context() as patch:
            refuse(patch, full)
            outcome = compute(store, IMP)
        computed += outcome.computed
        if not outcome.failed:
            break
    assert not outcome.failed
    assert contents(tmp_path) == contents(finished)
    assert len(computed) == len(set(computed))
