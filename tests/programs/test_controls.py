"""Controls: what each alters, and that all else is the ticket's own."""

from dataclasses import replace

import pytest
import torch
from engine.small_runs import DATA, MODEL, RECIPE, STEPS, compute, small, stages
from programs.test_rewinding import checkpoint

from lthbench.base.errors import UserError
from lthbench.engine.runner import Runner
from lthbench.engine.store import At, Store
from lthbench.evaluation.counts import multiply_adds
from lthbench.models import ModelSettings
from lthbench.programs import experiment
from lthbench.programs.controls import ANEW, CONTROLS
from lthbench.programs.identity import identity
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.scoring import Scoring
from lthbench.stages import KINDS
from lthbench.stages.prune import Pruner
from lthbench.training.recipe import LrSchedule

STILL = replace(RECIPE, weight_decay=0.0)
TWO = {"sparsity": "0.36", "schedule": "iterative", "recipe": STILL}  # two rounds
POSITIONS, VALUES = ("shuffle", "random"), ("reshuffle", "reshuffle_signed", "constant", "constant_signed")


def run_of(control, rewind="init", **others):
    return small(rewind, control=control, **(TWO | others))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """All controls of one ticket, computed."""
    store = Store(tmp_path_factory.mktemp("store"))
    assert not compute(store, *(run_of(c, r) for c in CONTROLS for r in ("init", "early"))).failed
    return store


def begun(store, run):
    """The last training: its state before the first step and at its end."""
    final = experiment(run).roles["final"]
    first = final.stage.settings.first
    assert not Runner(store, KINDS).run([(final.stage, At(first))]).failed
    return checkpoint(store, final.stage.at(first)), checkpoint(store, final)


def ticket(store, rewind="init"):
    roles = experiment(run_of("none", rewind)).roles
    mask = store.read(roles["mask 2"].id, "out.safetensors")[0]
    start, trained = begun(store, run_of("none", rewind))
    return checkpoint(store, roles["init"]), mask, start, trained


@pytest.mark.parametrize("control", [c for c in CONTROLS if c not in ("none", "longer")])
@pytest.mark.parametrize("rewind", ["init", "early", "lr", "finetune"])
def test_the_mask_comes_from_the_uncontrolled_chain_and_the_budget_is_the_same(control, rewind):
    if control == "freeze_zero" and rewind in ("lr", "finetune"):
        return
    plain, other = (experiment(run_of(c, rewind)) for c in ("none", control))
    changed = {"final", "result", "net 2", "mask 2"} if control == "invert" else {"final", "result", "net 2"}
    assert {r for r in plain.roles if plain.roles[r] != other.roles[r]} == changed
    one, two = plain.roles["final"], other.roles["final"]
    if control in ANEW:
        expected = STEPS if rewind in ("lr", "finetune") else one.step
        assert (two.stage.settings.first, two.step) == (0, expected)
        assert two.stage.settings == experiment(run_of("none", sparsity="0")).roles["final"].stage.settings
        assert "moments" not in two.stage.inputs
    else:
        assert (two.step, two.stage.settings) == (one.step, one.stage.settings)
        assert two.stage.inputs.get("moments") == one.stage.inputs.get("moments")


@pytest.mark.parametrize("rewind", ["init", "early"])
@pytest.mark.parametrize("control", POSITIONS)
def test_other_positions_same_counts_same_weights(store, control, rewind):
    """O62."""
    init, mask, start, _ = ticket(store, rewind)
    altered, trained = begun(store, run_of(control, rewind))
    dense = experiment(run_of("none", rewind)).roles["dense"].stage
    point = init if rewind == "init" else checkpoint(store, dense.at(10))
    for name, kept in mask.items():
        other = altered.mask[name]
        n, k = kept.numel(), int(kept.sum())
        assert int(other.sum()) == k and not torch.equal(other, kept)
        assert torch.equal(altered.weights[name], point.weights[name] * other)
        assert torch.equal(trained.mask[name], other) and not trained.weights[name][~other].any()
        mean = k * k / n
        deviation = (mean * (1 - k / n) * (n - k) / (n - 1)) ** 0.5  # hypergeometric
        assert abs(int((kept & other).sum()) - mean) < 5 * deviation
    for name, weight in start.weights.items():
        assert name in mask or torch.equal(altered.weights[name], weight)


def test_other_seeds_other_positions_and_no_name_draws_as_another():
    from lthbench.pruning.controls import other_positions

    mask = {"a": torch.rand(20, 30) < 0.5, "b": torch.rand(20, 30) < 0.5}
    found = [other_positions(name, mask, seed)[n] for name in POSITIONS for seed in (0, 1) for n in mask]
    assert all(not torch.equal(x, y) for i, x in enumerate(found) for y in found[:i])
    assert all(torch.equal(x, y) for x, y in zip(found, [other_positions("shuffle", mask, 0)[n] for n in mask]))


