"""What a plan says that a command costs, against what it then costs, and against naive counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.base.settings import Settings
from lthbench.base.units import duration
from lthbench.bench.pace import Pace
from lthbench.cli.compose import Composer, composer
from lthbench.cli.costs import FILE_SECONDS, SCORING, WEIGHT_SECONDS, Timing, wall
from lthbench.cli.grid import expand
from lthbench.cli.planning import _Empty
from lthbench.engine.graph import stage
from lthbench.engine.plan import Work, plan
from lthbench.engine.store import Output

PACE = Pace(step=0.5, image=0.001, weights=1000)
FILE = FILE_SECONDS


@pytest.fixture
def composing() -> Iterator[Composer]:
    with composer(None) as compose:
        yield compose


def works(composing: Composer, *words: str) -> list[Work]:
    grid = expand(composing, words, multirun=True)
    return plan([goal for e in grid.experiments for goal in e.goals], _Empty())


def seconds(composing: Composer, *words: str) -> dict[str, float]:
    """By kind, what a plan takes if a step takes 0.5 s and an image 1 ms."""
    found = works(composing, *words)
    timing = Timing(found, "cpu")
    by_kind: dict[str, float] = {}
    for work in found:
        by_kind[work.stage.kind] = by_kind.get(work.stage.kind, 0) + timing.seconds(work)
    return by_kind


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lthbench.bench.pace.pace", lambda *_: PACE)


def test_seconds_are_steps_images_and_files(paced, composing):
    """Digits: 1437 images in batches of 60, so 24 steps an epoch; 360 test images."""
    took = seconds(composing, "train.epochs=2", "sparsity=0")
    assert took == pytest.approx({"init": FILE, "train": 48 * 0.5 + 2 * FILE, "evaluate": 360 * 0.001 + FILE})


def test_measured_points_take_time(paced, composing):
    took = seconds(composing, "train.epochs=2", "train.evaluate.every=0.5", "dataset.validation=100", "sparsity=0")
    steps = 2 * -(-1337 // 60)
    assert took["train"] == pytest.approx(steps * 0.5 + 4 * (360 + 100) * 0.001 + 2 * FILE)


def test_scoring_takes_time(paced, composing):
    took = seconds(composing, "pruner=snip", "pruner.rounds=3", "pruner.batches=2", "pruner.batch=50", "sparsity=0.5")
    assert took["prune"] == pytest.approx(3 * (100 * SCORING * 0.001 + 1000 * WEIGHT_SECONDS) + FILE)


def test_a_network_is_timed_once_for_what_makes_a_difference(composing, monkeypatch):
    timed = []
    monkeypatch.setattr("lthbench.bench.pace.pace", lambda *what: timed.append(what) or PACE)
    seconds(composing, "train.lr=0.1,0.2", "seed=0,1", "train.schedule.kind=cosine,constant", "sparsity=0.5")
    assert len(timed) == 1
    seconds(composing, "train.batch=30,60", "train.optimizer=sgd,adam", "sparsity=0")
    assert len(timed) == 1 + 4


# ---- how long with workers


FS = frozenset({Output()})


def chain(works: list[Work], takes: dict[object, float]) -> float:
    """The longest chain, naively."""
    ends: dict[object, float] = {}
    for work in works:
        ends[work.stage] = takes[work.stage] + max((ends[s] for s, _ in work.inputs_needed), default=0.0)
    return max(ends.values())


@given(st.data())
def test_the_wall_time_of_any_graph(data):
    """One worker takes the sum, many the longest chain; some no less than either bound, no more than Graham's."""
    texts = data.draw(st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=12))
    found: list[Work] = []
    for number, needs in enumerate(texts):
        inputs = {f"i{n}": found[n].stage for n in sorted({n % number for n in needs} if number else set())}
        found.append(Work(stage(f"made{number}", 1, _Nothing(), inputs), FS, None))
    each = data.draw(st.lists(st.floats(0.01, 10), min_size=len(found), max_size=len(found)))
    takes = {work.stage: t for work, t in zip(found, each)}
    longest, total = chain(found, takes), sum(each)
    assert wall(found, each, 1) == pytest.approx(total)
    assert wall(found, each, 100) == pytest.approx(longest)
    for jobs in (2, 3):
        took = wall(found, each, jobs)
        assert max(longest, total / jobs) <= took * (1 + 1e-9)
        assert took <= (total - longest) / jobs + longest + 1e-9


class _Nothing(Settings):
    text = "{}"


def test_nothing_takes_no_time():
    assert wall([], [], 2) == 0


# ---- what is printed


def test_plan_says_how_long(run, monkeypatch):
    monkeypatch.setattr("lthbench.cli.costs.FILE_SECONDS", 0.0)
    said = run("plan rewind=init,lr schedule=oneshot -m jobs=2")
    line = next(line for line in said.out.splitlines() if line.startswith("time "))
    work = 1e-3 * (480 + 480 + 475) + 3 * 1e-5 * 360
    assert line.startswith("time with 2 workers of 1 thread on cpu: ")
    assert f"({duration(work)} of work)" in line
    assert "timed here: lenet_300_100, batch 60: 1 ms a step" in said.out


def test_plan_without_timing(run, monkeypatch):
    monkeypatch.setattr("lthbench.bench.pace.pace", None)
    said = run("plan --no-timing")
    assert (said.code, "time" in said.out) == (0, False)


def test_plan_for_a_device_that_is_not_here(run):
    said = run("plan device=cuda:99")
    assert said.code == 0
    assert "\ntime: unknown, device=cuda:99 is not here: " in said.out


def test_nothing_is_left_to_do(run, here):
    words = "scale=smoke schedule=oneshot sparsity=0.5 jobs=1 out=o"
    assert run(words).code == 0
    assert "0 s for what is left" in run(f"plan {words}").out


@pytest.mark.parametrize("keep", ["all", "needed"])
@pytest.mark.parametrize(
    "more", ["model.width=1 rewind=init,early,lr", "model.width=0.3 pruner=obs pruner.batch=16 schedule=oneshot"]
)
def test_bytes_are_those_on_disk(keep, more, run, here):
    """But for the headers of the files; OBS writes new weights beside its mask."""
    words = f"scale=smoke {more} sparsity=0.5 seed=0,1 keep={keep} out=o -m jobs=1"
    said = re.search(r"store: (\d+) (\w+), with keep=needed (\d+) (\w+)\n", run(f"plan {words}").out)
    assert said is not None
    number, unit = said.groups()[:2] if keep == "all" else said.groups()[2:]
    planned = int(number) * {"KiB": 2**10, "MiB": 2**20}[unit]
    assert run(words).code == 0
    there = sum(path.stat().st_size for path in Path("o/store").rglob("*.safetensors"))
    assert planned == pytest.approx(there, rel=0.06)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59, "59 s"), (150, "2.5 min"), (3600, "60 min"),
        (7200, "2.0 h"), (86400 * 400, "400 days"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_real_step_is_timed(shell):
    said = shell("plan train=lenet sparsity=0")
    step = re.search(r"timed here: lenet_300_100, batch 60: ([\d.]+) ms a step", said.out)
    assert step is not None, said
    assert 0.05 < float(step.group(1)) < 100
