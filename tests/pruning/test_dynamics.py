"""What all methods share that change the mask during training: stops, exact counts, zeros, and bad settings."""

from dataclasses import replace

import pytest
import torch
from pruning.in_training import (
    LENET,
    PER_EPOCH,
    RECIPE,
    RESNET,
    SAID,
    SCORED,
    ZEROED,
    begun,
    equal,
    resumed,
    sparsify,
    stream,
)  # fmt: skip

from lthbench.base.errors import UserError
from lthbench.pruning.density import Density
from lthbench.pruning.dynamics import METHODS
from lthbench.training.loop import Trajectory
from lthbench.training.recipe import Recipe

EXACT = [name for name in SAID if not METHODS[name].outcome]
ADAM = Recipe("adamw", 1e-3, RECIPE.batch, RECIPE.schedule, weight_decay=1e-2)


def test_every_method_is_tried():
    early = {name for name in METHODS if METHODS[name].early}  # tests/pruning/test_early_tickets.py
    assert set(SAID) | early == set(METHODS)


@pytest.mark.parametrize("recipe", [RECIPE, ADAM], ids=["sgd", "adamw"])
@pytest.mark.parametrize("name", SAID)
def test_wherever_it_is_stopped_it_ends_in_the_same_bits(name, recipe):
    how, last = sparsify(name), 13
    whole = begun(how, recipe)
    whole.run(last)
    pieces = begun(how, recipe)
    for step in (1, 2, 4, 5, 8, 9, 12, last):
        pieces.run(step)
        pieces = resumed(pieces, how, recipe)
    assert equal(pieces.checkpoint().weights, whole.checkpoint().weights)
    assert equal(pieces.checkpoint().mask, whole.checkpoint().mask)
    assert equal(pieces.moments(), whole.moments())


@pytest.mark.parametrize("name", SAID)
def test_looking_at_it_changes_nothing(name):
    """A pause puts the network that is handed over in place; training goes on from what it was."""
    one, other = (begun(sparsify(name), model=RESNET) for _ in range(2))
    one.run(10)
    for step in range(11):
        other.run(step)
    assert equal(one.checkpoint().weights, other.checkpoint().weights)
    assert equal(one.moments(), other.moments())


@pytest.mark.parametrize("model", [LENET, RESNET], ids=["lenet", "resnet"])
@pytest.mark.parametrize("name", EXACT)
def test_what_is_handed_over_is_exactly_sparse(name, model):
    run = begun(sparsify(name, "3/10", allocation="erk"), model=model)
    run.run(12)
    made = run.checkpoint()
    total = sum(kept.numel() for kept in made.mask.values())
    assert sum(int(kept.sum()) for kept in made.mask.values()) == Density.parse("3/10").kept(total)
    for weight, kept in made.mask.items():
        assert not made.weights[weight][~kept].any()
        assert made.weights[weight][kept].count_nonzero() > 0.9 * kept.sum()


@pytest.mark.parametrize("name", SAID)
def test_a_mask_is_where_weights_are(name):
    run = begun(sparsify(name))
    for step in range(1, 12):
        run.run(step)
        made = run.checkpoint()
        for weight, kept in made.mask.items():
            assert kept.dtype == torch.bool
            assert not made.weights[weight][~kept].any()


@pytest.mark.parametrize("name", ZEROED)
def test_between_changes_it_is_plain_masked_training(name):
    run = begun(sparsify(name), ADAM)
    run.run(9)  # where gmp ends; of the others the next change is at 12
    plain = Trajectory(run.checkpoint(), run.moments(), ADAM, stream(), 9)
    run.run(11)
    plain.run(11)
    assert equal(run.checkpoint().weights, plain.checkpoint().weights)
    assert equal(run.moments(), plain.moments())


