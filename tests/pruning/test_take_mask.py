"""pruning/prune.py: from a checkpoint to a mask."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.prune import prune
from lthbench.training.checkpoint import Checkpoint

MODEL = ModelSettings.of("lenet_300_100", {}, (1, 8, 8), 10)  # 19200, 30000, 1000
MAGNITUDE = CriterionSettings.of("magnitude", {}, 0)
GLOBAL, UNIFORM = Allocation("global", {}), Allocation("uniform", {})
LTH = Allocation("by_kind", {"linear": "0.2", "output": "0.1"})


def dense(seed=0):
    return Checkpoint.of(MODEL, fresh(MODEL, "glorot_normal", seed, 0), {})


def density(sparsity):
    return Density(1 - Fraction(sparsity))


def kept(mask):
    return {name: int(m.sum()) for name, m in mask.items()}


def test_global_magnitude_keeps_the_largest_of_all():
    net = dense()
    mask = prune(net, MAGNITUDE, GLOBAL, "weights", density("0.9"))
    flat = torch.cat([net.weights[n].abs().flatten() for n in mask])
    chosen = torch.cat([m.flatten() for m in mask.values()])
    assert int(chosen.sum()) == 5020
    assert flat[chosen].min() >= flat[~chosen].max()


def test_uniform_keeps_the_largest_of_each_layer():
    net = dense()
    mask = prune(net, MAGNITUDE, UNIFORM, "weights", density("0.9"))
    assert kept(mask) == {"fc1.weight": 1920, "fc2.weight": 3000, "fc3.weight": 100}
    for name, m in mask.items():
        magnitude = net.weights[name].abs()
        assert magnitude[m].min() >= magnitude[~m].max()


def test_rounds_by_kind_count_from_what_is_left():
    net = dense()
    straight = prune(net, MAGNITUDE, LTH, "weights", None, 3)
    assert kept(straight) == {"fc1.weight": 9830, "fc2.weight": 15360, "fc3.weight": 729}
    for _ in range(3):
        net = net.masked(prune(net, MAGNITUDE, LTH, "weights", None))
    assert all(torch.equal(net.mask[n], straight[n]) for n in straight)


@pytest.mark.parametrize("name", ["magnitude", "random"])
@pytest.mark.parametrize("allocation", [GLOBAL, UNIFORM])
def test_what_is_lost_stays_lost(name, allocation):
    criterion = CriterionSettings.of(name, {}, 1)
    first = prune(dense(), criterion, allocation, "weights", density("0.5"))
    again = CriterionSettings.of(name, {}, 2)
    second = prune(dense(1).masked(first), again, allocation, "weights", density("0.75"))
    assert sum(kept(second).values()) == 12550
    assert not any((second[n] & ~first[n]).any() for n in first)


def test_a_preset_leaves_the_rest_alone():
    mask = prune(dense(), MAGNITUDE, GLOBAL, "no_output", density("0.5"))
    assert list(mask) == ["fc1.weight", "fc2.weight"]
    assert sum(kept(mask).values()) == 24600


def test_random_masks_follow_their_seed():
    masks = {
        (seed, turn): prune(dense(turn), CriterionSettings.of("random", {}, seed), UNIFORM, "weights", density("0.8"))
        for seed in (0, 1)
        for turn in (0, 1)
    }
    for n in masks[0, 0]:
        assert torch.equal(masks[0, 0][n], masks[0, 1][n])  # not on the weights
        assert not torch.equal(masks[0, 0][n], masks[1, 0][n])


def test_two_random_masks_overlap_as_chance_has_it():
    one, other = (
        prune(dense(), CriterionSettings.of("random", {}, seed), UNIFORM, "weights", density("0.8")) for seed in (0, 1)
    )
    for name in one:
        n, k = one[name].numel(), int(one[name].sum())
        mean = k * k / n
        deviation = (mean * (1 - k / n) * (n - k) / (n - 1)) ** 0.5  # hypergeometric
        assert abs(int((one[name] & other[name]).sum()) - mean) < 5 * deviation


def test_pruning_touches_no_checkpoint():
    net = dense()
    before = net.digest()
    prune(net, MAGNITUDE, GLOBAL, "weights", density("0.9"))
    assert net.digest() == before
    assert net.mask == {}


def test_a_network_that_diverged_is_ranked_all_the_same():
    net = dense()
    net.weights["fc2.weight"][3, :] = float("nan")
    for flagged in (net, replace(net, diverged_at=10)):  # within an epoch only the weights tell
        mask = prune(flagged, MAGNITUDE, GLOBAL, "weights", density("0.9"))
        assert sum(kept(mask).values()) == 5020
        assert not mask["fc2.weight"][3].any()
