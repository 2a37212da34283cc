"""Searches for early tickets as trajectories: interrupted and taken up again, asked later, told, and trained from."""

import random
from dataclasses import replace

import pytest
import torch
from engine.small_runs import DATA, EPOCH, RECIPE, STEPS, Interrupt, compute, contents, small

from lthbench.data.sets import Augment
from lthbench.engine.runner import Runner
from lthbench.engine.store import At, Store
from lthbench.models import ModelSettings
from lthbench.programs import experiment
from lthbench.programs.record import record
from lthbench.pruning.dynamics import METHODS
from lthbench.pruning.scoring import Scoring
from lthbench.pruning.structure import Structure
from lthbench.stages import KINDS
from lthbench.stages import train as trajectory
from lthbench.stages.prune import Pruner
from lthbench.training.checkpoint import Checkpoint

BN = ModelSettings.of("resnet_20", {"width": 0.125, "shortcut": "B"}, (1, 8, 8), 10)
SEARCH = {"begin": 0, "end": 32, "every": 4, "unit": "iteration", "every_unit": "iteration"}
PLAIN = replace(DATA, augment=Augment())


def bird(restart=False, control="none"):
    said = SEARCH | {"epsilon": 0.6, "queue": 2, "compare": "previous", "untrained": False, "restart": restart}
    found = METHODS["early_bird"].settings(said, STEPS, EPOCH)
    pruner = Pruner(found, "during_training", None, Structure("filter"))
    return small(pruner=pruner, model=BN, recipe=replace(RECIPE, l1_scales=1e-3), control=control)


def crop(restart=False):
    found = METHODS["early_crop"].settings(
        SEARCH | {"tau": 0.6, "reference": "start", "restart": restart}, STEPS, EPOCH
    )
    return small(pruner=Pruner(found, "during_training", Scoring(2, "halving", data=PLAIN, seed=0, batch=50)))


RUNS = {"bird": bird(), "crop": crop(), "crop, trained anew": crop(True)}


def search(run):
    """The trajectory that looks for the ticket."""
    roles = experiment(run).roles
    return roles.get("ticket", roles["net 1"]).stage


@pytest.mark.parametrize("name", RUNS)
def test_wherever_it_is_stopped_it_ends_in_the_same_bytes(tmp_path, monkeypatch, name):
    run, chosen = RUNS[name], random.Random(0)
    compute(Store(tmp_path / "undisturbed"), run)
    monkeypatch.setattr(trajectory, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trajectory, "TICK_STEPS", 1)
    store = Store(tmp_path / "killed")
    for step in sorted(chosen.sample(range(1, 20), 4)):
        with pytest.raises(KeyboardInterrupt):
            compute(store, run, listeners=[Interrupt(search(run), step)])
    assert not compute(store, run).failed
    assert contents(store.root) == contents(tmp_path / "undisturbed")


def test_a_state_asked_later_is_made_from_the_nearest(tmp_path):
    stage, one, other = search(crop(True)), Store(tmp_path / "one"), Store(tmp_path / "other")
    for asked in (32, 10, 36):
        assert not Runner(one, KINDS).run([(stage, At(asked, full=True))]).failed
    assert not Runner(other, KINDS).run([(stage, At(s, full=True)) for s in (10, 32, 36)]).failed
    assert contents(one.root) == contents(other.root)


@pytest.mark.parametrize("restart", [False, True])
def test_the_record_says_where_the_ticket_was_drawn(tmp_path, restart):
    run, store = replace(crop(restart)), Store(tmp_path)
    found = METHODS["early_crop"].settings(
        {"begin": 0, "end": 2, "every": 1, "unit": "epoch", "every_unit": "epoch", "tau": 0.99, "reference": "start"}
        | {"restart": restart}, STEPS, EPOCH,
    )  # fmt: skip
    run = replace(run, pruner=replace(run.pruner, criterion=found))
    assert not compute(store, run).failed
    early = record(experiment(run), store, "cpu", 1)["early"]
    (each,) = early["searches"]
    assert (each["step"], each["epoch"], early["unspent"]) == (40, 2.0, 0)
    assert each["drawn"] in ("by the rule", "at the limit") and list(each["distances"]) == ["20", "40"]
    names = [search(run).id, experiment(run).trajectory.id]
    assert (names[0] != names[1]) == restart


def test_looks_between_epochs_are_told_at_their_own_steps(tmp_path):
    run, store = crop(True), Store(tmp_path)
    assert not compute(store, run).failed
    early = record(experiment(run), store, "cpu", 1)["early"]
    step = early["searches"][0]["step"]
    assert step % 4 == 0 and early["unspent"] == (32 - step) / EPOCH
    assert list(map(int, early["searches"][0]["distances"])) == list(range(4, step + 1, 4))


