"""Several processes on one graph and one store: everything once, whoever dies or sleeps."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from engine.small_runs import DATA, compute, contents, graph, small, stages

from lthbench.data.stream import split
from lthbench.engine.claims import Claims
from lthbench.engine.runner import Runner
from lthbench.engine.store import Store
from lthbench.launch import local
from lthbench.stages import KINDS, init

FORK = multiprocessing.get_context("fork")
RUNS = [
    small(rewind, sparsity, schedule="iterative", rate="0.4", seed=seed, every=20)
    for rewind in ("init", "early", "lr")
    for sparsity in ("0.64", "0.784")
    for seed in (0, 1)
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The store that one process alone makes."""
    root = tmp_path_factory.mktemp("undisturbed")
    for name in ("train", "val", "test"):
        split(DATA, name)  # read before forking
    assert not compute(Store(root), *RUNS).failed
    return contents(root)


def work(root: Path, logged: Path, host: str | None, expiry: float) -> None:
    """One worker, with a line in a log for every computation that it begins and ends."""

    def note(event, **facts):
        if event in ("start", "end"):
            descriptor = os.open(logged, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
            os.write(descriptor, f"{event} {facts['work'].stage.id}\n".encode())
            os.close(descriptor)

    goals = [goal for run in RUNS for goal in graph(run).goals]
    claims = Claims(expiry=expiry, beat=expiry / 8, host=host)
    outcome = Runner(Store(root), KINDS, [note], claims=claims).run(goals)
    os._exit(1 if outcome.failed else 0)


def start(root: Path, logged: Path, count: int, hosts: bool = False, expiry: float = 120.0):
    processes = [
        FORK.Process(target=work, args=(root, logged, f"host{i}" if hosts else None, expiry)) for i in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def counted(logged: Path, event: str) -> Counter:
    lines = logged.read_text().split("\n") if logged.exists() else []
    return Counter(line.split()[1] for line in lines if line.startswith(event))


def wait_for(logged: Path, ends: int) -> None:
    while sum(counted(logged, "end").values()) < ends:
        time.sleep(0.01)


@pytest.mark.parametrize("hosts", [False, True], ids=["one host", "many hosts"])
def test_four_processes_compute_everything_exactly_once(tmp_path, undisturbed, hosts):
    root, logged = tmp_path / "store", tmp_path / "log"
    processes = start(root, logged, 4, hosts)
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert set(counted(logged, "start").values()) == {1}
    assert set(counted(logged, "start")) == {s.id for s in stages(*RUNS)}
    assert contents(root) == undisturbed
    assert not list(root.glob("*/*/claim.*"))


@pytest.mark.parametrize("hosts", [False, True], ids=["one host", "many hosts"])
def test_killed_holders_are_replaced(tmp_path, undisturbed, hosts):
    root, logged = tmp_path / "store", tmp_path / "log"
    processes = start(root, logged, 4, hosts, expiry=1.0 if hosts else 120.0)
    draws = random.Random(0)
    for i in range(3):
        wait_for(logged, 10 * (i + 1))
        time.sleep(draws.random() * 0.05)
        processes[i].kill()
    processes[3].join(120)
    assert processes[3].exitcode == 0
    extra = sum(counted(logged, "start").values()) - len(stages(*RUNS))
    assert 0 <= extra <= 3, "a kill costs the stage that was in hand, no more"
    assert contents(root) == undisturbed


@pytest.mark.parametrize("hosts", [False, True], ids=["one host", "many hosts"])
def test_a_stopped_holder_is_overtaken_and_comes_back(tmp_path, undisturbed, hosts):
    root, logged = tmp_path / "store", tmp_path / "log"
    processes = start(root, logged, 3, hosts, expiry=0.8)
    wait_for(logged, 12)
    os.kill(processes[0].pid, signal.SIGSTOP)
    for process in processes[1:]:
        process.join(120)
        assert process.exitcode == 0
    os.kill(processes[0].pid, signal.SIGCONT)
    processes[0].join(120)
    assert processes[0].exitcode == 0
    assert contents(root) == undisturbed


def test_workers_of_one_command_give_what_one_process_gives(tmp_path, undisturbed):
    heard = []
    outcome = local.run(
        [graph(run) for run in RUNS],
        Store(tmp_path / "store"),
        tmp_path,
        [lambda event, **facts: heard.append(event)],
        jobs=3,
    )
    assert not outcome.failed
    assert len(outcome.computed) == outcome.asked == len(stages(*RUNS)) == heard.count("end")
    assert heard.count("planned") == heard.count("finished") == 1
    assert contents(tmp_path / "store") == undisturbed
    assert len(list((tmp_path / "runs").glob("*.json"))) == len({graph(run).id for run in RUNS})


def test_a_failing_stage_is_tried_once_a_command_and_listed_once(tmp_path, monkeypatch):
    tried = tmp_path / "tried"

    def fail(job):
        with open(tried, "a") as file:
            file.write("x")
        raise RuntimeError("no weights today")

    monkeypatch.setitem(KINDS, "init", lambda job: fail(job) if job.stage.settings.seed == 1 else init.compute(job))
    outcome = local.run([graph(run) for run in RUNS], Store(tmp_path / "store"), tmp_path, jobs=4)
    assert tried.read_text() == "x"
    reasons = [reason for reason in outcome.failed.values() if "no weights today" in reason]
    assert len(reasons) == 1
    done = {graph(run).id for run in RUNS if run.seed == 0}
    assert {path.stem for path in (tmp_path / "runs").glob("*.json")} == done


def test_a_worker_that_dies_is_survived(tmp_path, monkeypatch):
    once = tmp_path / "once"

    def die(job):
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), signal.SIGKILL)
        except FileExistsError:
            init.compute(job)

    monkeypatch.setitem(KINDS, "init", die)
    heard = []
    outcome = local.run(
        [graph(run) for run in RUNS], Store(tmp_path / "store"), tmp_path, [lambda e, **f: heard.append(e)], jobs=2
    )
    assert once.exists() and not outcome.failed and "died" in heard
    assert len(list((tmp_path / "runs").glob("*.json"))) == len({graph(run).id for run in RUNS})
