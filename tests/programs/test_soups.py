"""Sparse model soups: what is shared, what differs, what it costs, and what comes out."""

from dataclasses import replace

import pytest
import torch
from engine.small_runs import DATA, EPOCH, RECIPE, STEPS, Interrupt, Log, compute, contents, small, stages
from programs.test_rewinding import checkpoint

from lthbench.base.errors import UserError
from lthbench.data.sets import Augment
from lthbench.data.stream import split
from lthbench.engine.runner import Runner
from lthbench.engine.store import At, Output, Store
from lthbench.models import ModelSettings
from lthbench.programs import experiment
from lthbench.programs.candidates import Recalibration, Soup
from lthbench.soups.average import mean
from lthbench.stages import KINDS
from lthbench.stages.average import average
from lthbench.stages.evaluate import evaluate

RESNET = ModelSettings.of("resnet_20", {"width": 0.25}, DATA.shape, DATA.classes)
ALL = ("uniform", "greedy", "best", "mean", "ensemble")


def souped(name="uniform", m=3, sparsity="0.9", rounds=1, **words):
    how = {key: words.pop(key) for key in ("vary", "values", "draw", "accept") if key in words}
    standard = {"retrain": "llr", "epochs": 1, "schedule": "geometric", "rounds": rounds}
    return small("lr", sparsity, soup=Soup(name, m, **how), **{**standard, **words})


def imp(**words):
    return souped("none", **words)


def trained(*runs):
    """The steps of training that runs take together."""
    return sum(
        max(ref.step for run in runs for ref in experiment(run).roles.values() if ref.stage is stage)
        - stage.settings.first
        for stage in stages(*runs, kind="train")
    )


def nets(run, number):
    roles = experiment(run).roles
    return [roles[f"net {number}.{copy}"] for copy in range(len(run.copies))]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("retrain", ["llr", "finetune", "lrw"])
def test_copy_0_of_the_first_round_is_iterative_prunings_own(name, retrain):
    alone = experiment(imp(rounds=3, retrain=retrain)).roles
    soup = souped(name, rounds=3, retrain=retrain)
    assert nets(soup, 1)[0] == alone["net 1"]
    assert experiment(soup).roles["mask 1"] is alone["mask 1"]
    assert len({ref.ref for ref in nets(soup, 1)}) == 3


def test_every_copy_of_repruning_is_a_run_of_its_own():
    alone = experiment(imp(rounds=3)).roles
    roles = experiment(souped("reprune", rounds=3)).roles
    assert [roles[f"net {n}.0"] for n in (1, 2, 3)] == [alone[f"net {n}"] for n in (1, 2, 3)]
    assert {roles[f"mask 1.{copy}"] for copy in range(3)} == {alone["mask 1"]}
    assert len({roles[f"mask 2.{copy}"] for copy in range(3)}) == 3


def test_one_round_trains_nothing_beyond_the_candidates():
    for m in (1, 3, 5):
        runs = [imp(), *(souped(name, m) for name in (*ALL, "reprune"))]
        assert trained(*runs) == STEPS + m * EPOCH
        assert len(stages(*runs, kind="train")) == 1 + m


def test_rounds_cost_what_was_foretold():
    """p rounds of t: uniform p m t; greedy (p - 1) m t more; best, mean and ensemble nothing beside uniform."""
    p, m, t = 3, 4, EPOCH
    uniform = souped("uniform", m, rounds=p)
    assert trained(uniform) == STEPS + p * m * t
    assert trained(uniform, *(souped(name, m, rounds=p) for name in ("best", "mean", "ensemble"))) == trained(uniform)
    assert trained(uniform, souped("greedy", m, rounds=p)) == trained(uniform) + (p - 1) * m * t
    assert trained(uniform, imp(rounds=p)) == trained(uniform) + (p - 1) * t
    assert trained(imp(rounds=p, budget=m)) == STEPS + p * m * t
    assert trained(souped("reprune", m, rounds=p)) == STEPS + p * m * t


VARIED = {
    "seed": ({}, lambda s: s.index),
    "weight_decay": ({"values": (1e-4, 5e-4, 1e-3)}, lambda s: s.recipe.weight_decay),
    "lr": ({"values": (0.1, 0.05, 0.2)}, lambda s: s.recipe.lr),
    "retrain_schedule": ({"values": ("llr", "clr", "slr")}, lambda s: s.recipe.schedule),
}


