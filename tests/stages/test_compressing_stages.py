"""Compression as stages: interrupted and taken up again, shared, and no part of runs without it."""

import random
from dataclasses import replace

import pytest
from engine.small_runs import RECIPE, STEPS, Interrupt, compute, contents, small

from lthbench.engine.store import Store
from lthbench.programs import experiment
from lthbench.programs.compressing import Compression
from lthbench.stages import train as trajectory
from lthbench.stages.train import Train

DEEP = Compression("deep", 3, 3, 3, "linear", 50, STEPS / 20, 1e-3)


def deep(**changes):
    return small("finetune", "0.5", compression=replace(DEEP, **changes))


def tied(run):
    return experiment(run).roles["tuned"].stage


def test_it_rests_on_the_run_that_it_compresses():
    with_it, without = experiment(deep()), experiment(small("finetune", "0.5"))
    assert with_it.roles["pruned"] == without.roles["final"]
    assert with_it.result.inputs["before"].stage is without.result
    assert with_it.id != without.id
    assert '"tied"' not in without.trajectory.text and tied(deep()).settings.tied


def test_not_trained_it_is_the_shared_network():
    roles = experiment(deep(epochs=0.0)).roles
    assert roles["tuned"] == roles["shared"]


def test_shared_values_are_trained_without_penalties_by_adam():
    s = tied(small("finetune", "0.5", compression=DEEP, recipe=replace(RECIPE, weight_decay=0.1, l1=0.1))).settings
    assert isinstance(s, Train)
    assert (s.recipe.optimizer, s.recipe.lr, s.recipe.weight_decay, s.recipe.l1) == ("adam", 1e-3, 0.0, 0.0)


def test_wherever_it_is_stopped_it_ends_in_the_same_bytes(tmp_path, monkeypatch):
    compute(Store(tmp_path / "undisturbed"), deep())
    monkeypatch.setattr(trajectory, "SAVE_SECONDS", 0.0)
    chosen = random.Random(0)
    for number in range(2):
        monkeypatch.setattr(trajectory, "TICK_STEPS", chosen.choice([1, 3, 5]))
        store = Store(tmp_path / str(number))
        for step in sorted(chosen.sample(range(1, STEPS), 3)):
            with pytest.raises(KeyboardInterrupt):
                compute(store, deep(), listeners=[Interrupt(tied(deep()), step)])
        assert not compute(store, deep()).failed
        assert contents(store.root) == contents(tmp_path / "undisturbed")


def test_too_few_weights_fail_the_stage_in_one_line(tmp_path):
    run = small("finetune", "0.98", compression=replace(DEEP, linear_bits=6))
    outcome = compute(Store(tmp_path), run)
    reason = next(iter(outcome.failed.values()))  # then what rests on it
    assert "compress: 63 clusters for the" in reason and "\n" not in reason