@pytest.mark.parametrize("name", ZEROED)
def test_what_goes_takes_its_moments_with_it(name):
    run = begun(sparsify(name), ADAM)
    for step in range(1, 14):
        run.run(step)
        made, moments = run.checkpoint(), run.moments()
        for weight, kept in made.mask.items():
            for key in ("exp_avg", "exp_avg_sq"):
                assert not moments[f"{weight}/{key}"][~kept].any()


@pytest.mark.parametrize("name", SCORED)
def test_weights_and_scores_are_where_the_mask_is_not(name):
    """What is pruned is remembered, so that it may come back; frozen weights never move."""
    run = begun(sparsify(name))
    before = run.moments()
    run.run(8)
    moments, mask = run.moments(), run.checkpoint().mask
    for weight, kept in mask.items():
        dense, score = moments[f"x/dense/{weight}"], moments[f"x/score/{weight}"]
        assert dense[~kept].all() and not torch.equal(score, before[f"x/score/{weight}"])
        assert torch.equal(dense, before[f"x/dense/{weight}"]) == METHODS[name].frozen


@pytest.mark.parametrize("name", SAID)
def test_a_run_that_diverges_goes_on(name):
    run = begun(sparsify(name), replace(RECIPE, lr=1e30))
    run.run(12)
    assert METHODS[name].frozen or not run.checkpoint().finite
    run.moments()


def test_bf16_and_clipping_are_no_matter():
    for name in SAID:
        run = begun(sparsify(name), replace(RECIPE, precision="bf16", clip=0.5))
        run.run(5)
        assert run.checkpoint().finite


# ---- settings


@pytest.mark.parametrize(
    ("name", "said", "line"),
    [
        ("gmp", {"begin": 9, "end": 4}, "pruner.end: 4 iteration is step 4, before pruner.begin at step 9"),
        ("rigl", {"end": 21}, "pruner.end: 21 iteration is step 21; training ends at 20"),
        ("movement", {"begin": -1}, "pruner.begin: -1 is negative"),
        ("set", {"every": 0}, "pruner.every: 0 is not positive"),
        ("gmp", {"unit": "steps"}, "pruner.unit: unknown choice 'steps'; choose from epoch, iteration, ratio"),
        ("gmp", {"initial": "half"}, "pruner.initial: half is not a number in 0 <= s < 1"),
        ("gmp", {"initial": "1"}, "pruner.initial: 1 is not a number in 0 <= s < 1"),
        ("soft_movement", {"threshold": 1.5}, "pruner.threshold: 1.5 is not in 0 < t < 1"),
        ("soft_movement", {"floor": -0.1}, "pruner.floor: -0.1 is not in 0 <= f <= 1"),
        ("l0", {"penalty": -1.0}, "pruner.penalty: -1.0 is not at least 0"),
        ("rigl", {"fraction": 0.0}, "pruner.fraction: 0.0 is not in 0 < f <= 1"),
        ("movement", {"score_optimizer": "lion"}, "pruner.score_optimizer: lion is not adam or sgd"),
        ("movement", {"score_lr": "fast"}, "pruner.score_lr: 'fast' is not a number"),
        ("movement", {"penalty": 1.0}, "unknown key 'pruner.penalty'; choose from"),
    ],
)
def test_bad_settings_are_refused_in_one_line(name, said, line):
    with pytest.raises(UserError) as error:
        sparsify(name, **said)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_places_are_counted_in_any_unit():
    for unit, begin, end in (("iteration", 5, 15), ("ratio", 0.25, 0.75), ("epoch", 5 / 6, 15 / 6)):
        said = SAID["gmp"] | {"unit": unit, "begin": begin, "end": end, "every": 0.5, "every_unit": "epoch"}
        assert METHODS["gmp"].settings(said, 20, PER_EPOCH).args == {
            "begin": 5, "end": 15, "every": 3, "initial": "0",
        }  # fmt: skip
    spelled = {METHODS["gmp"].settings(said | {"initial": s}, 20, 6).args["initial"] for s in ("1/2", 0.5, "5e-1")}
    assert spelled == {"1/2"}
