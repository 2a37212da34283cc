"""Means of networks: exact, masks kept or refused."""

import pytest
import torch
from engine.small_runs import MODEL
from hypothesis import given
from hypothesis import strategies as st

from lthbench.models import ModelSettings, initialise
from lthbench.soups.average import mean
from lthbench.training.checkpoint import Checkpoint

RESNET = ModelSettings.of("resnet_20", {"width": 0.25}, (1, 8, 8), 10)


def network(seed, model=MODEL, mask=None):
    made = Checkpoint.of(model, initialise.fresh(model, "pytorch", seed, 0), {})
    for name, tensor in made.weights.items():
        if name.endswith("num_batches_tracked"):
            tensor += seed
    return made.masked(mask) if mask else made


def a_mask(seed, model=MODEL):
    draws = torch.Generator().manual_seed(seed)
    weights = network(0, model).weights
    return {n: torch.rand(w.shape, generator=draws) < 0.3 for n, w in weights.items() if w.dim() > 1}


@pytest.mark.parametrize("model", [MODEL, RESNET], ids=lambda m: m.name)
@given(m=st.integers(1, 7), seed=st.integers(0, 5))
def test_copies_of_one_network_give_it_back_bit_for_bit(model, m, seed):
    one = network(seed, model, a_mask(seed, model))
    made = mean([one] * m)
    assert made.digest() == one.digest()
    assert all(torch.equal(made.weights[n], one.weights[n]) for n in one.weights)
    assert made.mask.keys() == one.mask.keys() and all(torch.equal(made.mask[n], one.mask[n]) for n in one.mask)


def test_the_mean_is_taken_in_float64_over_every_float_and_integers_are_copied():
    nets = [network(seed, RESNET) for seed in (3, 1, 2)]
    nets[1].weights["fc.weight" if "fc.weight" in nets[1].weights else next(iter(nets[1].weights))].fill_(1e8)
    made = mean(nets)
    for name, tensor in made.weights.items():
        stacked = torch.stack([net.weights[name] for net in nets])
        expected = stacked[0] if not tensor.is_floating_point() else (stacked.double().sum(0) / 3).float()
        assert tensor.dtype == nets[0].weights[name].dtype and torch.equal(tensor, expected), name


@given(st.integers(0, 100), st.permutations([0, 1, 2, 3]))
def test_equal_masks_stay_and_nothing_comes_back(seed, order):
    mask = a_mask(seed)
    nets = [network(seed + i, mask=mask) for i in range(4)]
    made = mean([nets[i] for i in order])
    for name, kept in mask.items():
        assert torch.equal(made.mask[name], kept) and not made.weights[name][~kept].any()
        assert int((made.weights[name] != 0).sum()) == int(kept.sum())


def test_other_masks_are_refused_and_a_union_is_denser():
    one, two = network(0, mask=a_mask(0)), network(1, mask=a_mask(1))
    with pytest.raises(ValueError, match=r"different masks are not averaged: 'fc1\.weight' differs in \d+ places"):
        mean([one, two])
    with pytest.raises(ValueError, match="is masked in one of them only"):
        mean([one, network(1)])
    made = mean([one, two], union=True)
    for name in one.mask:
        either = one.mask[name] | two.mask[name]
        assert torch.equal(made.mask[name], either)
        assert either.sum() > one.mask[name].sum()
        assert torch.equal(made.weights[name], ((one.weights[name].double() + two.weights[name].double()) / 2).float())


def test_what_does_not_fit_is_named():
    other = ModelSettings.of("lenet_300_100", {"width": 0.2}, MODEL.shape, MODEL.classes)
    with pytest.raises(ValueError, match=r"'fc1\.bias' is \(30,\) in one, \(60,\) in another"):
        mean([network(0), network(0, other)])
    with pytest.raises(ValueError, match="is in one of them only"):
        mean([network(0), network(0, RESNET)])


def test_a_member_that_diverged_marks_the_mean():
    sound = network(0)
    broken = Checkpoint(MODEL, {n: w * float("nan") for n, w in network(1).weights.items()}, {}, 20)
    made = mean([sound, broken])
    assert made.diverged_at == 20 and not made.finite
