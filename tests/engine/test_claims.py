"""Claims under delay, death and sleep: one holder at a time, and nobody waits for the dead."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from lthbench.engine import claims as module
from lthbench.engine.claims import Claims

FORK = multiprocessing.get_context("fork")


def log(path: Path, text: str) -> None:
    """One line, appended at once whoever else writes."""
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def contender(folder: Path, logged: Path, number: int, hosts: bool) -> None:
    """Take and give back, slowly, dying with the claim in hand one time in four."""
    draws = random.Random(number)
    looked = module._generations

    def slow(where):
        found = looked(where)
        time.sleep(draws.random() * 0.02)  # a slow server, between looking and acting
        return found

    module._generations = slow
    mine = Claims(expiry=0.4, beat=0.05, host=f"host{number}" if hosts else None)
    end = time.monotonic() + (6 if hosts else 3)
    while time.monotonic() < end:
        if mine.take(folder):
            log(logged, f"begin {os.getpid()}")
            time.sleep(draws.random() * 0.02)
            if draws.random() < 0.25:
                log(logged, f"end {os.getpid()}")
                os._exit(0)  # the claim stays behind
            log(logged, f"end {os.getpid()}")
            mine.release(folder, done=False)
        time.sleep(draws.random() * 0.005)


@pytest.mark.parametrize("hosts", [False, True], ids=["one host", "many hosts"])
def test_one_holder_at_a_time(tmp_path, hosts):
    logged, folder = tmp_path / "log", tmp_path / "stage"
    processes = [FORK.Process(target=contender, args=(folder, logged, n, hosts)) for n in range(10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    holder, takes = None, 0
    for line in logged.read_text().splitlines():
        word, pid = line.split()
        if word == "begin":
            assert holder is None, f"{pid} began while {holder} held"
            holder, takes = pid, takes + 1
        else:
            assert holder == pid
            holder = None
    assert takes >= 10


def hold(folder: Path, ready, **settings) -> None:
    mine = Claims(**settings)
    assert mine.take(folder)
    ready.set()
    time.sleep(60)


def start_holder(folder: Path, **settings):
    ready = FORK.Event()
    process = FORK.Process(target=hold, args=(folder, ready), kwargs=settings, daemon=True)
    process.start()
    assert ready.wait(10)
    return process


def test_a_killed_owner_is_overtaken_at_once(tmp_path):
    process = start_holder(tmp_path / "stage")
    mine = Claims()
    assert not mine.take(tmp_path / "stage")
    assert mine.owner(tmp_path / "stage")["pid"] == process.pid
    process.kill()
    process.join()
    assert mine.take(tmp_path / "stage")
    mine.release(tmp_path / "stage", done=True)
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_process_id_used_again_is_another_process(tmp_path):
    folder = tmp_path / "stage"
    folder.mkdir()
    mine = Claims()
    (folder / "claim.1").write_text(json.dumps({**mine.me, "start": "1", "nonce": "another"}))
    assert mine.take(folder)


def test_an_owner_that_does_not_say_who_it_is_is_judged_by_its_heartbeat(tmp_path):
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "claim.1").write_text("")
    mine = Claims(expiry=0.2)
    assert not mine.take(folder)
    time.sleep(0.25)
    assert mine.take(folder)


def test_a_sleeper_is_overtaken_and_harms_nothing_when_it_wakes(tmp_path):
    folder = tmp_path / "stage"
    sleeper = Claims(expiry=0.3, beat=60, host="sleeper")  # its heart stands still
    assert sleeper.take(folder)
    mine = Claims(expiry=0.3, beat=0.05)
    assert not mine.take(folder)
    time.sleep(0.35)
    assert mine.take(folder)
    sleeper.release(folder, done=True)
    third = Claims(expiry=30)
    assert not third.take(folder), "the sleeper took the claim of its successor away"
    mine.release(folder, done=True)
    assert third.take(folder)


def test_a_sleeper_does_not_take_a_number_that_was_given_out_again(tmp_path):
    folder = tmp_path / "stage"
    sleeper = Claims(host="sleeper")
    assert sleeper.take(folder)
    (folder / "claim.1").unlink()  # swept, when the stage was done
    mine = Claims()
    assert mine.take(folder) and (folder / "claim.1").exists()
    sleeper.release(folder, done=True)
    assert (folder / "claim.1").exists()


def test_a_stopped_process_elsewhere_is_overtaken_after_its_expiry(tmp_path):
    process = start_holder(tmp_path / "stage", beat=0.05, host="elsewhere")
    mine = Claims(expiry=0.4)
    for _ in range(8):  # it beats: never dead
        assert not mine.take(tmp_path / "stage")
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while not mine.take(tmp_path / "stage"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGCONT)
    process.kill()
