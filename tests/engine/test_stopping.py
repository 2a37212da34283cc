"""A runner that is asked to stop saves what it has; one that has to wait does so for so long."""

from __future__ import annotations

import time

from engine.small_runs import Log, compute, contents, graph, small

from lthbench.engine.claims import Claims
from lthbench.engine.runner import Runner
from lthbench.engine.store import Store
from lthbench.stages import KINDS
from lthbench.stages import train as training

RUN = small("early", "0.36", schedule="iterative", every=10, select="best_test")


def test_stopped_again_and_again_it_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "TICK_STEPS", 5)
    assert not compute(Store(tmp_path / "whole"), RUN).failed
    store, stops = Store(tmp_path / "stopped"), 0
    while True:
        log = Log()
        heard = log.events
        outcome = Runner(store, KINDS, [log], stop=lambda h=heard: [e for e, _ in h].count("step") >= 2).run(
            graph(RUN).goals
        )
        assert not outcome.failed
        if not outcome.stopped:
            break
        assert log.events[-1][0] == "finished"
        stops += 1
    assert stops > 5
    assert contents(store.root) == contents(tmp_path / "whole")


def test_stopped_before_it_began_it_does_nothing(tmp_path):
    outcome = Runner(Store(tmp_path), KINDS, stop=lambda: True).run(graph(RUN).goals)
    assert outcome.stopped
    assert not outcome.computed
    assert not list(tmp_path.iterdir())


def held(root, host):
    """The first stage of RUN, claimed by somebody on another host, whose claims beat every twentieth of a second."""
    stage = graph(RUN).roles["init"].stage
    other = Claims(beat=0.05, host=host)
    assert other.take(Store(root).folder(stage.id))
    return stage, other


def test_it_waits_for_the_living_as_long_as_its_patience(tmp_path):
    stage, other = held(tmp_path, "elsewhere")
    said = []
    try:
        outcome = Runner(
            Store(tmp_path),
            KINDS,
            [lambda event, **facts: said.append(facts["held"]) if event == "waiting" else None],
            claims=Claims(expiry=60, beat=0.5),
            patience=0.3,
            sleep=lambda s: time.sleep(min(s, 0.1)),
        ).run(graph(RUN).goals)
    finally:
        other.close()
    assert outcome.waiting == {stage}
    assert set(said) == {f"{stage!r}, which process {other.me['pid']} on elsewhere computes"}
    assert not outcome.failed
    assert not outcome.computed


def test_it_waits_longer_for_one_that_may_be_dead_and_takes_over(tmp_path):
    _, other = held(tmp_path, "elsewhere")
    other._stop.set()  # it dies without a word: its heart stands still
    other._beating.join()
    outcome = Runner(
        Store(tmp_path),
        KINDS,
        claims=Claims(expiry=1.5, beat=0.05),
        patience=0.3,
        sleep=lambda s: time.sleep(min(s, 0.1)),
    ).run(graph(RUN).goals)
    assert not outcome.waiting
    assert not outcome.failed
    assert outcome.computed