@pytest.mark.parametrize("vary", VARIED)
def test_candidates_differ_in_one_thing(vary):
    how, what = VARIED[vary]
    found = [ref.stage for ref in nets(souped(vary=vary, **how), 1)]
    assert len({str(what(s.settings)) for s in found}) == 3
    blank = {
        "seed": {"index": ()},
        "weight_decay": {"recipe": replace(RECIPE, weight_decay=0.0)},
        "lr": {"recipe": RECIPE},
        "retrain_schedule": {"recipe": RECIPE},
    }[vary]
    assert len({replace(s.settings, **blank).text for s in found}) == 1
    assert all(s.inputs["mask"] is found[0].inputs["mask"] for s in found)
    if vary == "lr":
        assert len({replace(s.settings.recipe, lr=1.0).text for s in found}) == 1
    if vary == "retrain_schedule":
        assert len({replace(s.settings.recipe, schedule=RECIPE.schedule).text for s in found}) == 1


def test_lengths_that_differ():
    found = nets(souped(vary="retrain_length", values=(1, 2, 0.5)), 1)
    assert [ref.step for ref in found] == [20, 40, 10]
    alike = nets(souped(vary="retrain_length", values=(1, 2, 0.5), retrain="finetune"), 1)
    assert len({ref.stage for ref in alike}) == 1  # a constant rate: three points of one trajectory


@pytest.mark.parametrize(
    ("vary", "draw"), [("weight_decay", (1e-5, 1e-2)), ("lr", (0.01, 1)), ("retrain_length", (1, 3))]
)
def test_drawn_values(vary, draw):
    """Copy 0 is as the run says; the others lie between the bounds, the same in every round, others for other seeds."""
    field = {"retrain_length": "epochs"}.get(vary, vary)
    runs = [souped(vary=vary, draw=draw, m=6, rounds=2, seed=seed) for seed in (0, 0, 1)]
    values = [[getattr(how, field) for how in run.copies] for run in runs]
    assert values[0] == values[1] != values[2]
    assert values[0][0] == getattr(runs[0].retraining, field)
    assert len(set(values[0])) == 6 and all(draw[0] <= v <= draw[1] for v in values[0][1:])
    assert nets(runs[0], 1)[0] == experiment(imp(rounds=2)).roles["net 1"]


def test_copies_of_a_replay_share_its_position_and_draw_batches_of_their_own():
    settings = [ref.stage.settings for ref in nets(souped(retrain="lrw", epochs=None, rounds=2), 2)]
    assert [s.index for s in settings] == [(0, 0), (0, 1), (0, 2)]
    assert {s.first for s in settings} == {10}
    own = [ref.stage.settings for ref in nets(souped(rounds=2), 2)]
    assert [s.index for s in own] == [(2, 0), (2, 1), (2, 2)] and {s.first for s in own} == {0}


def test_order_of_writing_is_no_matter():
    one, other = (souped(vary="weight_decay", values=v) for v in ((1e-4, 5e-4, 1e-3), (1e-3, 1e-4, 5e-4)))
    for name in ALL:
        ids = {experiment(replace(run, soup=replace(run.soup, name=name))).id for run in (one, other)}
        assert len(ids) == 1


@pytest.mark.parametrize("name", [*ALL, "reprune"])
def test_a_soup_of_one_is_iterative_pruning(name):
    assert experiment(souped(name, 1, rounds=3)).id == experiment(imp(rounds=3)).id


# ---- what comes out


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("soups"))
    runs = [souped(name, rounds=2) for name in (*ALL, "reprune")] + [imp(rounds=2)]
    assert not compute(store, *runs).failed
    return store


def result(store, run):
    return store.output(experiment(run).result)


def test_a_uniform_soup_is_the_mean_and_keeps_the_mask(store):
    run = souped(rounds=2)
    roles = experiment(run).roles
    members = [checkpoint(store, ref) for ref in nets(run, 2)]
    made = checkpoint(store, roles["final"])
    assert made.digest() == mean(members).digest()
    mask = store.read(roles["mask 2"].id, "out.safetensors")[0]
    assert all(torch.equal(made.mask[n], kept) for n, kept in mask.items())
    kept = run.rounds[-1].kept(2320)
    assert result(store, run)["sparsity"]["prunable"] == {"removed": 2320 - kept, "total": 2320}
    assert roles["mask 2"].inputs["net"] == roles["net 1"]  # the next round starts from the soup


