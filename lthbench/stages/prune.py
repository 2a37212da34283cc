"""A mask: score a state, keep an exact number of weights."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.base.settings import Settings
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density

KIND, VERSION = "prune", 1


@dataclass(frozen=True)
class Prune(Settings):
    """`density` is the share of the original count that stays, as exact text; None where `by_kind` rates decide,
    which are then applied `rounds` times to what is left."""

    criterion: CriterionSettings
    allocation: Allocation
    prunable: str
    density: str | None
    rounds: int | None


def prune(
    net: Ref,
    criterion: CriterionSettings,
    allocation: Allocation,
    preset: str,
    density: Density | None,
    rounds: int = 1,
) -> Stage:
    """The mask that a criterion leaves of a state."""
    exact = str(density) if density is not None else None
    settings = Prune(criterion, allocation, preset, exact, None if density is not None else rounds)
    return stage(KIND, VERSION, settings, {"net": net})


def compute(job: Job) -> None:
    """Write the mask, bool tensors by parameter name."""
    from lthbench.pruning.prune import prune as take
    from lthbench.training.checkpoint import Checkpoint

    s = job.stage.settings
    packed = job.input("net")
    assert isinstance(s, Prune) and packed is not None
    density = Density.parse(s.density) if s.density else None
    mask = take(Checkpoint.unpack(packed), s.criterion, s.allocation, s.prunable, density, s.rounds or 1)
    job.store.write(job.stage, "out.safetensors", mask, {})
