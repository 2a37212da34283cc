"""Soups of a network pruned during training: copies part where the mask has changed for the last time."""

from dataclasses import replace

import pytest
import torch
from engine.small_runs import EPOCH, STEPS, Interrupt, compute, contents, stages
from programs.test_golden_ids import during
from programs.test_soups import ALL

from lthbench.base.errors import UserError
from lthbench.engine.store import Store
from lthbench.programs import experiment
from lthbench.programs.candidates import Soup
from lthbench.pruning.dynamics import METHODS
from lthbench.soups.average import mean
from lthbench.stages import train as trajectory
from lthbench.stages.prune import Pruner
from lthbench.training.checkpoint import Checkpoint

SAID = {
    "gmp": {"begin": 10, "end": 30, "every": 5, "initial": "0"},
    "set": {"begin": 0, "end": 30, "every": 6, "fraction": 0.3},
    "rigl": {"begin": 0, "end": 30, "every": 6, "fraction": 0.3},
}


def souped(method="gmp", name="uniform", m=3, **said):
    settings = {"unit": "iteration", "every_unit": "iteration"} | SAID[method] | said
    pruner = Pruner(METHODS[method].settings(settings, STEPS, EPOCH), "during_training")
    return replace(during("gmp"), pruner=pruner, soup=Soup(name, m))


def alone(run):
    return replace(run, soup=Soup())


def checkpoints(store, run):
    roles = experiment(run).roles
    packed = [roles[f"net 1.{copy}"] for copy in range(run.soup.m)]
    return [Checkpoint.unpack(store.read(ref.stage.id, f"s{ref.step:09d}.safetensors")) for ref in packed]


@pytest.mark.parametrize("method", SAID)
def test_masks_are_equal_weights_are_not_and_the_soup_is_their_mean(tmp_path, method):
    store, run = Store(tmp_path), souped(method)
    assert not compute(store, run, alone(run)).failed
    copies = checkpoints(store, run)
    for name, mask in copies[0].mask.items():
        assert 0 < int(mask.sum()) < mask.numel()
        for other in copies[1:]:
            assert torch.equal(mask, other.mask[name])
            assert not other.weights[name][~mask].any()
            assert not torch.equal(copies[0].weights[name], other.weights[name])
    results = [store.output(experiment(r).result) for r in (run, alone(run))]
    assert results[0]["final_weights_sha256"] == mean(copies).digest()
    assert results[1]["final_weights_sha256"] == copies[0].digest()
    assert results[0]["sparsity"]["prunable"] == results[1]["sparsity"]["prunable"]


@pytest.mark.parametrize("name", ALL)
def test_copy_0_is_the_run_itself_and_the_others_are_shared(name):
    run = souped(name=name, m=4)
    roles = experiment(run).roles
    one = experiment(alone(run)).roles["net 1"]
    assert roles["net 1.0"] == one
    for copy in range(1, 4):
        assert roles[f"net 1.{copy}"] == experiment(souped(m=4)).roles[f"net 1.{copy}"]
        begun = roles[f"net 1.{copy}"].stage.inputs["start"]
        assert begun == one.stage.at(30)
    assert experiment(souped(name=name, m=1)).roles["net 1"] == one


def test_two_soups_are_two_runs_and_a_setting_without_effect_is_none():
    runs = [alone(souped()), souped(), souped(m=4), souped(name="greedy"), souped(name="mean")]
    assert len({experiment(run).id for run in runs}) == len(runs)
    many = replace(souped(), retraining=replace(souped().retraining, name="llr", lr=0.3))
    assert experiment(many).id == experiment(souped()).id


def test_stopped_in_a_copy_it_ends_in_the_same_bytes(tmp_path, monkeypatch):
    run = souped()
    compute(Store(tmp_path / "whole"), run)
    monkeypatch.setattr(trajectory, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trajectory, "TICK_STEPS", 3)
    store = Store(tmp_path / "stopped")
    for number in (2, 1):
        with pytest.raises(KeyboardInterrupt):
            compute(store, run, listeners=[Interrupt(experiment(run).roles[f"net 1.{number}"].stage, 34)])
    assert not compute(store, run).failed
    assert contents(store.root) == contents(tmp_path / "whole")


def test_copies_cost_what_follows_the_last_change():
    work = {s: s.settings.first for s in stages(souped(m=3), kind="train")}
    assert sorted(work.values()) == [0, 10, 30, 30]


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda: replace(during("movement"), soup=Soup("uniform", 2)),
            "soup=uniform averages networks of one mask; that of pruner=movement may change until the last step",
        ),
        (
            lambda: replace(during("l0"), soup=Soup("uniform", 2)),
            "soup=uniform averages networks of one mask; that of pruner=l0 may change until the last step",
        ),
        (lambda: souped(name="reprune"), "soup=reprune prunes after training; pruner=gmp has one mask, and the mean "),
        (lambda: souped(end=STEPS), "pruner.end is step 40; soup=uniform needs training after the mask's last change"),
        (
            lambda: replace(souped(), soup=Soup("uniform", 2, "lr", (0.1, 0.2))),
            "soup.vary=lr: retrain=replay has no learning rate of its own",
        ),
        (
            lambda: replace(souped(), soup=Soup("uniform", 2, "weight_decay", (0.1, 0.2))),
            "soup.vary=weight_decay is about retraining; pruner=gmp has none: soup.vary=seed",
        ),
    ],
)
def test_what_cannot_be_averaged_is_refused(make, line):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value).startswith(line)
