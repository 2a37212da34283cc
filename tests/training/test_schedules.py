"""Retraining schedules against their closed forms, written down anew from the papers, over all of N steps."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.training.recipe import LrSchedule, Recipe
from lthbench.training.schedules import RETRAINS, Adaptive, adapted, retraining

DENSE = Recipe("sgd", 0.1, 128, LrSchedule("step", (50, 75)), momentum=0.9)
SCHEDULES = [
    LrSchedule("constant"),
    LrSchedule("step", (50, 75), warmup=7),
    LrSchedule("step", (3, 99), gamma=0.2),
    LrSchedule("cosine", warmup=10, total=100),
    LrSchedule("linear", total=100),
]
OWN = ["finetune", "slr", "clr", "llr", "allr", "cosine"]


def rates(name, steps, dense=DENSE, length=100, **values):
    recipe = retraining(name, dense, length, steps, **values)
    return [recipe.lr_at(i) for i in range(steps)]


def rounded(values):
    return [round(v, 5) for v in values]


LLR = [
    0, 0.05, 0.1, 0.09444, 0.08889, 0.08333, 0.07778, 0.07222, 0.06667, 0.06111, 0.05556, 0.05, 0.04444,
    0.03889, 0.03333, 0.02778, 0.02222, 0.01667, 0.01111, 0.00556,
]  # fmt: skip


def test_published_values():
    """T = 100: 0.1 for 50 steps, 0.01 for 25, 0.001 for 25; N = 20, so w = 2 and R = 18."""
    assert rounded(rates("finetune", 20)) == [0.001] * 20
    assert rounded(rates("llr", 20)) == rounded(rates("allr", 20)) == LLR
    assert rounded(rates("slr", 20)) == [0, 0.05, *[0.1] * 9, *[0.01] * 5, *[0.001] * 4]
    clr = [0.001 + 0.099 * (1 + math.cos(math.pi * j / 18)) / 2 for j in range(18)]
    assert rounded(rates("clr", 20)) == rounded([0, 0.05, *clr])
    assert rounded(rates("cosine", 20)) == rounded(
        [0, 0.05, *(0.05 * (1 + math.cos(math.pi * j / 18)) for j in range(18))]
    )


def expected(name, dense, length, steps, i):
    """The closed form, as the papers write it: peak, warm-up by half a cosine over w steps, then j of R."""
    eta = [dense.lr_at(t) for t in range(length)]
    after = eta[dense.schedule.warmup :]
    largest, smallest = max(eta), min(v for v in after if v > 0)
    if name == "finetune":
        return smallest
    w = int(0.1 * steps)
    if i < w:
        return largest * (1 - math.cos(math.pi * i / w)) / 2
    j, r = i - w, steps - w
    if name == "slr":
        at = j * length // r
        return largest if at < dense.schedule.warmup else eta[at]
    low = {"clr": smallest, "cosine": 0.0}.get(name)
    if low is not None:
        return low + (largest - low) * (1 + math.cos(math.pi * j / r)) / 2
    return largest * (1 - j / r)


@given(
    st.sampled_from(OWN), st.sampled_from(SCHEDULES), st.integers(1, 300), st.floats(0, 1, exclude_max=True)
)  # fmt: skip
def test_every_series_is_its_closed_form(name, schedule, steps, where):
    dense = replace(DENSE, schedule=schedule)
    i = int(where * steps)
    found = retraining(name, dense, 100, steps).lr_at(i)
    assert found == pytest.approx(expected(name, dense, 100, steps, i), rel=1e-9, abs=1e-15)


def test_replays_are_the_dense_recipe():
    for name in ("replay", "lrw"):
        assert retraining(name, DENSE, 100, 20) is DENSE


@pytest.mark.parametrize("name", OWN)
def test_everything_but_the_learning_rate_is_the_dense_recipes(name):
    dense = replace(DENSE, weight_decay=5e-4, nesterov=True, label_smoothing=0.1)
    made = retraining(name, dense, 100, 20)
    assert replace(made, lr=dense.lr, schedule=dense.schedule) == dense


@pytest.mark.parametrize("name", OWN)
def test_the_start_and_its_warm_up_can_be_told(name):
    for steps, share in ((20, 0.25), (7, 0.0), (40, 0.5)):
        warm = int(share * steps)
        made = rates(name, steps, lr=0.7, warmup=share)
        assert made[warm] == pytest.approx(0.7)
        assert made[: warm + 1] == sorted(set(made[: warm + 1]))
        assert made[0] == (0.0 if warm else 0.7)


def test_the_last_rate_of_llr_is_the_peak_over_the_steps_left():
    for steps in (1, 10, 37):
        assert rates("llr", steps)[-1] == pytest.approx(0.1 / (steps - int(0.1 * steps)))


def test_slr_over_the_dense_length_without_warm_up_is_the_dense_schedule():
    for schedule in SCHEDULES:
        dense = replace(DENSE, schedule=schedule)
        again = rates("slr", 100, dense, warmup=0.0)
        assert again[schedule.warmup :] == pytest.approx([dense.lr_at(i) for i in range(schedule.warmup, 100)])
        assert set(rounded(again[: schedule.warmup])) <= {0.1}


def test_a_schedule_of_its_own_has_no_kind_that_a_user_could_name():
    with pytest.raises(UserError, match=r"train\.schedule\.kind: unknown choice 'compressed'"):
        replace(DENSE, schedule=LrSchedule("compressed"))


# ---- ALLR's start


def lost(total, gone, kept, removed):
    """One parameter of squared norm `total`, of which `gone` is masked, in `kept + removed` entries, and a bias."""
    weight = torch.cat(
        [torch.full((kept,), math.sqrt((total - gone) / kept)), torch.full((removed,), math.sqrt(gone / removed))]
    )
    return {"w": weight.double()}, {"w": torch.arange(kept + removed) < kept}


@pytest.mark.parametrize(
    ("total", "gone", "kept", "removed", "ratio", "start"),
    [
        (100, 1, 10, 90, 0.075, 0.010541),  # drop 0.1, s = 0.9
        (100, 9, 50, 50, 0.075, 0.042426),  # drop 0.3, s = 0.5
        (100, 0.04, 10, 90, 0.075, 0.0075),  # drop 0.02: d2, 15 of 200 epochs, is more
    ],
)
def test_worked_starts(total, gone, kept, removed, ratio, start):
    parameters, mask = lost(total, gone, kept, removed)
    for share in ("round", "total"):
        assert 0.1 * adapted(Adaptive(share, ratio), parameters, {}, mask) == pytest.approx(start, rel=1e-4)


def test_a_later_round_counts_what_it_removed_itself_or_all():
    parameters, after = lost(100, 9, 20, 20)
    parameters["w"] = torch.cat([parameters["w"], torch.zeros(40).double()])  # gone before
    after = {"w": torch.cat([after["w"], torch.zeros(40, dtype=torch.bool)])}
    before = {"w": torch.arange(80) < 40}
    assert adapted(Adaptive("round", 0.0), parameters, before, after) == pytest.approx(0.3 / math.sqrt(20 / 40))
    assert adapted(Adaptive("total", 0.0), parameters, before, after) == pytest.approx(0.3 / math.sqrt(60 / 80))


def test_all_parameters_are_in_the_norm_and_only_masked_ones_can_go():
    parameters, mask = lost(100, 9, 50, 50)
    alone = adapted(Adaptive("round", 0.0), parameters, {}, mask)
    with_bias = adapted(Adaptive("round", 0.0), parameters | {"b": torch.tensor([10.0])}, {}, mask)
    assert with_bias == pytest.approx(alone / math.sqrt(2))


@given(st.integers(0, 2**32 - 1), st.integers(1, 49), st.floats(0, 1))
def test_the_start_lies_between_the_ratio_of_lengths_and_one(seed, removed, ratio):
    """d1 <= 1 for the smallest weights, whatever they are; so it is never more than LLR's start."""
    weight = torch.randn(50, generator=torch.Generator().manual_seed(seed)).double()
    mask = {"w": weight.abs().argsort().argsort() >= removed}
    found = adapted(Adaptive("round", ratio), {"w": weight}, {}, mask)
    d1 = math.sqrt(float(weight[~mask["w"]].square().sum() / weight.square().sum()) / (removed / 50))
    assert d1 <= 1 + 1e-9
    assert found == pytest.approx(min(1.0, max(d1, ratio)))


def test_equal_magnitudes_and_nothing_pruned():
    weight = {"w": torch.ones(10).double()}
    mask = {"w": torch.arange(10) < 3}
    assert adapted(Adaptive("round", 0.1), weight, {}, mask) == pytest.approx(1.0)  # LLR
    assert adapted(Adaptive("round", 0.1), weight, {}, {"w": torch.ones(10, dtype=torch.bool)}) == 0.1  # d2


def test_a_network_that_diverged_or_is_all_zero_starts_at_the_ratio():
    mask = {"w": torch.arange(10) < 3}
    for value in (math.nan, math.inf, 0.0):
        assert adapted(Adaptive("round", 0.2), {"w": torch.full((10,), value)}, {}, mask) == 0.2


def test_every_way_of_retraining_says_what_it_is():
    assert list(RETRAINS) == ["replay", "lrw", "finetune", "slr", "clr", "llr", "allr", "cosine"]
    assert all(series.what for series in RETRAINS.values())
