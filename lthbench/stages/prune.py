"""A mask: score a state, keep an exact number of weights."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.base.settings import Settings, later
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.scoring import Scoring
from lthbench.pruning.structure import Structure

KIND, VERSION = "prune", 1


@dataclass(frozen=True)
class Pruner(Settings):
    """A criterion, how it is run, the program it is used in, and what goes together (None: single weights)."""

    criterion: CriterionSettings
    program: str
    scoring: Scoring | None = later(None)
    structure: Structure | None = later(None)


@dataclass(frozen=True)
class Prune(Settings):
    """`density` is the share of the original count that stays, as exact text; None where `by_kind` rates decide,
    which are then applied `rounds` times to what is left. `scoring` None: one look at the weights, without data.
    `inverted`: what scores least stays, a control."""

    criterion: CriterionSettings
    allocation: Allocation
    prunable: str
    density: str | None
    rounds: int | None
    scoring: Scoring | None = later(None)
    inverted: bool = later(False)
    structure: Structure | None = later(None)


def prune(
    net: Ref,
    pruner: Pruner,
    allocation: Allocation,
    preset: str,
    density: Density | None,
    rounds: int = 1,
    initial: Ref | None = None,
    inverted: bool = False,
) -> Stage:
    """The mask that a criterion leaves of a state; `initial` is the initial state, for criteria that look at it."""
    exact = str(density) if density is not None else None
    rates = None if density is not None else rounds
    settings = Prune(pruner.criterion, allocation, preset, exact, rates, pruner.scoring, inverted, pruner.structure)
    inputs = {"net": net}
    if initial is not None and pruner.criterion.known.initial:
        inputs["initial"] = initial
    return stage(KIND, VERSION, settings, inputs)


def compute(job: Job) -> None:
    """Write the mask, bool tensors by parameter name; new values of what stays, if the criterion gives any, as
    `weights/NAME`: they hold for training that starts from the very state that was pruned."""
    from lthbench.pruning.prune import prune as take
    from lthbench.training.checkpoint import Checkpoint

    s = job.stage.settings
    packed = job.input("net")
    assert isinstance(s, Prune) and packed is not None
    density = Density.parse(s.density) if s.density else None
    first = job.input("initial")
    initial = Checkpoint.unpack(first).weights if first else None
    net = Checkpoint.unpack(packed)
    how = (s.criterion, s.allocation, s.prunable, density, s.rounds or 1, s.scoring)
    mask = take(net, *how, initial, s.inverted, s.structure)
    job.store.write(job.stage, "out.safetensors", mask, {})
