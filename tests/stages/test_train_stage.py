"""Trajectories: when going on is the dense run itself, masks and moments, stops and resumptions to the same bits."""

import random

import pytest
import torch
from engine.small_runs import DATA, EPOCH, MODEL, RECIPE, STEPS, Interrupt, K, compute, contents, small

from lthbench.engine.graph import Best
from lthbench.engine.runner import Runner
from lthbench.engine.store import At, Points, Store
from lthbench.programs import experiment
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.stages import KINDS
from lthbench.stages import train as trajectory
from lthbench.stages.init import init
from lthbench.stages.prune import Pruner, prune
from lthbench.stages.train import train

START = init(MODEL, "pytorch", 0)
DENSE = train(START, RECIPE, DATA, 0)
MAGNITUDE = Pruner(CriterionSettings.of("magnitude", {}, 0), "after_training")


def masked(density):
    return prune(DENSE.at(STEPS), MAGNITUDE, Allocation("global", {}), "weights", Density.parse(density))


NOTHING_GOES = masked("1/1")


def run(store, *goals):
    outcome = Runner(store, KINDS).run(list(goals))
    assert not outcome.failed
    return outcome


def weights(store, state):
    return {k: v for k, v in store.read(state.stage.id, f"s{state.step:09d}.safetensors")[0].items() if k[0] == "w"}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# ---- identities


def test_going_on_with_its_own_moments_is_the_dense_run():
    for k in (1, K, STEPS, 1000):
        assert train(DENSE.at(k), RECIPE, DATA, 0, moments=DENSE.at(k), first=k) is DENSE
    once_more = train(DENSE.at(K), RECIPE, DATA, 0, moments=DENSE.at(K), first=K)
    assert train(once_more.at(30), RECIPE, DATA, 0, moments=once_more.at(30), first=30) is DENSE


def test_going_on_in_any_other_way_is_not():
    k = K
    others = [
        train(DENSE.at(k), RECIPE, DATA, 0, first=k),  # fresh moments
        train(DENSE.at(k), RECIPE, DATA, 0, moments=DENSE.at(k), first=k + 1),
        train(DENSE.at(k), RECIPE, DATA, 1, moments=DENSE.at(k), first=k),
        train(DENSE.at(k), RECIPE, DATA, 0, moments=DENSE.at(k), first=k, index=(1, 0)),
        train(DENSE.at(k), RECIPE, DATA, 0, moments=DENSE.at(k + 1), first=k),
        train(DENSE.at(k), RECIPE, DATA, 0, moments=DENSE.at(k), first=k, mask=NOTHING_GOES),
        train(START, RECIPE, DATA, 0, first=k),
    ]
    assert DENSE not in others and len(set(others)) == len(others)


def test_a_masked_trajectory_gone_on_with_stays_itself():
    level = train(START, RECIPE, DATA, 0, mask=NOTHING_GOES)
    assert train(level.at(K), RECIPE, DATA, 0, moments=level.at(K), first=K) is level


def test_from_the_rewinding_point_with_its_moments_the_dense_run_comes_out_bit_for_bit(tmp_path):
    """METHODS I.10, computed: under a mask that removes nothing the stages differ and the numbers must not."""
    store = Store(tmp_path)
    restored = train(DENSE.at(K), RECIPE, DATA, 0, mask=NOTHING_GOES, moments=DENSE.at(K), first=K)
    fresh = train(DENSE.at(K), RECIPE, DATA, 0, mask=NOTHING_GOES, first=K)
    from_zero = train(START, RECIPE, DATA, 0, mask=NOTHING_GOES)  # I.8: a level that removes nothing is level 0
    run(store, *((t, At(STEPS)) for t in (DENSE, restored, fresh, from_zero)))
    end = weights(store, DENSE.at(STEPS))
    assert equal(weights(store, restored.at(STEPS)), end)
    assert equal(weights(store, from_zero.at(STEPS)), end)
    assert not equal(weights(store, fresh.at(STEPS)), end)  # momentum was lost


def test_no_steps_are_no_change(tmp_path):
    store = Store(tmp_path)
    still = train(DENSE.at(K), RECIPE, DATA, 0, mask=NOTHING_GOES, moments=DENSE.at(K), first=K)
    run(
        store,
        (still, At(K)),
        (still, Points("val", 5, K)),
        (DENSE, Points("val", K, K)),
        (still, At(Best("val.loss", 5, K))),
    )
    assert equal(weights(store, still.at(K)), weights(store, DENSE.at(K)))
    assert store.curve(still.id)["val"] == {K: store.curve(DENSE.id)["val"][K]}
    assert equal(
        {k: v for k, v in store.read(still.id, f"best-val.loss-5-{K}.safetensors")[0].items() if k[0] == "w"},
        weights(store, DENSE.at(K)),
    )


# ---- stops


