"""Which weights lie on a path from input to output.

The network computes with its mask for weights: every operation between them passes on whether anything reaches an
element (forward), and whether anything that leaves it reaches the output (backward). A weight is effective if both
are so at one of the places where it acts; so padding, strides and poolings count as they are. Biases and what
normalisation adds are no paths. Exact for sequential and residual networks with gates; others are not judged
(Vysogorets and Kempe 2023, arXiv 2107.02306, for the notion).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lthbench.models.channels import GATES, KEEP_ZERO, MOVES, REDUCTIONS, name_of

NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm"}
TINY = 1e-6  # less is rounding: what reaches an element is 1 over an area of pooling at least


class Unknown(Exception):
    """An operation through which paths are not followed."""


def effective(net: nn.Module, mask: Mapping[str, Tensor], shape: tuple[int, ...]) -> dict[str, Tensor] | str:
    """Masks (bool) of the weights of convolutions and linear layers that lie on a path; or what paths cannot be
    followed through. The network is left as it is."""
    modules = net.named_modules()
    names = {id(m.weight): f"{n}.weight" for n, m in modules if isinstance(m, (nn.Conv2d, nn.Linear))}
    parameters = dict(net.named_parameters())
    ones = {
        name: mask[name].float() if name in mask else torch.ones_like(parameters[name], dtype=torch.float32)
        for name in names.values()
        if name in parameters
    }
    device = next(net.parameters()).device
    was_training = net.training
    try:
        with torch.enable_grad():
            with _Paths(net, names, ones):
                out = net.eval()(torch.ones(1, *shape, device=device))
            grads = torch.autograd.grad(out.sum(), list(ones.values()), allow_unused=True)
    except Unknown as unknown:
        return str(unknown)
    finally:
        net.train(was_training)
    none = torch.zeros((), dtype=torch.bool)
    return {n: (w > 0) & (g > TINY if g is not None else none) for (n, w), g in zip(ones.items(), grads)}


class _Reached(torch.autograd.Function):
    """Whether anything is there, in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return (x > TINY).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return (g > TINY).to(g.dtype)


class _Paths(TorchFunctionMode):
    """Replaces a network's operations by what they do to paths."""

    def __init__(self, net: nn.Module, names: Mapping[int, str], ones: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.own = {id(t) for t in [*net.parameters(), *net.buffers()]}
        self.names, self.ones = names, ones
        for weight in ones.values():
            weight.requires_grad_()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(function)
        if name in ("conv2d", "linear"):
            x, weight = args[0], kwargs.get("weight", args[1] if len(args) > 1 else None)
            if id(weight) not in self.names:
                raise Unknown(f"{name} with a computed weight")
            ones = self.ones[self.names[id(weight)]]
            rest = {k: v for k, v in kwargs.items() if k not in ("weight", "bias", "input")}
            return _reached(F.conv2d(x, ones, None, *args[3:], **rest) if name == "conv2d" else F.linear(x, ones))
        if name in NORMS or name in KEEP_ZERO:
            return args[0]
        if name in ("max_pool2d", "adaptive_max_pool2d"):
            return _reached(_average(name, args, kwargs))
        if name in ("add", "mul") and all(isinstance(a, Tensor) for a in args[:2]):
            parts = [a for a in args[:2] if id(a) not in self.own and a.dim()]
            if len(parts) < 2:  # a scale or a shift of the network's own
                return parts[0] if parts else args[0]
            return _reached(parts[0] + parts[1] if name == "add" else parts[0] * parts[1])
        if name in ("add", "mul", "div", "sub") and isinstance(args[0], Tensor):
            if isinstance(args[1], Tensor):
                raise Unknown(name)
            return args[0]  # a number
        out = function(*args, **kwargs)
        if not isinstance(out, (Tensor, tuple, list)) or isinstance(out, torch.Size):
            return out
        if name in REDUCTIONS or name in ("avg_pool2d", "adaptive_avg_pool2d", "interpolate", "upsample"):
            return _reached(out)  # type: ignore[arg-type]
        if name in MOVES | GATES | {"pad"}:
            return out
        if isinstance(out, Tensor) and not out.requires_grad:
            return out
        raise Unknown(name)


def _reached(x: Tensor) -> Tensor:
    return _Reached.apply(x)  # type: ignore[no-any-return]


def _average(name: str, args: Any, kwargs: Any) -> Tensor:
    """The average in place of the largest: a path through any of the window."""
    if name == "adaptive_max_pool2d":
        return F.adaptive_avg_pool2d(args[0], args[1])
    order = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = dict(zip(order, args)) | kwargs
    if given.get("dilation", 1) not in (1, (1, 1)):
        raise Unknown("a dilated pooling")
    return F.avg_pool2d(
        given["input"],
        given["kernel_size"],
        given.get("stride"),
        given.get("padding", 0),
        given.get("ceil_mode", False),
    )
