"""The rows of the bench that tell what shrinking is worth, and how long a compressed file takes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from fractions import Fraction

import torch

from lthbench.bench.measure import Row, ratio, row, seconds
from lthbench.compress import shrink
from lthbench.compress.codebook import shared
from lthbench.compress.packed import pack, unpack
from lthbench.evaluation.counts import multiply_adds
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
    what = "masked against shrunk VGG-16, half of the channels"
    yield ratio(what, lambda: run(net), lambda: run(small), blocks, note)
    fewer = sum(multiply_adds(net, model.shape).values()) / sum(multiply_adds(small, model.shape).values())
    torch.set_num_threads(2)
    whole = ratio(what, lambda: run(net), lambda: run(small), blocks, f"{fewer:.2f} times fewer multiply-adds")
    note = f"2 threads; {whole.note}; ms of layers, masked/shrunk: {_profile(net, small, x)}"
    torch.set_num_threads(1)
    what, value, low, high = "speed-up of shrinking over that of multiply-adds", whole.value, whole.low, whole.high
    yield Row(what, value / fewer, low / fewer, high / fewer, whole.n, "x", note)


def _profile(net: torch.nn.Module, small: torch.nn.Module, x: torch.Tensor) -> str:
    """Where the time of both goes: milliseconds of each kind of layer, of convolutions by the size of their images."""
    sides = [_times(module, x) for module in (net, small)]
    return ", ".join(f"{kind} {sides[0][kind]:.3g}/{sides[1][kind]:.3g}" for kind in sides[0])


def _times(net: torch.nn.Module, x: torch.Tensor, repeats: int = 5) -> dict[str, float]:
    """The fastest of some passes, layer by layer, added up by kind."""
    begun: dict[str, float] = {}
    fastest: dict[str, float] = {}
    kinds: dict[str, str] = {}

    def before(name: str) -> None:
        begun[name] = time.perf_counter()

    def after(name: str, layer: torch.nn.Module, out: torch.Tensor) -> None:
        fastest[name] = min(fastest.get(name, math.inf), time.perf_counter() - begun[name])
        kind = type(layer).__name__
        kinds[name] = f"{kind} {out.shape[-1]}x{out.shape[-1]}" if kind == "Conv2d" else kind

    handles = []
    for name, layer in net.named_modules():
        if not list(layer.children()):
            handles.append(layer.register_forward_pre_hook(lambda *_, name=name: before(name)))
            handles.append(layer.register_forward_hook(lambda layer, _, out, name=name: after(name, layer, out)))
    with torch.inference_mode():
        for _ in range(repeats):
            net(x)
    for handle in handles:
        handle.remove()
    found: dict[str, float] = {}
    for name, took in fastest.items():
        found[kinds[name]] = found.get(kinds[name], 0.0) + 1e3 * took
    return found


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
