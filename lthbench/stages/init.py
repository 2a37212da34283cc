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
    initialiser and seed are those of the output layer, which is drawn anew, or None.
    """

    model: ModelSettings
    initialiser: str | None
    seed: int | None
    index: int
    weights: str | None
    path: str | None = aside()

    @property
    def output(self) -> tuple[str, int] | None:
        """Initialiser and seed of what is drawn: all, or the output layer of given weights; None: nothing is."""
        return None if self.initialiser is None or self.seed is None else (self.initialiser, self.seed)


def init(model: ModelSettings, initialiser: str, seed: int, index: int = 0) -> Stage:
    """A network with fresh weights."""
    return stage(KIND, VERSION, Init(model, initialiser, seed, index, None), {})


def given(model: ModelSettings, sha256: str, path: str | None, output: tuple[str, int] | None = None) -> Stage:
    """A network with the weights of a file, or those its library has; `output` (initialiser, seed) draws the output
    layer anew."""
    initialiser, seed = output or (None, None)
    return stage(KIND, VERSION, Init(model, initialiser, seed, 0, sha256, path), {})


def network(settings: Init) -> nn.Module:
    """The network that the settings name."""
    from lthbench.models import initialise

    output = settings.output
    if settings.weights == PRETRAINED:
        return initialise.pretrained(settings.model, output)
    if settings.path is not None:
        if digest(settings.path) != settings.weights:
            raise ValueError(f"'{settings.path}' has changed since the run was planned")
        return initialise.given(settings.model, settings.path, output)
    assert output is not None
    return initialise.fresh(settings.model, *output, settings.index)


def compute(job: Job) -> None:
    """Write the checkpoint."""
    from lthbench.training.checkpoint import Checkpoint

    settings = job.stage.settings
    assert isinstance(settings, Init)
    job.store.write(job.stage, "out.safetensors", *Checkpoint.of(settings.model, network(settings), {}).pack())