def test_wherever_it_is_stopped_it_ends_in_the_same_bytes(tmp_path, monkeypatch):
    """Interrupted at random steps again and again, with points and both best states asked for."""
    runs = [
        small("early", "0.5", every=3, select="best_val_loss"),
        small("early", "0.5", every=7, select="best_test"),
    ]
    compute(Store(tmp_path / "undisturbed"), *runs)
    monkeypatch.setattr(trajectory, "SAVE_SECONDS", 0.0)
    chosen = random.Random(0)
    for number in range(6):
        monkeypatch.setattr(trajectory, "TICK_STEPS", chosen.choice([1, 2, 5, 11]))
        store = Store(tmp_path / str(number))
        for stage in (experiment(runs[0]).roles["dense"].stage, experiment(runs[0]).trajectory):
            first = stage.settings.first
            for step in sorted(chosen.sample(range(first + 1, STEPS), 3)):
                with pytest.raises(KeyboardInterrupt):
                    compute(store, *runs, listeners=[Interrupt(stage, step)])
        assert not compute(store, *runs).failed
        assert contents(store.root) == contents(tmp_path / "undisturbed")


def test_a_resumption_does_not_begin_again(tmp_path, monkeypatch):
    from engine.small_runs import Log

    monkeypatch.setattr(trajectory, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trajectory, "TICK_STEPS", 5)
    run, store, log = small(sparsity="0", every=10, select="best_val_loss"), Store(tmp_path), Log()
    with pytest.raises(KeyboardInterrupt):
        compute(store, run, listeners=[Interrupt(DENSE, 31)])  # told at 35, after 30 was saved
    assert [n for n in store.names(DENSE.id) if n[0] == "r"] == ["r000000030.safetensors"]
    compute(store, run, listeners=[log])
    assert log.steps == {DENSE: 10}
    assert not [n for n in store.names(DENSE.id) if n[0] in "rp"]


# ---- best points


@pytest.mark.parametrize(
    ("select", "series", "value"), [("best_val_loss", "val", "loss"), ("best_test", "test", "accuracy")]
)
def test_the_selected_state_is_the_best_of_the_curve(tmp_path, select, series, value):
    store = Store(tmp_path)
    chosen = experiment(small("lr", "0.8", every=3, select=select))
    compute(store, chosen)
    curve = store.curve(chosen.trajectory.id)[series]
    assert sorted(curve) == [12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 40]
    sign = -1 if value == "accuracy" else 1
    best = min(curve, key=lambda step: (sign * curve[step][value], step))  # the earliest of equals
    found = store.output(chosen.result)
    assert found["selected_step"] == best
    assert {k: found["metrics"][series][k] for k in ("accuracy", "loss")} == curve[best]
    run(store, (chosen.trajectory, At(best)))
    state = chosen.roles["final"]
    tensors, meta = store.read(chosen.trajectory.id, f"{state.step}.safetensors")
    assert meta["step"] == best
    assert equal(tensors, store.read(chosen.trajectory.id, f"s{best:09d}.safetensors")[0])


def test_the_best_point_ends_where_it_was_asked_to_whoever_trains_on(tmp_path):
    best = Best("test.accuracy", 5, 20)
    run(Store(tmp_path / "a"), (DENSE, At(best)))
    run(Store(tmp_path / "b"), (DENSE, At(best)), (DENSE, At(STEPS)), (DENSE, Points("test", 1, STEPS)))
    name = f"{DENSE.id[:2]}/{DENSE.id}/{best}.safetensors"
    assert contents(tmp_path / "a")[name] == contents(tmp_path / "b")[name]


def test_two_best_points_of_one_trajectory(tmp_path):
    by_loss, coarse = Best("val.loss", 1, STEPS), Best("val.loss", EPOCH, STEPS)
    store = Store(tmp_path)
    run(store, (DENSE, At(by_loss)), (DENSE, At(coarse)), (DENSE, Points("val", 1, STEPS)))
    curve = store.curve(DENSE.id)["val"]
    for best, steps in ((by_loss, range(1, STEPS + 1)), (coarse, (EPOCH, STEPS))):
        expected = min(steps, key=lambda step: (curve[step]["loss"], step))
        assert store.read(DENSE.id, f"{best}.safetensors")[1]["step"] == expected


def test_moments_and_state_hold_what_they_say(tmp_path):
    store = Store(tmp_path)
    mask = masked("1/4")
    level = train(DENSE.at(K), RECIPE, DATA, 0, mask=mask, moments=DENSE.at(K), first=K)
    run(store, (level, At(STEPS, full=True)))
    kept = store.read(mask.id, "out.safetensors")[0]
    state, moments = (store.read(level.id, f"{c}{STEPS:09d}.safetensors")[0] for c in "so")
    assert {f"mask/{k}" for k in kept} == {k for k in state if k.startswith("mask/")}
    for name, keep in kept.items():
        assert torch.equal(state[f"mask/{name}"], keep) and keep.dtype == torch.bool
        assert not state[f"weights/{name}"][~keep].any() and state[f"weights/{name}"][keep].all()
        assert not moments[f"{name}/momentum_buffer"][~keep].any() and moments[f"{name}/momentum_buffer"][keep].any()
