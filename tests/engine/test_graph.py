"""Names: interning, order, and ids that can be found again from what lies in a store."""

import json

import pytest
from engine.small_runs import compute, contents, small, stages

from lthbench.base.settings import canonical
from lthbench.cli.compose import composer
from lthbench.cli.resolve import resolve
from lthbench.engine.graph import Best, ancestors, name_of, stage
from lthbench.engine.store import Store
from lthbench.programs import experiment
from lthbench.stages import init


def test_one_description_is_one_object():
    first, second = small("early", "0.9", schedule="iterative"), small("early", "0.9", schedule="iterative")
    assert first is not second
    assert stages(first) == stages(second)  # by identity: stages define no equality
    assert experiment(first).result is experiment(second).result


def test_stages_are_hashed_by_their_text_not_by_what_python_calls_equal():
    whole, real, true = (small(model=small().model.restored(_args(value))) for value in (1, 1.0, True))
    ids = {init.init(run.model, "pytorch", 0).id for run in (whole, real, true)}
    assert len(ids) == 3


def _args(width):
    return {"name": "lenet_300_100", "version": 1, "args": {"width": width}, "shape": [1, 8, 8], "classes": 10}


def test_the_id_is_the_hash_of_the_description():
    made = experiment(small("early")).result
    assert made.id == name_of(made.text) and len(made.id) == 32
    described = json.loads(made.text)
    assert described["kind"] == "evaluate" and described["version"] == 2
    assert described["inputs"] == {"net": made.inputs["net"].ref}
    assert canonical(described) == made.text  # canonical: reading and writing it again changes nothing


def test_roles_order_does_not_matter_but_roles_do():
    a, b = init.init(small().model, "pytorch", 0), init.init(small().model, "pytorch", 1)
    settings = a.settings
    assert stage("k", 1, settings, {"x": a, "y": b}) is stage("k", 1, settings, {"y": b, "x": a})
    assert stage("k", 1, settings, {"x": a, "y": b}).id != stage("k", 1, settings, {"x": b, "y": a}).id
    assert stage("k", 1, settings, {"x": a}).id != stage("k", 2, settings, {"x": a}).id
    assert stage("k", 1, settings, {"x": a}).id != stage("l", 1, settings, {"x": a}).id


def test_serial_order_is_a_topological_order():
    runs = [
        small(rewind, "0.9", schedule="iterative", control=c) for rewind in ("init", "lr") for c in ("none", "reinit")
    ]
    found = stages(*runs)
    assert len({s.serial for s in found}) == len(found)
    assert all(ref.stage.serial < s.serial for s in found for ref in s.inputs.values())


def test_ancestors_names_each_stage_once():
    run = experiment(small("init", "0.9", schedule="iterative"))
    found = list(ancestors([run.result, run.result]))
    assert len(found) == len(set(found)) == 1 + 1 + 11 * 2 + 1  # init, dense, 11 rounds of prune and train, evaluate


def test_a_best_point_is_named_by_all_it_depends_on():
    dense = stages(small(sparsity="0"), kind="train")[0]
    refs = {dense.at(best).ref for best in (Best("val.loss", 5, 40), Best("val.loss", 5, 20), Best("val.loss", 4, 40))}
    assert refs == {f"{dense.id}@best-val.loss-{n}" for n in ("5-40", "5-20", "4-40")}


def test_every_id_in_a_store_is_derived_again_from_its_description(tmp_path):
    runs = [small("early", "0.36", schedule="iterative", every=20, select="best_val_loss"), small(program="at_init")]
    compute(Store(tmp_path), *runs)
    store = Store(tmp_path)
    expected = stages(*runs)
    assert sorted(store.ids()) == sorted(s.id for s in expected)
    for s in expected:
        text = (tmp_path / s.id[:2] / s.id / "stage.json").read_text()
        assert name_of(text) == s.id
        assert store.describe(s.id) == json.loads(s.text)


ALIKE = [["device=cuda"], ["threads=3"], ["out=elsewhere", "store=place"], ["data=somewhere"], ["tracking=none"]]


@pytest.fixture(scope="module")
def compose_id():
    with composer(None) as compose:

        def made(*words):
            return experiment(resolve(compose.compose(c for w in words for c in compose.values(w)), set())).id

        yield made


def test_where_and_how_one_computes_is_in_no_id(compose_id):
    plain = compose_id()
    assert all(compose_id(*words) == plain for words in ALIKE)
    assert compose_id("seed=1") != plain  # the comparison can fail


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["sparsity=0.90"], ["sparsity=0.9"]),
        (["sparsity=9e-1"], ["sparsity=0.9"]),
        (["sparsity=9/10"], ["sparsity=0.9"]),
        (["train.lr=1"], ["train.lr=1.0"]),
        (["schedule.rate=0.20"], ["schedule.rate=1/5"]),
        (["seed=3", "rewind=early", "sparsity=0.5"], ["sparsity=0.5", "seed=3", "rewind=early"]),
    ],
)
def test_two_spellings_of_a_command_are_one_id(compose_id, one, other):
    assert compose_id(*one) == compose_id(*other)


def test_how_often_a_trajectory_is_saved_changes_neither_ids_nor_bytes(tmp_path, monkeypatch):
    from lthbench.stages import train

    run = small("early", "0.36", schedule="iterative", every=7, select="best_val_loss")
    compute(Store(tmp_path / "seldom"), run)
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    for ticks in (3, 16):
        monkeypatch.setattr(train, "TICK_STEPS", ticks)
        compute(Store(tmp_path / f"every {ticks}"), run)
        assert contents(tmp_path / f"every {ticks}") == contents(tmp_path / "seldom")
