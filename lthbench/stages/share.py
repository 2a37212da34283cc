"""A network whose weights share few values: k-means, layer by layer (Han et al. 2016, arXiv 1510.00149)."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.base.settings import Settings
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job

KIND, VERSION = "share", 1


@dataclass(frozen=True)
class Share(Settings):
    """`seed` is None for a beginning that draws nothing."""

    conv_bits: int
    linear_bits: int
    init: str
    iterations: int
    seed: int | None

    @property
    def bits(self) -> dict[str, int]:
        """By layer kind."""
        return {"conv": self.conv_bits, "linear": self.linear_bits}


def share(net: Ref, conv_bits: int, linear_bits: int, init: str, iterations: int, seed: int) -> Stage:
    """The state with shared weights."""
    settings = Share(conv_bits, linear_bits, init, iterations, seed if init == "random" else None)
    return stage(KIND, VERSION, settings, {"net": net})


def compute(job: Job) -> None:
    """Write the checkpoint."""
    from lthbench.compress.codebook import shared
    from lthbench.training.checkpoint import Checkpoint

    s, packed = job.stage.settings, job.input("net")
    assert isinstance(s, Share) and packed is not None
    made = shared(Checkpoint.unpack(packed), s.bits, s.init, s.iterations, s.seed)
    job.store.write(job.stage, "out.safetensors", *made.pack())
