"""What training does to a network, seen at one of its states: gradients, and the kernel that they span."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lthbench.training.checkpoint import Checkpoint, Tensors


def trained(net: nn.Module, mask: Tensors) -> tuple[list[nn.Parameter], list[Tensor | float]]:
    """A network's parameters, and what their gradients are multiplied with: its mask, 1 where there is none."""
    net.train()  # BatchNorm sees its batch, as in training
    for module in net.modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)):
            module.train(isinstance(module, nn.modules.batchnorm._BatchNorm))
    named = dict(net.named_parameters())
    return list(named.values()), [mask.get(name, 1.0) for name in named]


def gradient(net: nn.Module, mask: Tensors, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Loss (mean cross-entropy) on images x (B, C, H, W) with labels y (B,), and the Euclidean norm of its gradient
    in what is trained: all parameters, of pruned layers the weights that the mask keeps.

    The norm's square is the gradient flow: by how much, to first order, the loss falls with a unit of learning rate
    (Evci et al. 2022, arXiv 2010.03533).
    """
    parameters, kept = trained(net, mask)
    loss = F.cross_entropy(net(x), y)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    squares = [float((g * m).double().square().sum()) for g, m in zip(grads, kept) if g is not None]
    return loss.item(), sum(squares) ** 0.5


def kernel(net: nn.Module, mask: Tensors, x: Tensor) -> Tensor:
    """The empirical tangent kernel (B, B) of images x, the sum over classes of the products of their outputs'
    gradients in what is trained (Jacot et al. 2018, arXiv 1806.07572)."""
    parameters, kept = trained(net, mask)
    logits = net(x)
    found = torch.zeros(len(x), len(x), dtype=torch.float64)
    for c in range(logits.shape[1]):
        rows = torch.zeros(len(x), *logits.shape, device=x.device)
        rows[torch.arange(len(x)), torch.arange(len(x)), c] = 1.0
        grads = torch.autograd.grad(
            logits, parameters, rows, is_grads_batched=True, retain_graph=True, allow_unused=True
        )
        for g, m in zip(grads, kept):
            if g is not None:
                flat = (g * m).flatten(1)
                found += (flat @ flat.T).double().cpu()
    return found


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """1 minus the cosine between two kernels (Fort et al. 2020, arXiv 2010.15110, section 4)."""
    return float(1 - (one * other).sum() / (one.norm() * other.norm()))


def changed(one: Checkpoint, other: Checkpoint) -> float:
    """Share of the masked weights that are kept by one mask of two and not by the other; a state without a mask keeps
    all."""
    names = {*one.mask, *other.mask}
    if not names:
        return 0.0
    full: dict[str, Any] = {name: torch.ones_like((one.mask or other.mask)[name]) for name in names}
    pairs = [(one.mask.get(n, full[n]), other.mask.get(n, full[n])) for n in names]
    return sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)
