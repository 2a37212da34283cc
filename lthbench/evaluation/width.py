"""The smaller dense network that a pruned one has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lthbench.evaluation.counts import multiply_adds
from lthbench.models import ModelSettings, create

FINEST = 2**20  # widths are multiples of the network's own width over this


def of_equal_size(model: ModelSettings, mask: Mapping[str, Tensor], by: str) -> ModelSettings:
    """The network, narrowed by its argument `width` until it is as large as the pruned one.

    by `parameters`: as many parameters as the pruned network has left (biases and BatchNorm count in both). `flops`:
    as many multiply-adds, each layer's weighted by its density. Channels are whole: of the two nearest widths the
    closer.
    """

    def narrowed(k: int) -> ModelSettings:
        return replace(model, args={**model.args, "width": model.args["width"] * k / FINEST})

    def size(k: int) -> float:
        with torch.device("meta"):
            net = create(narrowed(k))
            if by == "flops":
                return sum(multiply_adds(net, model.shape).values())
            return sum(p.numel() for p in net.parameters())

    with torch.device("meta"):
        net = create(model)
        parameters, macs = dict(net.named_parameters()), multiply_adds(net, model.shape)
    if by == "flops":
        target = sum(n * float(mask[name].float().mean()) if name in mask else n for name, n in macs.items())
    else:
        target = sum(p.numel() for p in parameters.values()) - sum(int((~kept).sum()) for kept in mask.values())
    low, high = 1, FINEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= target else (low, middle)
    return narrowed(min((low, high), key=lambda k: abs(size(k) - target)))
