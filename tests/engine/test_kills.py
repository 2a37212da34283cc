"""Commands killed with SIGKILL end, when they are given again, as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine.small_runs import contents

from lthbench.engine.store import Damaged, Store
from lthbench.programs import record

# A chain of four levels with points and a best state; 8 steps an epoch.
WORDS = ["dataset=digits", "dataset.validation=237", "model=lenet_300_100", "model.width=0.1", "train=lenet", "jobs=1"]
WORDS += ["train.batch=150", "sparsity=level:4", "rewind=early", "rewind.k=0.25", "select=best_val_loss"]
WORDS += ["train.evaluate.every=1"]


def state_of(out):
    """The bytes of the store, and the result's digest of weights."""
    result = [record.read(path) for path in (out / "runs").glob("*.json")]
    assert len(result) == 1
    return contents(out / "store"), result[0]["final_weights_sha256"], result[0]["metrics"]


def same(out, expected):
    files, *results = state_of(out)
    assert files.keys() == expected[0].keys()
    assert {name for name in files if files[name] != expected[0][name]} == set()
    assert results == list(expected[1:])


def nothing_is_half_written(root):
    """Every file that a reader can see is whole."""
    store = Store(root)
    for ident in store.ids():
        assert store.describe(ident) is not None
        for name in store.names(ident) - {"stage.json"}:
            try:
                store.read_json(ident, name) if name.endswith(".json") else store.read(ident, name)
            except Damaged as error:
                pytest.fail(str(error))


class Commands:
    """A command run in children of one process that has everything imported: what takes time is the computing."""

    def __init__(self, *words):
        script = Path(__file__).with_name("killed_commands.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def start(self, out, writes=None):
        self.process.stdin.write(json.dumps([str(out), writes]) + "\n")
        return int(self.process.stdout.readline())

    def ended(self):
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def commands():
    made = Commands(*WORDS, "train.epochs=6")
    yield made
    made.process.stdin.close()
    made.process.wait(timeout=60)


@pytest.fixture(scope="module")
def undisturbed(commands, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    commands.start(out)
    begun = time.monotonic()
    assert commands.ended() == 0
    return state_of(out), time.monotonic() - begun


def test_killed_at_random_moments(commands, undisturbed, tmp_path):
    expected, took = undisturbed
    chosen = random.Random(0)
    for _ in range(5):
        child = commands.start(tmp_path)
        time.sleep(chosen.uniform(0.1, 0.9) * took)
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it was quicker than the undisturbed one
        assert commands.ended() in (0, -signal.SIGKILL)
        nothing_is_half_written(tmp_path / "store")
    commands.start(tmp_path)
    assert commands.ended() == 0
    same(tmp_path, expected)


def test_killed_at_one_write_after_the_other(commands, undisturbed, tmp_path):
    """Each command gets 7 or 8 acts further; a write is two, flushing and renaming."""
    expected, _ = undisturbed
    kills = 0
    while True:
        commands.start(tmp_path, writes=7 + kills % 2)
        ended = commands.ended()
        nothing_is_half_written(tmp_path / "store")
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        kills += 1
        assert kills < 40
    assert kills > 8
    same(tmp_path, expected)


@pytest.mark.slow
def test_the_real_command_killed_thirty_times(tmp_path):
    words = [*WORDS, "train.epochs=100"]

    def start(out):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([sys.executable, "-m", "lthbench", *words, f"out={out}"], **quiet)

    took = 600.0
    for folder in ("undisturbed", "once more"):
        begun = time.monotonic()
        assert start(tmp_path / folder).wait() == 0
        took = min(took, time.monotonic() - begun)
    same(tmp_path / "once more", state_of(tmp_path / "undisturbed"))
    chosen, killed = random.Random(1), 0
    for number in range(30):
        command = start(tmp_path / f"out {number // 6}")  # five stores, six kills each
        time.sleep(chosen.uniform(0.3, 0.9) * took)
        command.kill()
        killed += command.wait() != 0
        nothing_is_half_written(tmp_path / f"out {number // 6}" / "store")
    assert killed
    for number in range(5):
        assert start(tmp_path / f"out {number}").wait() == 0
        same(tmp_path / f"out {number}", state_of(tmp_path / "undisturbed"))
