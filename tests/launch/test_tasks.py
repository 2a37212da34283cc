"""Cutting a graph into tasks: nothing lost, nothing twice, nobody before what it needs. No Slurm is needed."""

from __future__ import annotations

import pytest
from engine.small_runs import graph, small
from hypothesis import given
from hypothesis import strategies as st

from lthbench.engine.graph import ancestors
from lthbench.engine.plan import plan
from lthbench.engine.store import At, Points, Store
from lthbench.launch.slurm import demand_of_text, demand_text
from lthbench.launch.tasks import Task, Underway, cut, pack
from lthbench.stages.train import Train

MISSING = Store("nowhere")


def tasks_of(*runs, underway=()):
    experiments = [graph(run) for run in runs]
    works = plan([goal for e in experiments for goal in e.goals], MISSING)
    return works, experiments, cut(works, [e.goals for e in experiments], underway)


def rests_on(stage):
    """The trainings that a stage rests on, by walking everything."""
    return {s for s in ancestors([stage]) if isinstance(s.settings, Train)} - {stage}


def shape(tasks):
    return sorted((task.depth, len(task.chain)) for task in tasks)


def test_iterative_pruning_to_one_sparsity_is_one_chain():
    _, _, tasks = tasks_of(small("init", "0.9", schedule="iterative"))
    assert shape(tasks) == [(1, 12)]  # the dense training and eleven rounds
    assert (tasks[0].runs, tasks[0].shared, tasks[0].names) == ([0], [], {0})


def test_two_sparsities_share_a_chain_and_part():
    _, _, tasks = tasks_of(*(small("init", s, schedule="iterative") for s in ("0.8", "0.9")))
    assert shape(tasks) == [(1, 8), (2, 1), (2, 4)]
    assert [task.runs for task in tasks] == [[], [0], [1]]


def test_a_run_may_end_inside_a_chain():
    _, _, tasks = tasks_of(small("init", "0", schedule="iterative"), small("init", "0.36", schedule="iterative"))
    assert shape(tasks) == [(1, 3)]
    assert tasks[0].runs == [0, 1]


def test_what_only_needs_an_evaluation_is_a_task_without_a_chain(tmp_path):
    from engine.small_runs import compute

    run = small("init", "0.5")
    store = Store(tmp_path)
    assert not compute(store, run).failed
    store.remove(graph(run).id, "out.json")
    works = plan(graph(run).goals, store)
    (task,) = cut(works, [graph(run).goals])
    assert (task.chain, task.runs, task.depth, task.steps) == ([], [0], 1, 0)


RUNS = st.builds(
    small,
    st.sampled_from(["init", "early", "lr", "finetune"]),
    st.sampled_from(["0", "0.2", "0.36", "0.5", "0.8"]),
    schedule=st.sampled_from(["iterative", "oneshot"]),
    seed=st.sampled_from([0, 1]),
    control=st.sampled_from(["none", "reinit"]),
    every=st.sampled_from([None, 20]),
)
GRIDS = st.lists(RUNS, min_size=1, max_size=8)


@given(GRIDS)
def test_each_training_once_after_all_it_rests_on(runs):
    works, experiments, tasks = tasks_of(*runs)
    place = {work.stage: task for task in tasks for work in task.chain}
    trainings = [work for work in works if isinstance(work.stage.settings, Train)]
    assert sorted(place, key=lambda s: s.serial) == [work.stage for work in trainings]
    assert sum(len(task.chain) for task in tasks) == len(trainings)
    for stage, task in place.items():
        order = [work.stage for work in task.chain]
        for before in rests_on(stage):
            same = place[before] is task
            assert order.index(before) < order.index(stage) if same else place[before].depth < task.depth
            assert same or reaches(task, place[before]), "it waits, directly or through others"
        assert any(stage in ancestors([experiments[n].result]) for n in task.names)
    for number, experiment in enumerate(experiments):
        ends = [task for task in tasks if number in task.runs]
        assert len(ends) == 1
        assert all(place[s].depth <= ends[0].depth for s in rests_on(experiment.result))
    for task in tasks:
        assert task.depth == 1 + max((other.depth for other in task.waits_for), default=0)