def test_the_mean_candidate_and_the_best_one(store):
    run = souped("mean", rounds=2)
    alone = [evaluated(store, ref, run) for ref in nets(run, 2)]
    found = result(store, run)
    assert found["metrics"]["test"]["accuracy"] == pytest.approx(
        sum(a["metrics"]["test"]["accuracy"] for a in alone) / 3
    )
    assert sorted(str(m) for m in found["members"]) == sorted(str(a["metrics"]) for a in alone)
    best = result(store, souped("best", rounds=2))
    assert best["metrics"]["val"]["accuracy"] == max(a["metrics"]["val"]["accuracy"] for a in alone)
    assert best["final_weights_sha256"] in {a["final_weights_sha256"] for a in alone}
    greedy = result(store, souped("greedy", rounds=2))
    told = greedy["soup"]
    assert greedy["metrics"]["val"]["accuracy"] >= max(told["accuracies"])
    assert len(told["members"]) == 3 and set(told["chosen"]) <= {0, 1, 2}


def evaluated(store, ref, run):
    stage = evaluate([ref], run.data, run.prunable)
    assert not Runner(store, KINDS).run([(stage, Output())]).failed
    return store.output(stage)


def test_an_ensemble_predicts_the_mean_of_the_softmaxes(store):
    run = souped("ensemble", rounds=2)
    images = split(DATA, "test")
    x = images.batch(slice(0, len(images)))
    with torch.no_grad():
        outputs = [checkpoint(store, ref).network().eval()(x).softmax(1) for ref in nets(run, 2)]
    p = sum(outputs) / 3
    found = result(store, run)
    assert found["metrics"]["test"]["accuracy"] == int((p.argmax(1) == images.y).sum()) / len(images)
    expected = float(-p[torch.arange(len(p)), images.y].log().mean())
    assert found["metrics"]["test"]["loss"] == pytest.approx(expected, rel=1e-5)
    one = evaluated(store, nets(run, 2)[0], run)
    assert found["flops"]["nonzero"] == pytest.approx(3 * one["flops"]["nonzero"], rel=0.2)


def test_repruning_ends_at_the_exact_count_below_the_union(store):
    run = souped("reprune", rounds=2)
    roles = experiment(run).roles
    whole, final = checkpoint(store, roles["average"]), checkpoint(store, roles["final"])
    kept = run.rounds[-1].kept(2320)
    assert sum(int(k.sum()) for k in final.mask.values()) == kept < sum(int(k.sum()) for k in whole.mask.values())
    for name, mask in final.mask.items():
        assert not (mask & ~whole.mask[name]).any()
        assert torch.equal(final.weights[name], whole.weights[name] * mask)
    scores = torch.cat([w.abs()[whole.mask[n]] for n, w in whole.weights.items() if n in whole.mask])
    threshold = scores.sort(descending=True).values[kept - 1]
    assert all((whole.weights[n].abs()[m] >= threshold).all() for n, m in final.mask.items())


def test_networks_of_other_masks_are_refused_as_a_soup(store):
    roles = experiment(souped("reprune", rounds=2)).roles
    wrong = average([roles["net 2.0"], roles["net 2.1"]])
    outcome = Runner(store, KINDS).run([(wrong, Output())])
    [reason] = outcome.failed.values()
    assert "different masks are not averaged: 'fc" in reason and "\n" not in reason


def test_identical_candidates_give_the_candidate_back(tmp_path):
    """Bit for bit, before recalibration; and all of them, or the first, are as good as one."""
    run = souped(vary="weight_decay", values=(1e-4, 1e-4, 1e-4), model=RESNET, sparsity="0.5",
                 recipe=replace(RECIPE, batch=600), steps=3, recalibration=Recalibration("none"))  # fmt: skip
    alone = replace(run, soup=Soup())
    store = Store(tmp_path)
    runs = [
        run,
        alone,
        *(replace(run, soup=replace(run.soup, name=name)) for name in ("greedy", "best", "mean", "ensemble")),
    ]
    assert not compute(store, *runs).failed
    assert len(stages(*runs, kind="train")) == 2
    digest = result(store, alone)["final_weights_sha256"]
    for each in runs[:4]:
        assert result(store, each)["final_weights_sha256"] == digest
    for each in runs:
        assert result(store, each)["metrics"]["test"]["accuracy"] == result(store, alone)["metrics"]["test"]["accuracy"]


