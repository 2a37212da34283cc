"""The rows of the bench that tell what shrinking is worth, and how long a compressed file takes."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import torch

from lthbench.bench.measure import Row, ratio, row, seconds
from lthbench.compress import shrink
from lthbench.compress.codebook import shared
from lthbench.compress.packed import pack, unpack
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.prune import prune
from lthbench.pruning.structure import Structure
from lthbench.training.checkpoint import Checkpoint

BATCH = 32


def shrunk(blocks: int) -> Iterator[Row]:
    """VGG-16 without half of the channels of each layer: masked against shrunk, and what that leaves."""
    model = ModelSettings.of("vgg_16", {}, (3, 32, 32), 10)
    dense = Checkpoint.of(model, fresh(model, "kaiming_normal", 0, 0), {})
    criterion, half = CriterionSettings.of("magnitude", {}, 0), Density(Fraction(1, 2))
    mask = prune(dense, criterion, Allocation("uniform", {}), "weights", half, structure=Structure("filter"))
    masked = dense.masked(mask)
    net, small = masked.network().eval(), shrink(masked).eval()
    x = torch.randn(BATCH, *model.shape)

    def run(module: torch.nn.Module) -> None:
        with torch.inference_mode():
            module(x)

    before, after = (sum(p.numel() for p in n.parameters()) / 1e6 for n in (net, small))
    note = f"batch {BATCH}; {before:.2f} to {after:.2f} million parameters"
    yield ratio(
        "masked against shrunk VGG-16, half of the channels", lambda: run(net), lambda: run(small), blocks, note
    )


def packed(blocks: int) -> Iterator[Row]:
    """LeNet-300-100 at 8 % of its weights: sharing them and writing the file, and reading it."""
    model = ModelSettings.of("lenet_300_100", {}, (1, 28, 28), 10)
    dense = Checkpoint.of(model, fresh(model, "glorot_normal", 0, 0), {})
    criterion, kept = CriterionSettings.of("magnitude", {}, 0), Density(Fraction(8, 100))
    net = dense.masked(prune(dense, criterion, Allocation("uniform", {}), "weights", kept))
    bits = {"conv": 6, "linear": 6}

    def encode() -> bytes:
        return pack(shared(net, bits, "linear", 300, None), bits, 5)[0]

    data = encode()
    note = f"{len(data):,} bytes"
    yield row("compressed LeNet-300-100 encoded", [seconds(encode) for _ in range(blocks)], "s", note)
    yield row("compressed LeNet-300-100 decoded", [seconds(lambda: unpack(data)) for _ in range(blocks)], "s", note)