def test_a_reinitialised_ticket_has_the_mask_that_was_found(tmp_path):
    run, store = bird(True, "reinit"), Store(tmp_path)
    done = experiment(run)
    assert not compute(store, run).failed
    ticket, net = (Checkpoint.unpack(store.read(r.stage.id, f"s{r.step:09d}.safetensors")) for r in
                   (done.roles["ticket"], done.roles["net 1"]))  # fmt: skip
    assert all(torch.equal(net.mask[n], kept) for n, kept in ticket.mask.items())
    assert all(not net.weights[n][~kept].any() for n, kept in net.mask.items())
    start = done.roles["net 1"].stage.inputs["start"].settings
    assert start.index == 1 and not all(kept.all() for kept in ticket.mask.values())


def test_a_ticket_that_is_trained_anew_goes_on_with_its_weights_and_moments():
    done = experiment(crop(True))
    net, ticket = done.roles["net 1"].stage, done.roles["ticket"]
    assert net.inputs == {"start": ticket, "moments": ticket}
    assert (net.settings.first, net.settings.sparsify) == (0, None)
    assert crop(True).whole_steps == 32 + STEPS and crop().whole_steps == STEPS


# ---- PrAC


def prac(**others):
    said = {
        "begin": 4,
        "unit": "iteration",
        "epsilon": 0.2,
        "queue": 1,
        "stop": True,
        "forgotten": 0,
        "differing": True,
    }
    pruner = Pruner(METHODS["prac"].settings(said, STEPS, EPOCH), "during_training")
    return small(pruner=pruner, sparsity="level:3", schedule="iterative", **others)


def states(store, done, number):
    ref = done.roles[f"net {number}"]
    return [store.read(ref.stage.id, f"{c}{ref.step:09d}.safetensors")[0] for c in "so"]


def rows(store, done, number):
    return store.read(done.roles[f"examples {number}"].id, "out.safetensors")[0]["rows"]


def test_each_round_trains_on_what_mattered_and_the_last_ticket_on_all(tmp_path):
    done, store = experiment(prac()), Store(tmp_path)
    assert not compute(store, prac()).failed
    sizes = [DATA.train_samples]
    for number in (1, 2):
        found, (_, moments) = rows(store, done, number), states(store, done, number)
        assert found.tolist() == sorted(set(found.tolist())) and found[0] >= 0 and found[-1] < DATA.train_samples
        assert len(moments["x/forgets"]) == sizes[-1]
        sizes.append(len(found))
        hard = (moments["x/forgets"] > 0) | ~moments["x/learned"]
        before = torch.arange(DATA.train_samples) if number == 1 else rows(store, done, 1)
        critical = set(before[hard].tolist())
        assert critical == set(found.tolist()) if number == 1 else critical <= set(found.tolist())
    told = record(done, store, "cpu", 1)["early"]
    assert [each["images"] for each in told["searches"]] == sizes
    for each, size in zip(told["searches"], sizes):
        share, per_epoch = size / DATA.train_samples, -(-size // RECIPE.batch)
        assert each["step"] % per_epoch == 0 and each["step"] <= max(1, int(STEPS / EPOCH * share)) * per_epoch
    assert told["unspent"] == pytest.approx(sum(STEPS - each["step"] for each in told["searches"]) / EPOCH)
    last = done.roles["ticket"].stage
    assert "examples" not in last.inputs and last.inputs["start"] == done.roles["dense"]
    assert done.roles["dense"].step == 4


def test_a_round_that_is_killed_ends_in_the_same_bytes(tmp_path, monkeypatch):
    run = prac()
    compute(Store(tmp_path / "undisturbed"), run)
    monkeypatch.setattr(trajectory, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trajectory, "TICK_STEPS", 1)
    store = Store(tmp_path / "killed")
    for number, step in ((1, 3), (1, 19), (2, 1), (3, 1)):
        with pytest.raises(KeyboardInterrupt):
            compute(store, run, listeners=[Interrupt(experiment(run).roles[f"net {number}"].stage, step)])
    assert not compute(store, run).failed
    assert contents(store.root) == contents(tmp_path / "undisturbed")


def test_rounds_are_shared_between_sparsities():
    deep, shallow = (
        {ref.ref for ref in experiment(replace(prac(), sparsity=f"level:{n}")).roles.values()} for n in (3, 2)
    )
    assert len(shallow - deep) == 2  # the last training, and its evaluation
