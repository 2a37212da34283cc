"""A network of shared weights as a file, and read back from it (Han et al. 2016, arXiv 1510.00149)."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.base.settings import Settings
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job

KIND, VERSION = "pack", 1


@dataclass(frozen=True)
class Pack(Settings):
    """Bits of a weight's code by layer kind, and of a gap between weights."""

    conv_bits: int
    linear_bits: int
    index_bits: int


def pack(net: Ref, conv_bits: int, linear_bits: int, index_bits: int) -> Stage:
    """The state that is read back."""
    return stage(KIND, VERSION, Pack(conv_bits, linear_bits, index_bits), {"net": net})


def compute(job: Job) -> None:
    """Write the checkpoint that the file's bytes give, the bytes themselves as `file`, and what they are spent on."""
    import torch

    from lthbench.compress.packed import pack as packed
    from lthbench.compress.packed import unpack
    from lthbench.training.checkpoint import Checkpoint

    s, given = job.stage.settings, job.input("net")
    assert isinstance(s, Pack) and given is not None
    data, told = packed(Checkpoint.unpack(given), {"conv": s.conv_bits, "linear": s.linear_bits}, s.index_bits)
    tensors, meta = unpack(data).pack()
    whole = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    job.store.write(job.stage, "out.safetensors", tensors | {"file": whole}, meta | {"compression": told})