def test_recalibration_is_the_same_for_soups_and_their_baselines():
    """A switch of its own; what has no BatchNorm is what it was."""
    resnet = {"model": RESNET, "recipe": replace(RECIPE, batch=600), "steps": 3}
    how = Recalibration("sms")
    for name in ALL:
        final = experiment(souped(name, **resnet)).result.inputs
        for ref in final.values():
            assert ref.stage.settings.recalibrate == imp(**resnet, recalibration=how).recalibrate
    alone = experiment(imp(**resnet, recalibration=how))
    assert alone.roles["final"].stage.inputs["net 0"] == experiment(imp(**resnet)).roles["final"]
    assert alone.trajectory is experiment(imp(**resnet)).trajectory
    assert experiment(imp(**resnet, recalibration=Recalibration("none"))).id == experiment(imp(**resnet)).id
    for how in ("none", "sms", "cumulative"):
        assert experiment(souped(recalibration=Recalibration(how))).id == experiment(souped()).id
    augmented = [replace(DATA, augment=a) for a in (Augment(), Augment(1, True))]
    exact = [souped(**resnet, recalibration=Recalibration("cumulative"), data=d).recalibrate for d in augmented]
    assert exact[0] == exact[1] and exact[0].seed is None


# ---- retraining in rounds


def test_epochs_shared_by_all_rounds():
    """BIMP: floor(E / n) each, the rest to the last; a round without epochs prunes only."""
    run = small("lr", "0.9", schedule="geometric", rounds=3, retrain="allr", total=11)
    roles = experiment(run).roles
    assert [roles[f"net {n}"].step for n in (1, 2, 3)] == [3 * EPOCH, 3 * EPOCH, 5 * EPOCH]
    none = experiment(small("lr", "0.9", schedule="geometric", rounds=3, retrain="allr", total=2)).roles
    assert [none[f"net {n}"].step for n in (1, 2, 3)] == [0, 0, 2 * EPOCH]
    ratios = [roles[f"net {n}"].stage.settings.adapt.lowest for n in (1, 2, 3)]
    assert ratios == [1.0, 1.0, 1.0]  # longer than the dense run of two epochs
    with pytest.raises(UserError, match="one of them"):
        small("lr", "0.9", retrain="allr", total=3, epochs=1)


def test_the_budget_multiplies_each_round():
    once, thrice = (imp(rounds=2, budget=b) for b in (1, 3))
    assert experiment(thrice).roles["net 2"].step == 3 * experiment(once).roles["net 2"].step == 3 * EPOCH
    assert experiment(imp(budget=1)).id == experiment(imp()).id
    assert thrice.first_round.recipe.schedule.total == 60
    with pytest.raises(UserError, match="cannot run longer"):
        small("lr", budget=2)


def test_allr_finds_its_start_and_keeps_it_through_a_stop(tmp_path):
    run = small("lr", "0.9", schedule="geometric", rounds=2, retrain="allr", epochs=0.5)
    roles = experiment(run).roles
    level = roles["net 2"].stage
    store = Store(tmp_path / "whole")
    assert not compute(store, run).failed
    before, mask = checkpoint(store, roles["net 1"]), store.read(roles["mask 2"].id, "out.safetensors")[0]
    lost = sum(float(w.double()[~mask[n]].square().sum()) for n, w in before.weights.items() if n in mask)
    whole = sum(float(w.double().square().sum()) for w in before.weights.values())
    had, has = (d.kept(2320) for d in run.rounds)
    start = max((lost / whole / (1 - has / had)) ** 0.5, 0.25)
    saved = store.read(level.id, "o000000010.safetensors")[0]["lr"]
    assert float(saved) == pytest.approx(0.1 * min(start, 1.0), rel=1e-6)

    stopped = Store(tmp_path / "stopped")
    assert not Runner(stopped, KINDS).run([(level, At(4, full=True))]).failed
    for path in (stopped.folder(roles["mask 2"].id)).glob("*.safetensors"):
        path.unlink()  # what the start was made of is gone
    log = Log()
    with pytest.raises(KeyboardInterrupt):
        Runner(stopped, KINDS, [Interrupt(level, 1)]).run([(level, At(4, full=True)), (level, At(10))])
    assert not Runner(stopped, KINDS, [log]).run([(level, At(10))]).failed
    assert [w.stage for w in log.works()] == [level]
    name = f"{level.id[:2]}/{level.id}/s000000010.safetensors"
    assert contents(tmp_path / "stopped")[name] == contents(tmp_path / "whole")[name]