def reaches(task: Task, other: Task) -> bool:
    return other in task.waits_for or any(reaches(t, other) for t in task.waits_for)


@given(GRIDS)
def test_two_are_joined_exactly_where_one_waits_for_the_other_alone_and_alone(runs):
    _, _, tasks = tasks_of(*runs)
    place = {work.stage: task for task in tasks for work in task.chain}
    direct = {s: {b for b in rests_on(s) if not any(b in rests_on(o) for o in rests_on(s))} for s in place}
    for stage, before in direct.items():
        for one in before:
            alone = len(before) == 1 and sum(one in others for others in direct.values()) == 1
            assert (place[one] is place[stage]) == alone


@given(GRIDS, st.data())
def test_what_is_underway_is_not_cut_again_and_is_waited_for(runs, data):
    _, experiments, whole = tasks_of(*runs)
    chosen = [task for task in whole if data.draw(st.booleans())]
    away = [
        Underway(f"7_{i}", {w.stage.id: w.missing for w in t.chain}, frozenset(experiments[n].id for n in t.runs))
        for i, t in enumerate(chosen)
    ]
    works, _, tasks = tasks_of(*runs, underway=away)
    job = {w.stage: f"7_{i}" for i, t in enumerate(chosen) for w in t.chain}
    place = {work.stage: task for task in tasks for work in task.chain}
    assert not place.keys() & job.keys()
    assert place.keys() | job.keys() == {w.stage for w in works if isinstance(w.stage.settings, Train)}
    for stage, task in place.items():
        away_before = {job[s] for s in rests_on(stage) if s in job}
        assert all(any(j in t.after for t in upwards(task)) or j in implied(j, stage, job) for j in away_before)
    ended = {n for t in (*tasks, *chosen) for n in t.runs}
    assert ended == set(range(len(runs)))


def upwards(task: Task) -> set[Task]:
    return {task}.union(*(upwards(t) for t in task.waits_for))


def implied(job, stage, jobs):
    """Jobs that a training rests on only through other work that is underway."""
    ours = {s for s in rests_on(stage) if s in jobs}
    return {jobs[s] for s in ours if any(s in rests_on(o) for o in ours if o is not s)}


def test_more_asked_of_what_is_underway_is_a_task_that_waits_for_it():
    _, _, (task,) = tasks_of(small("init", "0"))
    work = task.chain[0]
    away = Underway("7_0", {work.stage.id: frozenset()}, frozenset())
    _, _, (again,) = tasks_of(small("init", "0"), underway=[away])
    assert [w.stage for w in again.chain] == [work.stage]
    assert again.after == {"7_0"}


def test_a_result_that_a_job_underway_does_not_give_is_a_task_that_waits():
    _, _, (task,) = tasks_of(small("init", "0"))
    away = Underway("7_0", {w.stage.id: w.missing for w in task.chain}, frozenset())
    _, _, (light,) = tasks_of(small("init", "0"), underway=[away])
    assert (light.chain, light.runs, light.after) == ([], [0], {"7_0"})


@given(GRIDS, st.integers(0, 400))
def test_packing_keeps_depths_apart_and_loses_nothing(runs, steps):
    _, _, tasks = tasks_of(*runs)
    elements = pack(tasks, steps)
    assert sorted(map(id, (t for e in elements for t in e))) == sorted(map(id, tasks))
    for element in elements:
        assert len({task.depth for task in element}) == 1
        assert len(element) == 1 or sum(task.steps for task in element) <= steps
    assert [e[0].depth for e in elements] == sorted(e[0].depth for e in elements)


@given(
    st.one_of(
        st.builds(At, st.integers(0, 10**6), st.booleans()),
        st.builds(Points, st.sampled_from(["val", "test"]), st.integers(1, 99), st.integers(1, 999)),
    )
)
def test_demands_as_text(demand):
    assert demand_of_text(demand_text(demand)) == demand


@pytest.mark.parametrize("run", [small("early", "0.5"), small("init", "0", select="best_test", every=20)])
def test_the_demands_of_runs_as_text(run):
    for work in plan(graph(run).goals, MISSING):
        if isinstance(work.stage.settings, Train):
            assert {demand_of_text(demand_text(d)) for d in work.missing} == work.missing
