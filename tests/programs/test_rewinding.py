"""What the papers' procedures promise (the invariants of rewinding and retraining), on computed numbers."""

from dataclasses import replace

import pytest
import torch
from engine.small_runs import DATA, MODEL, RECIPE, STEPS, K, compute, contents, small, stages

from lthbench.base.errors import UserError
from lthbench.engine.runner import Runner
from lthbench.engine.store import At, Store
from lthbench.models import ModelSettings
from lthbench.programs import experiment
from lthbench.stages import KINDS
from lthbench.training import loop
from lthbench.training.checkpoint import Checkpoint, part


def checkpoint(store, ref):
    """The tensors of a state or of a stage's only output."""
    name = "out.safetensors" if ref.stage is ref else f"s{ref.step:09d}.safetensors"
    return Checkpoint.unpack(store.read(ref.stage.id, name))


def starts(store, run):
    """Of each level: its state before the first step, its moments there, its mask."""
    roles = experiment(run).roles
    levels = [(roles[f"net {n}"].stage, roles[f"mask {n}"]) for n in range(1, len(run.rounds) + 1)]
    goals = [(level, At(level.settings.first, full=True)) for level, _ in levels]
    assert not Runner(store, KINDS).run(goals).failed
    for level, mask in levels:
        first = level.settings.first
        moments = store.read(level.id, f"o{first:09d}.safetensors")[0]
        yield checkpoint(store, level.at(first)), moments, store.read(mask.id, "out.safetensors")[0]


def assert_masked(start, point, mask):
    assert start.mask.keys() == mask.keys() and all(torch.equal(start.mask[n], mask[n]) for n in mask)
    for name, weight in start.weights.items():
        assert torch.equal(weight, point.weights[name] * mask[name] if name in mask else point.weights[name])


def test_nothing_pruned_is_the_dense_run(tmp_path):
    """I.8."""
    for sparsity in ("0", "level:0"):
        run = experiment(small("early", sparsity, schedule="iterative"))
        assert run.result is experiment(small(sparsity="0")).result
        assert run.roles["final"] == run.roles["dense"]
        assert stages(run, kind="prune") == []


@pytest.mark.parametrize(
    "recipe", [RECIPE, replace(RECIPE, optimizer="adam", lr=0.001, momentum=0.0)], ids=("sgd", "adam")
)
def test_level_after_level_starts_at_the_masked_initial_weights(tmp_path, recipe):
    """I.9: k = 0."""
    store, run = Store(tmp_path), small("init", "0.488", schedule="iterative", recipe=recipe)
    compute(store, run)
    theta = checkpoint(store, experiment(run).roles["init"])
    found = list(starts(store, run))
    assert len(found) == 3
    for start, moments, mask in found:
        assert_masked(start, theta, mask)
        assert not any(tensor.any() for tensor in moments.values())


def test_normalisation_starts_anew_with_the_weights(tmp_path):
    """I.9: BatchNorm's statistics are those of the start, (0, 1), not those of the dense run."""
    model = ModelSettings.of("resnet_20", {"width": 0.25}, DATA.shape, DATA.classes)
    store, run = Store(tmp_path), small("init", "0.5", model=model, steps=2, recipe=replace(RECIPE, batch=16))
    compute(store, run)
    dense = checkpoint(store, experiment(run).roles["dense"])
    [(start, _, _)] = starts(store, run)
    means = [name for name in start.weights if name.endswith("running_mean")]
    assert len(means) == 19
    for name in means:
        assert not start.weights[name].any() and dense.weights[name].any()
        assert torch.equal(start.weights[name.replace("mean", "var")], torch.ones_like(start.weights[name]))


@pytest.mark.parametrize(
    "recipe", [RECIPE, replace(RECIPE, optimizer="adam", lr=0.001, momentum=0.0)], ids=("sgd", "adam")
)
def test_level_after_level_starts_at_the_masked_rewinding_point(tmp_path, recipe):
    """k > 0: weights and optimiser state of step k, both masked."""
    store, run = Store(tmp_path), small("early", "0.488", schedule="iterative", recipe=recipe)
    compute(store, run)
    dense = experiment(run).roles["dense"].stage
    point = checkpoint(store, dense.at(K))
    saved = store.read(dense.id, f"o{K:09d}.safetensors")[0]
    for start, moments, mask in starts(store, run):
        assert_masked(start, point, mask)
        assert moments.keys() == saved.keys()
        for name, kept in mask.items():
            for key, value in part(moments, name).items():
                before = part(saved, name)[key]
                assert torch.equal(value, before * kept if before.dim() else before)
                assert value.any()


