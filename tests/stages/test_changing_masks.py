"""Trajectories whose mask changes on the way: interrupted and taken up again, asked later, shared and gone on with."""

import random
from dataclasses import replace

import pytest
import torch
from engine.small_runs import DATA, RECIPE, STEPS, Interrupt, compute, contents, small
from programs.test_golden_ids import DURING, during

from lthbench.engine.runner import Runner
from lthbench.engine.store import At, Store
from lthbench.programs import experiment
from lthbench.pruning.dynamics import METHODS
from lthbench.stages import KINDS
from lthbench.stages import train as trajectory
from lthbench.stages.prune import Pruner
from lthbench.stages.train import train


@pytest.mark.parametrize("name", DURING)
def test_wherever_it_is_stopped_it_ends_in_the_same_bytes(tmp_path, monkeypatch, name):
    run = during(name)
    compute(Store(tmp_path / "undisturbed"), run)
    monkeypatch.setattr(trajectory, "SAVE_SECONDS", 0.0)
    chosen = random.Random(0)
    for number in range(3):
        monkeypatch.setattr(trajectory, "TICK_STEPS", chosen.choice([1, 3, 5]))
        store, stage = Store(tmp_path / str(number)), experiment(run).trajectory
        for step in sorted(chosen.sample(range(stage.settings.first + 1, STEPS), 3)):
            with pytest.raises(KeyboardInterrupt):
                compute(store, run, listeners=[Interrupt(stage, step)])
        assert not compute(store, run).failed
        assert contents(store.root) == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("name", DURING)
def test_a_state_asked_later_is_made_from_the_nearest(tmp_path, name):
    """Before the end and beyond it: the length is not in the name."""
    stage, one, other = experiment(during(name)).trajectory, Store(tmp_path / "one"), Store(tmp_path / "other")
    for asked in (STEPS, 15, STEPS + 5):
        assert not Runner(one, KINDS).run([(stage, At(asked, full=True))]).failed
    assert not Runner(other, KINDS).run([(stage, At(s, full=True)) for s in (15, STEPS, STEPS + 5)]).failed
    assert contents(one.root) == contents(other.root)


def test_until_gradual_pruning_begins_it_is_the_dense_run():
    roles = experiment(during("gmp")).roles
    dense = experiment(small(sparsity="0")).roles["dense"]
    assert roles["dense"] == dense.stage.at(DURING["gmp"]["begin"])
    assert roles["net 1"].stage.inputs == {"start": roles["dense"], "moments": roles["dense"]}


def test_a_sparse_network_is_trained_on_like_any_ticket(tmp_path):
    """What a method remembers is its own: who goes on with its moments takes the optimiser's alone."""
    net, store = experiment(during("movement")).roles["net 1"], Store(tmp_path)
    on = train(net, RECIPE, DATA, 0, moments=net, first=STEPS)
    assert not Runner(store, KINDS).run([(net.stage, At(STEPS)), (on, At(STEPS + 5, full=True))]).failed
    before = store.read(net.stage.id, f"s{STEPS:09d}.safetensors")[0]
    after, moments = (store.read(on.id, f"{c}{STEPS + 5:09d}.safetensors")[0] for c in "so")
    assert not any(name.startswith("x/") for name in moments)
    for name, kept in before.items():
        if name.startswith("mask/"):
            weight = name.removeprefix("mask/")
            assert torch.equal(after[name], kept)
            assert not after[f"weights/{weight}"][~kept].any()
            assert not moments[f"{weight}/momentum_buffer"][~kept].any()


def test_frozen_weights_ask_nothing_of_the_optimiser():
    """Two recipes that differ in what frozen weights never see are one run."""
    said = {"constant": True, "scaled": False, "score_optimizer": "sgd", "score_lr": 0.1, "score_decay": 0.0}
    pruner = Pruner(METHODS["edge_popup"].settings(said, STEPS, 20), "during_training")
    recipes = [RECIPE, replace(RECIPE, lr=7.0, momentum=0.0, weight_decay=0.0, clip=1.0)]
    assert len({experiment(small(pruner=pruner, recipe=recipe)).id for recipe in recipes}) == 1
    other = replace(RECIPE, batch=50)
    assert len({experiment(small(pruner=pruner, recipe=recipe)).id for recipe in (RECIPE, other)}) == 2
