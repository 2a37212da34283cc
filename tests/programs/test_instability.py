"""Instability analysis: two copies of one state that see their data in another order, and the line between them."""

import pytest
from engine.small_runs import STEPS, K, compute, small, stages
from programs.test_rewinding import checkpoint

from lthbench.base.errors import UserError
from lthbench.data.stream import split
from lthbench.engine.graph import ancestors
from lthbench.engine.store import Store
from lthbench.evaluation.metrics import measure
from lthbench.programs import experiment
from lthbench.programs.candidates import Soup
from lthbench.stages.connect import connect

PAIR = Soup("instability", 2, points=7)


def pair(rewind="early", sparsity="0", **words):
    return small(rewind, sparsity, soup=PAIR, **{"schedule": "iterative", **words})


def copies(run):
    roles = experiment(run).roles
    return [roles[role] for role in sorted(roles) if role.startswith("net ") and "." in role]


@pytest.mark.parametrize("k", [0.0, 0.25, 0.5])
def test_copies_of_the_dense_network_part_at_k(k):
    dense = experiment(small(sparsity="0")).roles["dense"]
    one, other = copies(pair(k=k))
    assert one == dense  # the run itself
    s = other.stage.settings
    assert (s.index, s.first, other.step) == ((0, 1), k * STEPS, STEPS)
    if k:
        assert other.stage.inputs == {"start": dense.stage.at(k * STEPS), "moments": dense.stage.at(k * STEPS)}


def test_under_a_mask_only_the_last_training_is_doubled():
    run = pair(sparsity="level:3")
    alone = experiment(small("early", "level:3", schedule="iterative")).roles
    one, other = copies(run)
    assert one == alone["net 3"] and other.stage.inputs["mask"] is alone["mask 3"]
    assert (
        len(stages(run, kind="train")) == len(stages(small("early", "level:3", schedule="iterative"), kind="train")) + 1
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("pairs"))
    assert not compute(store, pair(), pair(k=1.0), pair(sparsity="level:2")).failed
    return store


@pytest.mark.parametrize("sparsity", ["0", "level:2"])
def test_the_ends_of_the_line_are_the_copies(store, sparsity):
    run = pair(sparsity=sparsity)
    found = store.output(experiment(run).result)
    line = found["line"]
    assert line["alphas"] == [i / 6 for i in range(7)]
    errors = sorted(1 - m["test"]["accuracy"] for m in found["members"])
    assert sorted(1 - a for a in (line["test"]["accuracy"][0], line["test"]["accuracy"][-1])) == errors
    assert found["metrics"]["test"]["accuracy"] == pytest.approx(1 - sum(errors) / 2)
    assert line["test"]["barrier"] == pytest.approx(max(1 - a for a in line["test"]["accuracy"]) - sum(errors) / 2)
    ends = {measure(checkpoint(store, ref).network(), split(run.data, "train"))["loss"] for ref in copies(run)}
    assert {line["train"]["loss"][0], line["train"]["loss"][-1]} == ends
    assert line["distance"] > 0


def test_copies_that_part_at_the_end_are_one_network(store):
    line = store.output(experiment(pair(k=1.0)).result)["line"]
    assert line["distance"] == 0 and line["test"]["barrier"] == line["train"]["loss_barrier"] == 0


def test_a_line_has_no_direction():
    one, other = copies(pair())
    data = pair().data
    assert connect(one, other, data) is connect(other, one, data)
    assert connect(one, other, data).inputs["a"] != connect(one, other, data).inputs["b"]


def test_how_the_line_is_measured_is_in_the_name():
    runs = [pair(), small("early", "0", schedule="iterative", soup=Soup("instability", 2, points=8))]
    runs.append(small("early", "0", schedule="iterative", soup=Soup("instability", 2, points=7, splits=("test",))))
    assert len({experiment(run).id for run in runs}) == 3
    assert len({stage for run in runs for stage in ancestors([experiment(run).result]) if stage.kind == "train"}) == 2
    assert K == 10


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Soup("instability", 3), r"two copies that differ in seed: soup\.m=2 soup\.vary=seed"),
        (lambda: Soup("instability", 2, points=1), r"soup\.points: 1 is less than 2"),
        (lambda: Soup("instability", 2, splits=()), r"soup\.splits: name at least one"),
        (lambda: small(soup=Soup("instability", 2, splits=("tst",))), "did you mean 'test'"),
        (lambda: pair(program="at_init"), r"soup=instability needs pruner\.program=after_training, not at_init"),
        (lambda: pair(weights="a" * 64), "needs the training that made the weights"),
        (lambda: pair(k=1.5), r"rewind\.k: 1\.5 ratio is step 60; training ends at 40"),
    ],
)
def test_what_is_refused(made, message):
    with pytest.raises(UserError, match=message):
        made()
