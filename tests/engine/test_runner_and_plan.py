"""The runner and the plan on made-up kinds of stages: order, failures, listeners, counts. Nothing here trains."""

from dataclasses import dataclass

import pytest

from lthbench.base.settings import Settings
from lthbench.engine.graph import stage
from lthbench.engine.plan import plan
from lthbench.engine.runner import Outcome, Runner
from lthbench.engine.store import At, Output, Store


@dataclass(frozen=True)
class Word(Settings):
    word: str
    first: int = 0


def word(text, **inputs):
    return stage("word", 1, Word(text), inputs)


def goals(*stages):
    return [(s, Output()) for s in stages]


class Office:
    """Computes words by joining those of the inputs; refuses those in `broken`."""

    def __init__(self, store, *broken, listeners=()):
        self.store, self.broken, self.listeners = store, set(broken), listeners
        self.done = []

    def compute(self, job):
        if job.stage.settings.word in self.broken:
            raise RuntimeError(f"no {job.stage.settings.word}")
        inputs = [job.store.output(ref.stage) for _, ref in sorted(job.stage.inputs.items())]
        job.store.write_json(job.stage, "out.json", "".join([*inputs, job.stage.settings.word]))
        self.done.append(job.stage)

    def run(self, *stages):
        return Runner(self.store, {"word": self.compute}, self.listeners).run(goals(*stages))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


A = word("a")
B = word("b", left=A)
C = word("c", left=A)
D = word("d", left=B, right=C)
E = word("e", left=D)
OTHER = word("o", left=A)


def test_inputs_come_first_and_each_stage_once(store):
    office = Office(store)
    outcome = office.run(E, OTHER, D, E)
    assert office.done == sorted(office.done, key=lambda s: s.serial) and set(office.done) == {A, B, C, D, E, OTHER}
    assert len(office.done) == 6
    assert store.output(E) == "abacde"
    assert (outcome.asked, outcome.computed, outcome.failed) == (6, {A, B, C, D, E, OTHER}, {})
    assert str(outcome) == "stages: 6 asked, 6 computed, 0 reused"


def test_what_is_there_is_not_computed(store):
    Office(store).run(D)
    office = Office(store)
    assert str(office.run(E, D)) == "stages: 5 asked, 1 computed, 4 reused"
    assert office.done == [E]
    assert str(office.run(E)) == "stages: 5 asked, 0 computed, 5 reused"


def test_the_plan_walks_back_no_further_than_it_must(store):
    Office(store).run(E)
    for s in (A, B, C):
        store.remove(s.id, "out.json")  # dropped on purpose
    assert plan(goals(E, OTHER), store) != []
    assert [w.stage for w in plan(goals(E), store)] == []
    assert [w.stage for w in plan(goals(OTHER), store)] == [A, OTHER]
    store.remove(E.id, "out.json")
    assert [w.stage for w in plan(goals(E), store)] == [E]
    store.remove(D.id, "out.json")
    assert [w.stage for w in plan(goals(E), store)] == [A, B, C, D, E]
    assert Office(store).run(E).computed == {A, B, C, D, E}
    assert store.output(E) == "abacde"


def test_a_plan_says_what_is_missing_and_what_that_needs(store):
    works = {w.stage: w for w in plan(goals(E), store)}
    assert works[D].missing == {Output()} and works[D].resume is None
    assert sorted(s.serial for s, _ in works[D].inputs_needed) == [B.serial, C.serial]
    assert works[A].inputs_needed == []
    trajectory = stage("word", 1, Word("t"), {"start": A, "moments": B.at(7)})
    work = plan([(trajectory, At(5)), (trajectory, At(9, full=True))], store)[-1]
    assert work.missing == {At(5), At(9, full=True)}
    assert set(work.inputs_needed) == {(A, Output()), (B, At(7, full=True))}  # moments: a state to go on from


def test_a_failure_stops_only_what_needs_it(store):
    office = Office(store, "b")
    outcome = office.run(E, OTHER)
    assert outcome.computed == {A, C, OTHER}
    assert outcome.failed == {
        B: "RuntimeError: no b",
        D: f"needs {B!r}, which failed",
        E: f"needs {D!r}, which failed",
    }
    assert str(outcome) == "stages: 6 asked, 3 computed, 0 reused"
    assert store.names(D.id) == store.names(E.id) == set()


