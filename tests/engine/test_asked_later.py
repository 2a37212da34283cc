"""A trajectory asked for more: steps that are computed are counted, and bits do not depend on the way."""

import pytest
from engine.small_runs import Log, compute, contents, small

from lthbench.engine.graph import Best
from lthbench.engine.runner import Runner
from lthbench.engine.store import At, Points, Store
from lthbench.programs import experiment
from lthbench.stages import KINDS
from lthbench.stages import train as trajectory

DENSE = experiment(small(sparsity="0")).trajectory


def ask(store, *demands):
    """Ask DENSE for states and points; how many steps that took."""
    log = Log()
    outcome = Runner(store, KINDS, [log]).run([(DENSE, demand) for demand in demands])
    assert not outcome.failed
    return log.steps.get(DENSE, 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Everything that any test asks for, in one pass."""
    root = tmp_path_factory.mktemp("whole")
    assert (
        ask(Store(root), *[At(step) for step in (7, 20, 33, 40, 55)], Points("val", 5, 55), Points("test", 5, 55)) == 55
    )
    return root


def same(store, whole):
    """Whether what both have is the same; the curve may have less."""
    here, there = contents(store.root), contents(whole)
    curves = [name for name in here if name.endswith("curve.json")]
    few, many = store.curve(DENSE.id), Store(whole).curve(DENSE.id)
    assert all(many[series][step] == values for series in few for step, values in few[series].items())
    return {k: v for k, v in here.items() if k not in curves} == {k: there[k] for k in here if k not in curves}


def test_one_pass_saves_all_that_is_asked(tmp_path):
    store = Store(tmp_path)
    assert ask(store, At(33), At(7, full=True), At(40), At(20)) == 40
    assert {n for n in store.names(DENSE.id) if n[0] == "s" and n[1] == "0"} == {
        f"s{n:09d}.safetensors" for n in (7, 20, 33, 40)
    }
    assert ask(store, At(33), At(20)) == 0


def test_a_state_before_the_end_goes_on_from_the_nearest_earlier_one(tmp_path, whole):
    store = Store(tmp_path)
    assert ask(store, At(7), At(40)) == 40
    assert ask(store, At(33)) == 33 - 7
    assert ask(store, At(20)) == 20 - 7
    assert same(store, whole)


def test_a_state_beyond_the_end_goes_on_from_the_end(tmp_path, whole):
    store = Store(tmp_path)
    assert ask(store, At(40)) == 40
    assert ask(store, At(55)) == 15
    assert same(store, whole)


def test_states_before_and_beyond_at_once(tmp_path, whole):
    store = Store(tmp_path)
    assert ask(store, At(20)) == 20
    assert ask(store, At(55), At(7), At(33)) == 55  # nothing lies before 7
    assert same(store, whole)


def test_without_its_moments_a_state_is_no_place_to_go_on_from(tmp_path, whole):
    store = Store(tmp_path)
    assert ask(store, At(7), At(40)) == 40
    store.remove(DENSE.id, "o000000040.safetensors")
    assert ask(store, At(55)) == 55 - 7
    assert ask(store, At(40, full=True)) == 40 - 7
    assert same(store, whole)


def test_points_asked_later(tmp_path, whole):
    store = Store(tmp_path)
    assert ask(store, At(20), At(40)) == 40
    assert ask(store, Points("val", 10, 40)) == 40  # from the start: step 10 was not measured
    assert sorted(store.curve(DENSE.id)["val"]) == [10, 20, 30, 40] and "test" not in store.curve(DENSE.id)
    assert ask(store, Points("val", 20, 40)) == 0
    assert ask(store, Points("test", 30, 40)) == 40 - 20
    assert ask(store, Points("val", 10, 55)) == 55 - 40
    assert ask(store, Points("val", 5, 40)) == 40
    assert sorted(store.curve(DENSE.id)["val"]) == [5, 10, 15, 20, 25, 30, 35, 40, 50, 55]
    assert same(store, whole)


def test_measuring_changes_no_state(tmp_path, whole):
    store = Store(tmp_path)
    assert ask(store, At(20), At(40)) == 40
    assert same(store, whole)  # there, both splits were measured every five steps


def test_every_epoch_is_noted_though_nobody_asks(tmp_path):
    store = Store(tmp_path)
    ask(store, At(55))
    assert sorted(store.curve(DENSE.id)["train"]) == [20, 40]
    rates = [values["lr"] for _, values in sorted(store.curve(DENSE.id)["train"].items())]
    assert rates == [0.1, pytest.approx(0.001)]  # the rate of the epoch's last step


def test_the_mean_loss_of_an_epoch_does_not_depend_on_where_one_stopped(tmp_path, whole):
    store = Store(tmp_path)
    for step in (7, 33, 40):
        ask(store, At(step))
    assert store.curve(DENSE.id)["train"] == Store(whole).curve(DENSE.id)["train"]


def test_a_best_point_asked_later_is_that_of_one_pass(tmp_path):
    best = Best("val.loss", 5, 40)
    ask(Store(tmp_path / "a"), At(best), At(20), At(40))
    store = Store(tmp_path / "b")
    assert ask(store, At(20), At(40)) == 40
    assert ask(store, At(best)) == 40
    assert ask(store, At(best)) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_what_was_dropped_on_purpose_is_only_made_again_for_somebody(tmp_path):
    store = Store(tmp_path)
    run = small("early")
    compute(store, run)
    before = contents(tmp_path)
    for name in store.names(DENSE.id) - {"stage.json", "curve.json"}:
        store.remove(DENSE.id, name)
    assert not compute(store, run).computed
    log = Log()
    other = small("early", "0.8")
    compute(store, other, listeners=[log])
    assert log.steps == {DENSE: 40, experiment(other).trajectory: 30}
    assert experiment(small()).roles["init"] not in [work.stage for work in log.works()]
    assert {name: data for name, data in contents(tmp_path).items() if name in before} == before


def test_before_its_first_step_a_dense_run_is_its_start():
    assert trajectory.at(DENSE, 0) is DENSE.inputs["start"]
    assert trajectory.at(DENSE, 1) == DENSE.at(1)
    level = experiment(small("init")).trajectory
    assert trajectory.at(level, 0) == level.at(0)  # masked, and so not the start