@pytest.mark.parametrize("control", VALUES)
def test_other_values_same_positions(store, control):
    """O41: multisets and signs as Zhou et al. have them; the rest as at initialisation."""
    init, mask, _, _ = ticket(store)
    altered, trained = begun(store, run_of(control))
    for name, kept in mask.items():
        new, old = altered.weights[name][kept], init.weights[name][kept]
        assert torch.equal(altered.mask[name], kept) and not altered.weights[name][~kept].any()
        assert not torch.equal(new, old)
        if control.startswith("reshuffle"):
            signless = control == "reshuffle_signed"
            sets = [(t.abs() if signless else t).sort().values for t in (new, old)]
            assert torch.equal(*sets)
        else:
            std = init.weights[name].std(correction=0)
            assert torch.equal(new.abs(), std.expand(new.shape))
            assert int((new > 0).sum()) == int((old > 0).sum())
        assert torch.equal(new.sign(), old.sign()) == control.endswith("_signed")
        assert not torch.equal(trained.weights[name], altered.weights[name])
    for name, weight in init.weights.items():
        assert name in mask or torch.equal(altered.weights[name], weight)


def test_new_weights_with_the_old_signs(store):
    init, mask, _, _ = ticket(store)
    altered, _ = begun(store, run_of("reinit_signed"))
    plain, _ = begun(store, run_of("reinit"))
    for name, kept in mask.items():
        assert torch.equal(altered.weights[name].abs(), plain.weights[name].abs())
        assert torch.equal(altered.weights[name].sign(), init.weights[name].sign() * kept)


@pytest.mark.parametrize("rewind", ["init", "early"])
def test_what_is_frozen_never_moves_and_counts_as_pruned(store, rewind):
    run = run_of("freeze", rewind)
    _, mask, start, _ = ticket(store, rewind)
    altered, trained = begun(store, run)
    for name, kept in mask.items():
        assert torch.equal(altered.weights[name] * kept, start.weights[name])
        assert altered.weights[name][~kept].all()
        assert torch.equal(trained.weights[name][~kept], altered.weights[name][~kept])
        assert (trained.weights[name] != altered.weights[name])[kept].float().mean() > 0.5
    result = store.output(experiment(run).result)
    assert result["sparsity"]["prunable"]["removed"] == sum(int((~kept).sum()) for kept in mask.values())


def test_what_moved_towards_zero_is_zero_and_the_rest_frozen(store):
    roles = experiment(run_of("freeze_zero")).roles
    init, mask, _, _ = ticket(store)
    before = checkpoint(store, roles["net 1"])  # what the last round pruned
    altered, trained = begun(store, run_of("freeze_zero"))
    for name, kept in mask.items():
        shrunk = before.weights[name].abs() < init.weights[name].abs()
        assert torch.equal(altered.weights[name], init.weights[name] * (kept | ~shrunk))
        assert torch.equal(trained.weights[name][~kept], altered.weights[name][~kept])


def test_inverted_scores_keep_the_complement_at_one_half(store, tmp_path):
    """O24, O64: with distinct scores, and the same count."""
    plain, inverted = (small(control=c, sparsity="0.5") for c in ("none", "invert"))
    assert not compute(Store(tmp_path), plain, inverted).failed
    one, other = (
        Store(tmp_path).read(experiment(r).roles["mask 1"].id, "out.safetensors")[0] for r in (plain, inverted)
    )
    assert all(torch.equal(one[name], ~other[name]) for name in one)
    counts = [sum(int(m.sum()) for m in mask.values()) for mask in (one, other)]
    assert counts[0] == counts[1]
    chain, last = (experiment(run_of(c)).roles for c in ("none", "invert"))
    first, kept, turned = (
        store.read(roles[r].id, "out.safetensors")[0]
        for roles, r in ((chain, "mask 1"), (chain, "mask 2"), (last, "mask 2"))
    )
    net = checkpoint(store, chain["net 1"])
    gone = torch.cat([net.weights[n].abs()[first[n] & ~turned[n]] for n in first])
    stays = torch.cat([net.weights[n].abs()[turned[n]] for n in first])
    assert gone.min() >= stays.max()
    assert sum(int(m.sum()) for m in turned.values()) == sum(int(m.sum()) for m in kept.values())


@pytest.mark.parametrize("by", ["parameters", "flops"])
@pytest.mark.parametrize("name", ["lenet_300_100", "resnet_20"])
def test_a_narrowed_network_is_as_large_as_the_ticket(name, by):
    from lthbench.evaluation.width import of_equal_size
    from lthbench.models import create
    from lthbench.pruning.prunable import prunable

    model = ModelSettings.of(name, {"width": 1.0}, (3, 32, 32), 10)
    torch.manual_seed(0)
    net = create(model)
    mask = {n: torch.rand(w.parameter.shape) < 0.2 for n, w in prunable(net, "weights").items()}
    small_model = of_equal_size(model, mask, by)
    narrow = create(small_model)
    if by == "parameters":
        target = sum(p.numel() for p in net.parameters()) - sum(int((~m).sum()) for m in mask.values())
        found = sum(p.numel() for p in narrow.parameters())
    else:
        target = sum(n * mask[w].float().mean().item() for w, n in multiply_adds(net, model.shape).items())
        found = sum(multiply_adds(narrow, model.shape).values())
    step = 0.01 if name == "lenet_300_100" else 0.06  # whole channels: a third of 16 is 5.3
    assert abs(found - target) < step * target
    assert 0 < small_model.args["width"] < 1


