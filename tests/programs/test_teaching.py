"""Who learns from a teacher, what stays as it is, and what a stopped training needs of it."""

import shutil
from dataclasses import replace

import pytest
from engine.small_runs import STEPS, Interrupt, compute, contents, small, stages
from programs.test_golden_ids import during
from programs.test_soups import souped

from lthbench.base.settings import canonical
from lthbench.engine.store import Store
from lthbench.models import digest
from lthbench.programs import experiment
from lthbench.programs.candidates import Soup
from lthbench.programs.identity import identity
from lthbench.programs.teaching import Teacher
from lthbench.stages import train as trajectory
from lthbench.training.recipe import Distill

HOW = Distill(0.5, 2.0)
DENSE = Teacher("dense", HOW)
PROGRAMS = {
    "iterative": small("init", "0.9", schedule="iterative", rate="0.6"),
    "at initialisation": small(program="at_init"),
    "gradual": during("gmp"),
    "movement": during("movement"),
    "soup": souped("uniform"),
    "reinit": small("init", "0.9", control="reinit"),
}


def taught(stage):
    return "teacher" in stage.inputs


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_pruned_learns_from_the_dense_network_which_is_what_it_was(name):
    run = PROGRAMS[name]
    alone = experiment(run)
    made = experiment(replace(run, teacher=DENSE))
    dense = experiment(replace(run, sparsity="0", soup=Soup())).roles["dense"]
    trained = [s for s in stages(made, kind="train") if s is not dense.stage]
    assert trained and all(s.inputs["teacher"] == dense and s.settings.distill == HOW for s in trained)
    assert not taught(dense.stage)
    assert made.id != alone.id
    assert canonical(identity(made.run)) != canonical(identity(run))
    assert not any(taught(s) for s in stages(alone, kind="train"))


def test_a_dense_network_has_no_teacher():
    dense = small(sparsity="0")
    with_teacher = replace(dense, teacher=DENSE)
    assert experiment(with_teacher).id == experiment(dense).id
    assert canonical(identity(with_teacher)) == canonical(identity(dense))
    longer = small("init", "0.9", control="longer")
    assert experiment(replace(longer, teacher=DENSE)).id == experiment(longer).id


def test_each_setting_and_each_teacher_is_another_run():
    teachers = [DENSE, Teacher("dense", Distill(0.4, 2.0)), Teacher("dense", Distill(0.5, 3.0))]
    teachers += [Teacher("a" * 64, HOW, "here"), Teacher("b" * 64, HOW, "here")]
    assert len({experiment(small(teacher=t)).id for t in (None, *teachers)}) == len(teachers) + 1
    assert experiment(small(teacher=Teacher("a" * 64, HOW, "there"))).id == experiment(small(teacher=teachers[3])).id


@pytest.mark.parametrize("program", ["movement", "gmp"])
def test_stopped_and_its_teacher_dropped_it_ends_in_the_same_bytes(tmp_path, monkeypatch, program):
    run = replace(during(program), teacher=DENSE)
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "stopped")
    compute(whole, run)
    assert contents(whole.root)
    stage, dense = experiment(run).trajectory, experiment(run).trajectory.inputs["teacher"].stage
    monkeypatch.setattr(trajectory, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trajectory, "TICK_STEPS", 7)
    with pytest.raises(KeyboardInterrupt):
        compute(store, run, listeners=[Interrupt(stage, STEPS - 5)])
    assert any(name.startswith("r") for name in store.names(stage.id))
    shutil.rmtree(store.folder(dense.id))  # the training that goes on asks for it again
    assert not compute(store, run).failed
    ends, expected = contents(store.root), contents(whole.root)
    assert all(ends[path] == expected[path] for path in ends)
    asked = {f"{s.id[:2]}/{s.id}" for s in (stage, dense, experiment(run).result)}
    lacking = {path for path in expected.keys() - ends.keys() if path.rsplit("/", 1)[0] in asked}
    assert all("000000010" in path for path in lacking)  # where gradual pruning began: asked of the dense run once


def test_a_file_teaches_as_the_network_in_it_would(tmp_path):
    """The dense network, written to a file, is the same teacher under another name."""
    from safetensors.torch import save_file

    from lthbench.training.checkpoint import Checkpoint

    store, run = Store(tmp_path / "store"), small("init", "0.8", teacher=DENSE)
    compute(store, run)
    dense = experiment(run).roles["dense"]
    packed = store.read(dense.stage.id, f"s{dense.step:09d}.safetensors")
    path = str(tmp_path / "teacher.safetensors")
    save_file(Checkpoint.unpack(packed).weights, path)
    other = replace(run, teacher=Teacher(digest(path), HOW, path))
    assert not compute(store, other).failed
    assert experiment(other).id != experiment(run).id
    digests = {store.output(experiment(r).result)["final_weights_sha256"] for r in (run, other)}
    assert len(digests) == 1
    compute(store, small("init", "0.8"))
    assert store.output(experiment(small("init", "0.8")).result)["final_weights_sha256"] not in digests