def test_the_share_that_scales_the_start_is_a_setting():
    ids = {
        experiment(small("lr", "0.9", schedule="geometric", rounds=2, retrain="allr", share=s)).id
        for s in ("round", "total")
    }
    assert len(ids) == 2
    for other in ("llr", "lrw"):
        ids = {experiment(small("lr", "0.9", retrain=other, share=s)).id for s in ("round", "total")}
        assert len(ids) == 1


@pytest.mark.parametrize("name", ["slr", "clr", "llr", "allr", "cosine"])
def test_a_schedule_of_its_own_starts_afresh(name):
    for rewind in ("lr", "early", "init"):
        run = small(rewind, "level:2", schedule="iterative", retrain=name)
        for number in (1, 2):
            level = experiment(run).roles[f"net {number}"].stage
            assert "moments" not in level.inputs
            assert (level.settings.first, level.settings.index) == (0, (number, 0))
    kept = experiment(small("lr", retrain=name, moments="keep")).roles["net 1"].stage
    assert kept.inputs["moments"].step == STEPS


# ---- bad input

REFUSED = {
    "m": (lambda: Soup("uniform", 0), r"soup\.m: 0 is less than 1"),
    "name": (lambda: Soup("unifrm"), "did you mean 'uniform'"),
    "vary": (lambda: Soup("uniform", vary="sed"), "did you mean 'seed'"),
    "accept": (lambda: Soup("greedy", accept="gte"), "did you mean 'g"),
    "few": (lambda: Soup("uniform", 3, "lr", (1, 2)), r"soup\.values: 2 values for soup\.m=3 copies"),
    "neither": (lambda: Soup("uniform", 3, "lr"), r"needs soup\.values \(one for each copy\) or soup\.draw"),
    "both": (lambda: Soup("uniform", 1, "lr", (1,), (1, 2)), r"needs soup\.values"),
    "seeds": (lambda: Soup("uniform", 3, "seed", (1, 2, 3)), r"seeds are told by soup\.m alone"),
    "bounds": (lambda: Soup("uniform", 3, "lr", (), (2, 1)), r"soup\.draw: \[2, 1\] is not a lower and an upper bound"),
    "drawn names": (lambda: Soup("uniform", 3, "retrain_schedule", (), (1, 2)), "named, not drawn"),
    "schedule": (lambda: souped(vary="retrain_schedule", values=("llr", "clr", "srl")), "did you mean 'slr'"),
    "number": (lambda: souped(vary="lr", values=("a", 1, 2)), r"soup\.values\[0\]: 'a' is not a number"),
    "greedy": (lambda: souped("greedy", data=replace(DATA, validation=0)), r"needs dataset\.validation > 0"),
    "best": (lambda: souped("best", data=replace(DATA, validation=0)), r"needs dataset\.validation > 0"),
    "control": (lambda: souped(control="reinit"), "soup=uniform, control=reinit: one of them"),
    "select": (lambda: souped(select="best_val_loss", every=5), "select=best_val_loss chooses among the points"),
    "replayed lr": (lambda: souped(retrain="lrw", epochs=None, vary="lr", values=(1, 2, 3)), "has no learning rate of"),
    "recalibrate": (lambda: Recalibration("smss"), "did you mean 'sms'"),
    "share": (lambda: Recalibration("sms", 0.0), r"recalibrate\.share: 0\.0 is not in 0 < share <= 1"),
    "budget": (lambda: imp(budget=0), r"retrain\.budget: 0 is less than 1"),
    "warmup": (lambda: imp(warmup=1.5), r"retrain\.warmup: 1\.5 is more than all"),
    "allr": (lambda: imp(retrain="allr", share="rund"), "did you mean 'round'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(case):
    made, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as error:
        made()
    assert "\n" not in str(error.value)


def test_rates_by_kind_cannot_be_met_exactly_after_averaging():
    words = {"allocation": "by_kind", "rates": {"linear": "1/5", "output": "1/10"}, "schedule": "iterative"}
    with pytest.raises(UserError, match="soup=reprune prunes an average to an exact density"):
        souped("reprune", sparsity="level:2", **words)
    assert len(experiment(souped("uniform", sparsity="level:2", **words)).roles) > 5


def test_at_initialisation_and_unpruned_there_is_nothing_to_average():
    assert experiment(souped(program="at_init")).id == experiment(imp(program="at_init")).id
    assert experiment(souped(sparsity="0")).id == experiment(imp(sparsity="0")).id
