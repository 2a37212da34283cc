import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.training.recipe import LrSchedule, Recipe


def recipe(schedule=None, **values):
    return Recipe(
        **{"optimizer": "sgd", "lr": 0.1, "batch": 128, "schedule": schedule or LrSchedule("constant")} | values
    )


def series(schedule, steps, lr=0.1):
    return [round(recipe(schedule, lr=lr).lr_at(i), 5) for i in range(steps)]


def test_constant():
    assert series(LrSchedule("constant"), 3, 0.0012) == [0.0012] * 3


def test_steps_fall_by_gamma_from_each_milestone_on():
    assert series(LrSchedule("step", (50, 75)), 100) == [0.1] * 50 + [0.01] * 25 + [0.001] * 25
    assert series(LrSchedule("step", (2, 2, 3), gamma=0.5), 5) == [0.1, 0.1, 0.025, 0.0125, 0.0125]


def test_linear_after_warm_up():
    assert series(LrSchedule("linear", warmup=2, total=20), 21) == [
        0, 0.05, 0.1, 0.09444, 0.08889, 0.08333, 0.07778, 0.07222, 0.06667, 0.06111, 0.05556, 0.05, 0.04444,
        0.03889, 0.03333, 0.02778, 0.02222, 0.01667, 0.01111, 0.00556, 0,
    ]  # fmt: skip


def test_cosine_after_warm_up():
    assert series(LrSchedule("cosine", warmup=2, total=10), 11) == [
        0, 0.05, 0.1, 0.09619, 0.08536, 0.06913, 0.05, 0.03087, 0.01464, 0.00381, 0,
    ]  # fmt: skip


def test_steps_after_warm_up():
    assert series(LrSchedule("step", (5, 7), warmup=4), 8) == [0, 0.025, 0.05, 0.075, 0.1, 0.01, 0.01, 0.001]


@given(st.integers(0, 50), st.integers(1, 200), st.sampled_from(["cosine", "linear"]), st.integers(0, 300))
def test_annealing_is_its_closed_form_and_stays_at_zero(warmup, rest, kind, step):
    factor = LrSchedule(kind, warmup=warmup, total=warmup + rest).factor(step)
    if step < warmup:
        expected = step / warmup
    elif step >= warmup + rest:
        expected = 0.0
    else:
        t = (step - warmup) / rest
        expected = 1 - t if kind == "linear" else math.cos(math.pi * t / 2) ** 2
    assert math.isclose(factor, expected, abs_tol=1e-12)


@given(st.lists(st.integers(0, 99), max_size=5), st.integers(0, 100))
def test_milestones_in_any_order(milestones, step):
    one, other = (LrSchedule("step", tuple(order)) for order in (milestones, sorted(milestones)))
    assert one.factor(step) == other.factor(step)


@pytest.mark.parametrize(
    ("samples", "batch", "drop_last", "steps"),
    [
        (50000, 128, False, 391),
        (45000, 128, False, 352),
        (55000, 60, False, 917),
        (45000, 64, False, 704),
        (45000, 64, True, 703),
        (100, 100, True, 1),
        (100, 101, False, 1),
    ],
)
def test_steps_in_an_epoch(samples, batch, drop_last, steps):
    assert recipe(batch=batch, drop_last=drop_last).steps_per_epoch(samples) == steps


def test_a_batch_larger_than_the_data():
    with pytest.raises(UserError) as error:
        recipe(batch=101, drop_last=True).steps_per_epoch(100)
    assert str(error.value) == "train.batch: 101 is larger than the 100 training samples"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "sdg"}, "train.optimizer: unknown choice 'sdg'; did you mean 'sgd'?"),
        ({"precision": "float23"}, "train.precision: unknown choice 'float23'; did you mean 'float32'?"),
        ({"decay": "weight"}, "train.decay: unknown choice 'weight'; did you mean 'weights'?"),
        ({"schedule": LrSchedule("cos")}, "train.schedule.kind: unknown choice 'cos'; did you mean 'cosine'?"),
        ({"batch": 0}, "train.batch: 0 is less than 1"),
        ({"lr": -0.1}, "train.lr: -0.1 is negative"),
        ({"nesterov": True}, "train.nesterov needs train.momentum > 0"),
        ({"clip": -1.0}, "train.clip: -1.0 is negative"),
        ({"weight_decay": -1e-4}, "train.weight_decay: -0.0001 is negative"),
        ({"l1": -1e-4}, "train.l1: -0.0001 is negative"),
        (
            {"l1": 1e-4, "precision": "fp16"},
            "train.l1 needs train.precision=float32 or bf16: the gradients of fp16 are scaled",
        ),
        ({"momentum": -0.9}, "train.momentum: -0.9 is negative"),
        ({"eps": -1e-8}, "train.eps: -1e-08 is negative"),
        ({"label_smoothing": 1.5}, "train.label_smoothing: 1.5 is not in 0 <= e <= 1"),
        ({"label_smoothing": -0.1}, "train.label_smoothing: -0.1 is not in 0 <= e <= 1"),
        ({"betas": (0.9,)}, "train.betas: (0.9,) is not two numbers in 0 <= b < 1"),
        ({"betas": (0.9, 0.99, 0.999)}, "train.betas: (0.9, 0.99, 0.999) is not two numbers in 0 <= b < 1"),
        ({"betas": (0.9, 1.0)}, "train.betas: (0.9, 1.0) is not two numbers in 0 <= b < 1"),
        ({"schedule": LrSchedule("constant", warmup=-1)}, "train.schedule.warmup: -1 is negative"),
    ],
)
def test_recipes_that_cannot_be_are_refused_in_one_line(values, message):
    with pytest.raises(UserError) as error:
        recipe(**values)
    assert str(error.value) == message
