"""A new network: fresh weights from the seed, or given ones from a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lthbench.base.settings import Settings, aside
from lthbench.engine.graph import Stage, stage
from lthbench.engine.runner import Job
from lthbench.models import PRETRAINED, ModelSettings, digest

if TYPE_CHECKING:
    from torch import nn

KIND, VERSION = "init", 1


@dataclass(frozen=True)
class Init(Settings):
    """`index` 0 is the run's own initialisation, 1 + r that of reinitialisation control r.

    Given weights are named by the file's sha256 (or as `pretrained`, by the network's name in its library); then
    initialiser and seed mean nothing and are None.
    """

    model: ModelSettings
    initialiser: str | None
    seed: int | None
    index: int
    weights: str | None
    path: str | None = aside()


def init(model: ModelSettings, initialiser: str, seed: int, index: int = 0) -> Stage:
    """A network with fresh weights."""
    return stage(KIND, VERSION, Init(model, initialiser, seed, index, None), {})


def given(model: ModelSettings, sha256: str, path: str | None) -> Stage:
    """A network with the weights of a file, or those its library has."""
    return stage(KIND, VERSION, Init(model, None, None, 0, sha256, path), {})


def network(settings: Init) -> nn.Module:
    """The network that the settings name."""
    from lthbench.models import initialise

    if settings.weights == PRETRAINED:
        return initialise.pretrained(settings.model)
    if settings.path is not None:
        if digest(settings.path) != settings.weights:
            raise ValueError(f"'{settings.path}' has changed since the run was planned")
        return initialise.given(settings.model, settings.path)
    assert settings.initialiser is not None and settings.seed is not None
    return initialise.fresh(settings.model, settings.initialiser, settings.seed, settings.index)


def compute(job: Job) -> None:
    """Write the checkpoint."""
    from lthbench.training.checkpoint import Checkpoint

    settings = job.stage.settings
    assert isinstance(settings, Init)
    job.store.write(job.stage, "out.safetensors", *Checkpoint.of(settings.model, network(settings), {}).pack())
