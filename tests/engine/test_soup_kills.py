"""A grid of soups, killed at random writes again and again, ends as one that was left alone."""

import random
import signal

import pytest
from engine.small_runs import contents
from engine.test_kills import Commands, nothing_is_half_written

from lthbench.programs import record

# Three rounds of three candidates and an adaptive start, for a uniform and a greedy soup: 22 trajectories.
WORDS = ["dataset=digits", "dataset.validation=237", "model=lenet_300_100", "model.width=0.1", "train=lenet"]
WORDS += ["train.batch=150", "train.epochs=4", "retrain=allr", "retrain.epochs=2", "schedule=geometric"]
WORDS += ["soup=uniform,greedy", "sparsity=0.9"]


def hashes(out):
    return sorted(record.read(path)["final_weights_sha256"] for path in (out / "runs").glob("*.json"))


@pytest.fixture(scope="module")
def commands():
    made = Commands(*WORDS)
    yield made
    made.process.stdin.close()
    made.process.wait(timeout=60)


def test_a_soup_grid_killed_ten_times(commands, tmp_path):
    commands.start(tmp_path / "undisturbed")
    assert commands.ended() == 0
    chosen = random.Random(0)
    for _ in range(10):
        commands.start(tmp_path / "killed", writes=chosen.randint(2, 25))
        assert commands.ended() == -signal.SIGKILL
        nothing_is_half_written(tmp_path / "killed" / "store")
    commands.start(tmp_path / "killed")
    assert commands.ended() == 0
    assert len(hashes(tmp_path / "killed")) == 2
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "undisturbed")
    assert contents(tmp_path / "killed" / "store") == contents(tmp_path / "undisturbed" / "store")
