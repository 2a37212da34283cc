"""The smaller dense network that computes what a pruned one does.

A channel can go if it is always zero (its filters and biases are, and what BatchNorm adds), or if nothing that stays
reads it. Looked for by values, not masks: a network pruned elsewhere shrinks as well. What a channel that is constant
but not zero adds is left in: at the border of a padded image it is no constant.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lthbench.base.errors import UserError
from lthbench.models.channels import Channels, stays, trace
from lthbench.models.resnet import Block
from lthbench.training.checkpoint import Checkpoint

TOLERANCE = 1e-9  # of the largest output, in float64


def shrink(net: nn.Module | Checkpoint, shape: tuple[int, ...] | None = None) -> nn.Module:
    """A copy without the channels that do nothing, plain PyTorch: the same outputs in evaluation mode, up to rounding.

    shape: (channels, height, width) of one input; a checkpoint knows it. A layer keeps at least one channel. Raises
    UserError where no channel can ever go, and where the network's own code needs the sizes it was built with.
    """
    if isinstance(net, Checkpoint):
        shape, net = net.model.shape, net.network()
    assert shape is not None, "the shape of one input"
    channels = trace(net, shape)
    if not channels.count:
        raise UserError(f"this network cannot be shrunk: {', '.join(channels.fixed_by)} needs every channel")
    gone = _at_least_one(channels, removable(net, channels))
    small = copy.deepcopy(net)
    for name, module in small.named_modules():
        _narrow(name, module, channels, gone)
    _compare(net, small, shape)
    return small


def removable(net: nn.Module, channels: Channels) -> Tensor:
    """Which units (bool) do nothing: always zero, or read by nothing that stays."""
    tensors = dict(net.state_dict())
    zero = torch.zeros(channels.count, dtype=torch.bool)
    while not torch.equal(more := zero | ~_alive(net, tensors, channels, zero), zero):
        zero = more
    gone = zero
    while not torch.equal(more := gone | ~_read(tensors, channels, gone), gone):
        gone = more
    return gone


def _alive(net: nn.Module, tensors: Mapping[str, Tensor], channels: Channels, zero: Tensor) -> Tensor:
    """Which units may be other than zero, given some that are."""
    alive = channels.offset.clone()

    def mark(axis: Tensor, what: Tensor) -> None:
        units = axis[what.cpu()]
        alive[units[units >= 0]] = True

    normalised: set[str] = set()
    for name, module in net.named_modules():
        if isinstance(module, _BatchNorm) and (axes := channels.axes.get(f"{name}.running_mean")):
            assert axes[0] is not None
            mark(axes[0], _added(module) != 0)
            normalised |= {f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
    for name, axes in channels.axes.items():
        if axes[0] is not None and name not in normalised:
            kept = channels.rectangle(name, zero).to(tensors[name].device)
            mark(axes[0], ((tensors[name] != 0) & kept).flatten(1).any(1) if len(axes) > 1 else tensors[name] != 0)
    return alive


def _added(norm: _BatchNorm) -> Tensor:
    """What BatchNorm makes of a channel of zeros."""
    assert norm.running_mean is not None and norm.running_var is not None
    zeros = torch.zeros(1, norm.num_features, 1, 1, dtype=norm.running_mean.dtype, device=norm.running_mean.device)
    out = torch.nn.functional.batch_norm(
        zeros, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
    )
    return out.detach().flatten()


def _read(tensors: Mapping[str, Tensor], channels: Channels, gone: Tensor) -> Tensor:
    """Which units are read by a weight that stays."""
    read = torch.zeros(channels.count, dtype=torch.bool)
    for name, axes in channels.axes.items():
        if len(axes) > 1 and axes[1] is not None:
            used = tensors[name] != 0
            if axes[0] is not None:
                used = used[stays(axes[0], gone).to(used.device)]
            units = axes[1][used.transpose(0, 1).flatten(1).any(1).cpu()]
            read[units[units >= 0]] = True
    return read


def _at_least_one(channels: Channels, gone: Tensor) -> Tensor:
    """No dimension becomes empty: where all of it would go, its first channel stays, whatever it holds."""
    gone = gone.clone()
    for axes in channels.axes.values():
        for axis in axes:
            if axis is not None and len(axis) and not stays(axis, gone).any():
                gone[axis[0]] = False
    return gone


def _narrow(name: str, module: nn.Module, channels: Channels, gone: Tensor) -> None:
    """Take the channels out of a layer's own tensors and sizes."""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    for key, tensor in own:
        axes = channels.axes.get(f"{name}.{key}" if name else key)
        if axes is None:
            continue
        less = tensor.detach()
        for d, axis in enumerate(axes):
            if axis is not None:
                less = less.index_select(d, stays(axis, gone).nonzero().flatten().to(less.device))
        if isinstance(tensor, nn.Parameter):
            less = nn.Parameter(less, requires_grad=tensor.requires_grad)
        setattr(module, key, less)
    if isinstance(module, nn.Conv2d):
        if module.groups > 1:  # depthwise, as others keep all: so many channels out for each in
            module.groups = module.weight.shape[0] // (module.out_channels // module.groups)
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _BatchNorm) and module.running_mean is not None:
        module.num_features = len(module.running_mean)
    elif isinstance(module, Block) and (axes := channels.axes.get(f"{name}.conv2.weight")) and axes[0] is not None:
        module.narrow(stays(axes[0], gone))


@torch.no_grad()
def _compare(net: nn.Module, small: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise a UserError unless both compute the same."""
    first = next(net.parameters())
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(first.device)
    a = copy.deepcopy(net).double().eval()(x)
    why = "its outputs differ"
    try:
        b = copy.deepcopy(small).double().eval()(x)
        same = torch.allclose(a, b, rtol=0, atol=TOLERANCE * float(a.abs().max().clamp(min=1e-300)))
    except RuntimeError as error:
        same, why = False, str(error).splitlines()[0]
    if not same:
        raise UserError(f"this network cannot be shrunk: its code needs the sizes it was built with ({why})")
