"""A greedy soup that kept all candidates is the uniform soup: what rests on it is trained once, under both names."""

from dataclasses import replace

import pytest
from engine.small_runs import Log, compute, contents, experiment, stages
from programs.test_soups import souped

from lthbench.engine.graph import ancestors
from lthbench.engine.runner import Runner
from lthbench.engine.store import At, Store
from lthbench.engine.twins import Twins
from lthbench.launch import local
from lthbench.stages import KINDS

ALIKE = {"lr": 1e-6, "rounds": 3}  # candidates that hardly moved: equally good, so that `ge` keeps all and `gt` one
UNIFORM, GREEDY = souped("uniform", **ALIKE), souped("greedy", **ALIKE)
PICKY = souped("greedy", accept="gt", **ALIKE)


def trainings(log):
    return [work.stage for work in log.works() if work.stage.kind == "train" and work.twin is None]


def chosen(store, run):
    return [
        len(store.read(stage.id, "out.safetensors")[1]["soup"]["chosen"])
        for stage in stages(run, kind="average")
        if stage.settings.rule == "greedy"
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Each soup by itself: nothing to take over from."""
    roots = {}
    for run in (UNIFORM, GREEDY, PICKY):
        roots[run.soup.name, run.soup.accept] = root = tmp_path_factory.mktemp("alone")
        log = Log()
        assert not compute(Store(root), run, listeners=[log]).failed
        assert len(trainings(log)) == 1 + 3 * 3
    return roots


@pytest.mark.parametrize("order", [1, -1])
def test_a_greedy_soup_of_all_costs_no_training_beside_the_uniform_one(order, alone, tmp_path):
    log, store = Log(), Store(tmp_path)
    outcome = compute(store, *[UNIFORM, GREEDY][::order], listeners=[log])
    assert not outcome.failed and chosen(store, GREEDY) == [3, 3, 3]
    uniform = set(stages(UNIFORM, kind="train"))
    assert set(trainings(log)) == uniform and len(trainings(log)) == len(uniform) == 10
    taken = set(stages(GREEDY, kind="train")) - uniform
    assert len(taken) == 2 * 3 and not taken & outcome.computed
    assert outcome.asked - len(outcome.computed) == len(taken)  # they count as reused
    both = contents(alone["uniform", "ge"]) | contents(alone["greedy", "ge"])
    assert contents(tmp_path) == both  # to the byte what computing each would have left


def test_a_greedy_soup_of_one_is_trained_for_itself(alone, tmp_path):
    log, store = Log(), Store(tmp_path)
    assert not compute(store, UNIFORM, PICKY, listeners=[log]).failed
    assert chosen(store, PICKY)[0] == 1
    assert set(trainings(log)) == set(stages(UNIFORM, PICKY, kind="train")) and len(trainings(log)) == 10 + 2 * 3
    assert contents(tmp_path) == contents(alone["uniform", "ge"]) | contents(alone["greedy", "gt"])


def test_several_workers(alone, tmp_path):
    log = Log()
    made = [experiment(run) for run in (GREEDY, UNIFORM)]
    outcome = local.run(made, Store(tmp_path / "store"), tmp_path, [log], jobs=3)
    assert not outcome.failed and len(trainings(log)) == 10
    both = contents(alone["uniform", "ge"]) | contents(alone["greedy", "ge"])
    assert contents(tmp_path / "store") == both


def test_one_that_was_computed_before_is_taken_over_later(alone, tmp_path):
    store = Store(tmp_path)
    compute(store, UNIFORM)
    log = Log()
    assert not compute(store, UNIFORM, GREEDY, listeners=[log]).failed
    assert trainings(log) == []


def test_what_goes_is_made_again(alone, tmp_path):
    """Of a state that was taken over, and of the one it came from."""
    store = Store(tmp_path)
    compute(store, UNIFORM, GREEDY)
    whole = contents(tmp_path)
    last = [stages(run, kind="train")[-1] for run in (UNIFORM, GREEDY)]
    for stage in last:
        for path in store.folder(stage.id).glob("s*.safetensors"):
            path.unlink()
    log = Log()
    goals = [(stage, At(20)) for stage in last] + [g for run in (UNIFORM, GREEDY) for g in experiment(run).goals]
    assert not Runner(store, KINDS, [log]).run(goals).failed
    assert len(trainings(log)) == 1 and contents(tmp_path) == whole


def test_twins_are_among_what_is_asked():
    store = Store("nowhere")

    def found(*runs):
        asked = list(ancestors(experiment(run).result for run in runs))
        return {s for s in asked if Twins(asked, store)._twins.get(s)}

    assert found(GREEDY) == found(UNIFORM) == found(UNIFORM, souped("best", **ALIKE)) == set()
    taken = set(stages(GREEDY, kind="train")) - set(stages(UNIFORM, kind="train"))
    assert found(GREEDY, UNIFORM) == found(GREEDY, souped("ensemble", **ALIKE)) == taken
    assert found(GREEDY, replace(UNIFORM, seed=1)) == set()
    one, three = (Twins(list(ancestors(experiment(r).result for r in (GREEDY, UNIFORM))), store) for _ in range(2))
    assert one._twins == three._twins