def test_a_failure_is_recorded_with_its_trace_and_is_no_result(store):
    Office(store, "b").run(E)
    assert store.names(B.id) == {"stage.json", "failed.json"}
    failure = store.read_json(B.id, "failed.json")
    assert failure["error"] == "RuntimeError: no b"
    assert "in compute" in failure["trace"]
    assert not store.has(B, Output())


def test_the_reason_of_a_failure_is_the_first_line_of_its_message(store):
    def failing(job):
        raise RuntimeError("sizes do not match:\n\tfc1: 3\n\tfc2: 4")

    assert Runner(store, {"word": failing}).run(goals(A)).failed == {A: "RuntimeError: sizes do not match:"}
    assert "fc2: 4" in store.read_json(A.id, "failed.json")["trace"]


def test_the_next_runner_tries_a_failed_stage_again(store):
    assert B in Office(store, "b").run(E).failed
    again = Office(store, "b")
    assert B in again.run(E).failed and again.done == []  # tried, and failed again
    healed = Office(store)
    outcome = healed.run(E)
    assert healed.done == [B, D, E] and not outcome.failed
    assert store.names(B.id) == {"stage.json", "out.json", "cost.json"}


def test_runners_of_one_command_try_a_failing_stage_once(store):
    tried = []

    def failing(job):
        tried.append(job.stage)
        raise RuntimeError("never")

    outcomes = [Runner(store, {"word": failing}, token="one command").run(goals(B)) for _ in range(3)]
    assert tried == [A]
    assert all(o.failed == {A: "RuntimeError: never", B: f"needs {A!r}, which failed"} for o in outcomes)


def test_a_computation_that_leaves_nothing_is_a_failure(store):
    outcome = Runner(store, {"word": lambda job: None}).run(goals(B))
    assert outcome.failed[A].startswith("AssertionError") and B in outcome.failed


@pytest.mark.timeout(30)
def test_a_missing_file_that_is_no_result_is_a_failure(store):
    """Say, a data set that went away: not to be taken for a stage that was dropped."""

    def gone(job):
        raise FileNotFoundError("data/images.gz")

    assert Runner(store, {"word": gone}).run(goals(A)).failed == {A: "FileNotFoundError: data/images.gz"}


@pytest.mark.timeout(30)
def test_a_missing_file_is_a_failure_also_where_a_trajectory_goes_on(store):
    import torch

    trajectory = stage("word", 1, Word("long"), {})
    for name in ("s000000010.safetensors", "o000000010.safetensors"):
        store.write(trajectory, name, {"w": torch.zeros(1)}, {})
    tried = []

    def gone(job):
        assert job.resume == 10
        tried.append(job)
        if len(tried) > 20:
            raise RuntimeError("tried without end")
        raise FileNotFoundError("data/images.gz")

    outcome = Runner(store, {"word": gone}, sleep=lambda _: None).run([(trajectory, At(20))])
    assert outcome.failed == {trajectory: "FileNotFoundError: data/images.gz"}
    assert len(tried) < 3


def test_listeners_hear_everything_in_order(store):
    heard = []
    Office(store, "c", listeners=[lambda event, **facts: heard.append((event, facts))]).run(D)
    assert [event for event, _ in heard] == ["planned", "start", "end", "start", "end", "start", "failed", "finished"]
    assert [w.stage for w in heard[0][1]["works"]] == [A, B, C, D]
    assert heard[1][1]["work"].stage is A and heard[2][1]["work"].stage is A
    assert heard[6][1] == {"stage": C, "error": "RuntimeError: no c"}
    assert isinstance(heard[-1][1]["outcome"], Outcome)


def test_a_listener_that_raises_is_switched_off_and_the_others_go_on(store):
    heard, angry_heard = [], []

    def angry(event, **facts):
        angry_heard.append(event)
        raise ValueError("no more")

    office = Office(store, listeners=[angry, lambda event, **facts: heard.append(event)])
    with pytest.warns(UserWarning, match="a listener was switched off: ValueError: no more"):
        outcome = office.run(B)
    assert outcome.computed == {A, B}
    assert angry_heard == ["planned"]
    assert heard == ["planned", "start", "end", "start", "end", "finished"]


def test_costs_are_added_up(store):
    Office(store).run(A)
    store.remove(A.id, "out.json")
    Office(store).run(A)
    cost = store.read_json(A.id, "cost.json")
    assert len(cost) == 2 and all(part["seconds"] >= 0 and part["device"] == "cpu" for part in cost)


def test_a_damaged_failure_record_is_no_obstacle(store):
    Office(store, "a").run(A)
    (store.folder(A.id) / "failed.json").write_text("{")
    assert Office(store).run(A).computed == {A}
