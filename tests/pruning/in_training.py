"""Networks in training whose mask changes, without stages: six steps an epoch, ten or so in all."""

from __future__ import annotations

from functools import partial

import torch

from lthbench.base.seeds import derive
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import TrainingStream, split
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.dynamics import METHODS, Sparsify
from lthbench.pruning.dynamics.trained import dynamics
from lthbench.training.checkpoint import Checkpoint, part
from lthbench.training.loop import Trajectory
from lthbench.training.recipe import LrSchedule, Recipe

DATA = DataSettings("standin_digits", "official", Normalise(), Augment())
LENET = ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 8, 8), 10)  # 64-30-10-10: 2,320 weights
RESNET = ModelSettings.of("resnet_20", {"width": 0.25, "shortcut": "B"}, (1, 8, 8), 10)
BATCH, PER_EPOCH, SEED, INDEX = 100, 6, 3, (0, 0)
RECIPE = Recipe("sgd", 0.05, BATCH, LrSchedule("cosine", warmup=2, total=20), momentum=0.9, weight_decay=1e-3)
SAID = {
    "gmp": {"begin": 2, "end": 9, "every": 3, "initial": "0"},
    "set": {"begin": 0, "end": 12, "every": 4, "fraction": 0.3},
    "rigl": {"begin": 0, "end": 12, "every": 4, "fraction": 0.3},
    "movement": {"begin": 2, "end": 9, "initial": "0", "score_optimizer": "adam", "score_lr": 1e-2},
    "soft_movement": {
        "begin": 2, "end": 9, "threshold": 0.45, "penalty": 4.0, "floor": 0.005, "score_optimizer": "adam",
        "score_lr": 0.1,
    },
    "l0": {"penalty": 125.0, "bias": 0.5, "score_optimizer": "adam", "score_lr": 0.1},
    "edge_popup": {
        "constant": True, "scaled": True, "score_optimizer": "sgd", "score_lr": 0.1, "score_decay": 1e-4,
    },
    "supermask": {"constant": True, "rescale": True, "bias": 0.0, "score_optimizer": "sgd", "score_lr": 10.0},
}  # fmt: skip
ZEROED = ["gmp", "set", "rigl"]
SCORED = [name for name in SAID if name not in ZEROED]


def sparsify(name, density="1/4", allocation="uniform", scoring=None, structure=None, **said):
    method = METHODS[name].settings(
        {"unit": "iteration", "every_unit": "iteration"} | SAID.get(name, {}) | said, 20, PER_EPOCH
    )
    if METHODS[name].outcome:
        return Sparsify(method, "weights", None, None)
    return Sparsify(method, "weights", Allocation(allocation, {}), density, scoring, structure)


def start(model=LENET):
    return Checkpoint.of(model, fresh(model, "kaiming_normal", SEED, 0), {})


def stream():
    return TrainingStream(split(DATA, "train"), DATA.augment, BATCH, PER_EPOCH, SEED, INDEX)


def begun(how, recipe=RECIPE, model=LENET, first=0):
    """A run at its beginning."""
    return Trajectory(
        start(model), {}, recipe, stream(), first, first, "cpu", partial(dynamics, how, SEED, INDEX, None)
    )


def resumed(run, how, recipe=RECIPE):
    """A run that goes on with what another one would have saved."""
    moments = run.moments()
    makes = partial(dynamics, how, SEED, INDEX, part(moments, "x"))
    return Trajectory(run.checkpoint(), moments, recipe, stream(), run.step, run.first, "cpu", makes)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


def draws(purpose, *step):
    return torch.Generator().manual_seed(derive(SEED, purpose, *INDEX, *step))