@pytest.mark.parametrize("control", ["small_dense", "small_dense_flops"])
def test_the_narrowed_network_is_dense_and_new(store, control):
    run = run_of(control)
    altered, trained = begun(store, run)
    assert not altered.mask and not trained.mask
    assert trained.model.args["width"] < MODEL.args["width"]
    result = store.output(experiment(run).result)
    assert result["sparsity"]["parameters"]["removed"] == 0
    kept = store.output(experiment(run_of("none")).result)["sparsity"]["parameters"]
    if control == "small_dense":
        assert result["sparsity"]["parameters"]["total"] == pytest.approx(kept["total"] - kept["removed"], rel=0.05)


def test_longer_is_the_dense_network_for_the_whole_pipelines_epochs(store):
    run = run_of("longer", "early", epochs=1.5)
    final = experiment(run).roles["final"]
    assert final.step == run.whole_steps == STEPS + 2 * 30
    assert stages(run, kind="prune") == []
    assert final.stage.settings.recipe.schedule == LrSchedule("step", (50, 75))
    told = experiment(small(sparsity="0", recipe=final.stage.settings.recipe, steps=100))
    assert told.id == experiment(run).id and identity(told.run) == identity(run)
    at_init = run_of("longer", program="at_init")
    assert experiment(at_init).id == experiment(small(sparsity="0", recipe=STILL)).id


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"control": "reinti"}, "control: unknown choice 'reinti'; did you mean 'reinit'?"),
        (
            {"control": "freeze", "recipe": RECIPE},
            "control=freeze needs train.weight_decay=0: the optimiser would shrink what is frozen",
        ),
        (
            {"control": "freeze_zero", "rewind": "lr"},
            "control=freeze_zero needs training before pruning, and rewind=init or early",
        ),
        (
            {"control": "small_dense", "model": ModelSettings.of("resnet_18", {}, DATA.shape, 10)},
            "control=small_dense needs a network with model.width; resnet_18 has none",
        ),
        (
            {"control": "constant", "rewind": "finetune", "weights": "a" * 64},
            "control=constant needs the initial weights, which model.weights does not hold",
        ),
        (
            {"control": "longer", "rewind": "finetune", "weights": "a" * 64},
            "control=longer needs the training that made the weights; use model.weights_as=init",
        ),
    ],
)
def test_a_control_that_cannot_be_is_refused(words, message):
    with pytest.raises(UserError) as error:
        small(**(TWO | words))
    assert str(error.value) == message


# ---- what a criterion moves


def surgeon(rewind, **others):
    how = Scoring(data=DATA, seed=0, batch=32)
    pruner = Pruner(CriterionSettings.of("obs", {"block": 20}, 0), others.pop("program", "after_training"), how)
    return small(rewind, "0.36", schedule="iterative", pruner=pruner, **others)


@pytest.mark.parametrize("rewind", ["lr", "finetune"])
def test_training_takes_up_what_the_criterion_has_moved(tmp_path, rewind):
    store, run = Store(tmp_path), surgeon(rewind, steps=4)
    assert not compute(store, run).failed
    found = store.read(experiment(run).roles["mask 2"].id, "out.safetensors")[0]
    start, _ = begun(store, run)
    before = checkpoint(store, experiment(run).roles["net 1"])
    for name, kept in found.items():
        if kept.dtype == torch.bool:
            assert torch.equal(start.weights[name], found[f"weights/{name}"] * kept)
            assert not torch.equal(start.weights[name], before.weights[name] * kept)
    assert set(start.mask) == {name for name, kept in found.items() if kept.dtype == torch.bool}


def test_rewound_weights_are_the_rewound_ones(tmp_path):
    store, run = Store(tmp_path), surgeon("init", steps=4)
    assert not compute(store, run).failed
    mask = store.read(experiment(run).roles["mask 2"].id, "out.safetensors")[0]
    start, _ = begun(store, run)
    init = checkpoint(store, experiment(run).roles["init"])
    assert all(torch.equal(start.weights[n], init.weights[n] * m) for n, m in mask.items() if m.dtype == torch.bool)


def test_a_control_of_it_has_plain_masks(tmp_path):
    store = Store(tmp_path)
    runs = [surgeon("finetune", steps=4, control=c) for c in ("shuffle", "small_dense")]
    runs.append(surgeon("init", steps=4, program="at_init"))
    assert not compute(store, *runs).failed
    start, _ = begun(store, runs[0])
    assert all(m.dtype == torch.bool for m in start.mask.values())