@pytest.mark.parametrize(
    ("words", "whose"),
    [
        ({"rewind": "init"}, None),
        ({"rewind": "early"}, "restore"),
        ({"rewind": "early", "moments": "zero"}, None),
        ({"rewind": "early", "moments": "keep"}, "keep"),
        ({"rewind": "lr"}, "keep"),
        ({"rewind": "lr", "moments": "zero"}, None),
        ({"rewind": "finetune"}, "keep"),
        ({"rewind": "finetune", "weights": "a" * 64}, None),  # a file has none
    ],
)
def test_whose_optimiser_state_a_round_goes_on_with(words, whose):
    roles = experiment(small(sparsity="level:2", schedule="iterative", **words)).roles
    for number, net in ((1, "dense"), (2, "net 1")):
        level = roles[f"net {number}"].stage
        expected = {None: None, "restore": roles["dense"].stage.at(K), "keep": roles[net]}[whose]
        assert level.inputs.get("moments") == expected


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    """The learning rates that each procedure's second round really trains with, and those of the dense run."""
    store, heard = Store(tmp_path_factory.mktemp("rates")), {}

    def begin(event, **facts):
        if event == "start":
            heard["now"] = heard.setdefault(facts["work"].stage, [])

    step = loop.Update.__call__

    def overheard(self):
        heard["now"].append(self.optimizer.param_groups[0]["lr"])
        step(self)

    loop.Update.__call__ = overheard
    runs = {name: small(name, "level:2", schedule="iterative") for name in ("init", "early", "lr", "finetune")}
    runs["whole"] = small("lr", "level:2", schedule="iterative", k=0.0)
    outcome = compute(store, *runs.values(), listeners=[begin])
    loop.Update.__call__ = step
    assert not outcome.failed
    found = {name: heard[experiment(run).roles["net 2"].stage] for name, run in runs.items()}
    return found | {"dense": heard[experiment(runs["init"]).roles["dense"].stage]}


def eta(step):
    return 0.1 if step < 20 else 0.1 * 0.1 if step < 30 else 0.1 * 0.1**2


def test_learning_rates(rates):
    """I.11, I.12: rewinding weights and rewinding the rate replay eta(k), ...; fine-tuning stays at eta(T - 1)."""
    assert rates["dense"] == [eta(step) for step in range(STEPS)]
    assert rates["init"] == rates["whole"] == rates["dense"]
    assert rates["early"] == rates["lr"] == rates["dense"][K:]
    assert rates["finetune"] == [eta(STEPS - 1)] * (STEPS - K)


def test_equal_k_is_equal_budget(rates):
    assert {len(rates[name]) for name in ("early", "lr", "finetune")} == {STEPS - K}
    assert small("init", k=0.25).first_round.steps == STEPS  # whatever k is said


def test_retraining_longer_than_the_dense_run():
    """I.12: a replay cannot; fine-tuning can."""
    for rewind in ("init", "early", "lr"):
        with pytest.raises(UserError, match="cannot run longer than the dense training"):
            small(rewind, epochs=3)
    for rewind in ("init", "lr"):
        assert small(rewind, epochs=2).first_round.steps == STEPS
    with pytest.raises(UserError, match="cannot run longer than the dense training"):
        small("early", epochs=2)  # from k = 10 on, 30 steps are left
    assert small("early", epochs=1).first_round.first == 10
    assert small("finetune", epochs=3).first_round.steps == 60


def test_retraining_shorter_replays_the_end_of_the_schedule():
    level = experiment(small("lr", epochs=0.5)).roles["net 1"]
    assert (level.stage.settings.first, level.step) == (30, 40)
    tuned = experiment(small("finetune", epochs=0.5)).roles["net 1"]
    assert (tuned.stage.settings.first, tuned.step) == (0, 10)


@pytest.mark.parametrize("k", [1.1, -0.1])
def test_a_rewinding_point_outside_training(k):
    with pytest.raises(UserError, match=r"rewind\.k"):
        small("early", k=k)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step"])
def test_fine_tuning_takes_the_smallest_rate_of_the_dense_schedule(schedule):
    recipe = replace(RECIPE, schedule=replace(RECIPE.schedule, kind=schedule, warmup=4, total=STEPS))
    smallest = min(rate for rate in map(recipe.lr_at, range(4, STEPS)) if rate > 0)
    assert small("finetune", recipe=recipe).first_round.recipe.lr == smallest
    assert small("finetune", recipe=recipe, lr=0.5).first_round.recipe.lr == 0.5


def test_the_control_keeps_the_mask_and_no_weight(tmp_path):
    """I.26: same mask, another initialisation, trained once for the dense length with the dense recipe."""
    store = Store(tmp_path)
    ticket, control = (small("early", "0.488", schedule="iterative", control=c) for c in ("none", "reinit"))
    compute(store, ticket, control)
    one, other = experiment(ticket).roles["net 3"], experiment(control).roles["net 3"]
    assert other.stage.settings == replace(experiment(control).roles["dense"].stage.settings)
    assert (other.stage.settings.first, other.step) == (0, STEPS)
    assert other.stage.inputs["start"].settings.index == 1
    assert other.stage.inputs["mask"] is one.stage.inputs["mask"]
    assert not Runner(store, KINDS).run([(other.stage, At(0))]).failed
    first, trained, theirs = (checkpoint(store, ref) for ref in (other.stage.at(0), other, one))
    theta = checkpoint(store, experiment(ticket).roles["init"])
    assert theirs.mask.keys() == trained.mask.keys()
    for name, kept in theirs.mask.items():
        assert torch.equal(trained.mask[name], kept)
        assert (first.weights[name] != theta.weights[name])[kept].all()
        assert (trained.weights[name] != theirs.weights[name])[kept].all()
        assert not trained.weights[name][~kept].any()


def test_streams_of_chance():
    """What draws what: the seed everything, the split its own seed, fine-tuning's batches a stream a round."""
    roles = experiment(small("finetune", "level:2", schedule="iterative")).roles
    assert [roles[f"net {n}"].stage.settings.index for n in (1, 2)] == [(1, 0), (2, 0)]
    for rewind in ("init", "early", "lr"):
        roles = experiment(small(rewind, "level:2", schedule="iterative")).roles
        assert [roles[f"net {n}"].stage.settings.index for n in (1, 2)] == [(0, 0), (0, 0)]
    base, other = small(), small(data=replace(DATA, split_seed=1))
    assert experiment(base).roles["init"] is experiment(other).roles["init"]
    assert experiment(base).roles["dense"].stage.settings.seed == experiment(other).roles["dense"].stage.settings.seed
    assert small(criterion="random", seed=3).pruner.criterion.seed == 3
    assert small(criterion="magnitude", seed=3).pruner.criterion.seed is None


def test_sparsity_is_exact_after_every_round(tmp_path):
    store, run = Store(tmp_path), small("init", "0.9", schedule="iterative", steps=4)
    compute(store, run)
    total = 64 * 30 + 30 * 10 + 10 * 10
    previous = None
    for number, density in enumerate(run.rounds, 1):
        mask = store.read(experiment(run).roles[f"mask {number}"].id, "out.safetensors")[0]
        assert sum(int(kept.sum()) for kept in mask.values()) == density.kept(total)
        if previous is not None:
            assert not any((mask[name] & ~previous[name]).any() for name in mask)  # nested
        previous = mask
    found = store.output(experiment(run).result)["sparsity"]["prunable"]
    assert found == {"removed": total - run.rounds[-1].kept(total), "total": total}
    assert found["removed"] == 2088  # 0.9 of 2320


def test_pruning_at_initialisation_trains_once_from_the_masked_start(tmp_path):
    store, run = Store(tmp_path), small(program="at_init", sparsity="0.8")
    compute(store, run)
    roles = experiment(run).roles
    assert len(stages(run, kind="train")) == 1 and roles["mask 1"].inputs["net"] is roles["init"]
    [(start, moments, mask)] = starts(store, run)
    assert_masked(start, checkpoint(store, roles["init"]), mask)
    assert not any(tensor.any() for tensor in moments.values()) and roles["net 1"].step == STEPS


def test_given_weights_are_pruned_without_training_them(tmp_path):
    from safetensors.torch import save_file

    from lthbench.models import digest, initialise

    path = str(tmp_path / "mine.safetensors")
    save_file(initialise.fresh(MODEL, "glorot_normal", 5, 0).state_dict(), path)
    given = {"weights": digest(path), "weights_path": path}
    dense, tuned = small(sparsity="0", **given), small("finetune", "0.5", **given)
    store = Store(tmp_path / "store")
    assert not compute(store, dense, tuned).failed
    assert stages(dense, kind="train") == [] and len(stages(tuned, kind="train")) == 1
    trained = small(sparsity="0", weights_as="init", **given)
    assert len(stages(trained, kind="train")) == 1
    compute(Store(tmp_path / "again"), small(sparsity="0", **{**given, "weights_path": str(path)}))
    assert contents(tmp_path / "again").items() <= contents(tmp_path / "store").items()
    with pytest.raises(UserError, match="needs the training that made the weights"):
        small("early", **given)
