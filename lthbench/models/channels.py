"""Which channels of a network hang together, found by watching one forward pass.

Removing a channel removes the filter that makes it, its BatchNorm entries, and the inputs of whatever reads it; where
layers are added or gated their channels go together or not at all. Every activation carries labels of its own
shape: of which channel an element is. Whatever only moves elements (views, slices, concatenation, padding) is applied
to the labels as it is; elementwise operations unite the labels they bring together; what mixes channels otherwise
fixes them, and so does anything unknown, so that a mistake can only leave a channel in. (torch-pruning traces
gradients instead: it takes zero-padded shortcuts and slices for elementwise operations, and changes the network.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

MOVES = {
    "view", "reshape", "flatten", "permute", "transpose", "contiguous", "clone", "to", "squeeze", "unsqueeze", "expand",
    "expand_as", "narrow", "select", "getitem", "chunk", "split", "cat", "concat", "stack", "unbind", "movedim",
    "swapaxes", "roll", "flip", "repeat", "detach", "float", "double", "type", "channel_shuffle", "pixel_shuffle",
    "unflatten", "tensor_split", "identity",
}  # fmt: skip
POOLS = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate", "upsample"}
KEEP_ZERO = {
    "relu", "relu6", "leaky_relu", "hardtanh", "silu", "gelu", "hardswish", "tanh", "dropout", "dropout2d", "elu",
    "selu", "celu", "mish", "softsign", "hardshrink", "prelu", "alpha_dropout", "feature_dropout",
}  # fmt: skip
GATES = {"sigmoid", "hardsigmoid", "softplus", "exp"}
TOGETHER = {"add", "sub", "mul", "div", "maximum", "minimum"}
REDUCTIONS = {"mean", "sum", "amax", "amin"}
_ZERO, _FIXED = 0, 1  # labels: an element that is always zero; one that has to stay


def name_of(function: Callable[..., Any]) -> str:
    """An operation's plain name: `add` for `Tensor.__iadd__`, `add_` and `torch.add`."""
    bare = getattr(function, "__name__", "").strip("_").replace("truediv", "div").replace("true_divide", "div")
    return bare[1:] if bare[:1] in ("i", "r") and bare[1:] in TOGETHER else bare


@dataclass(frozen=True)
class Channels:
    """Units: channels that can be removed, numbered from 0 in the order in which the network makes them.

    axes: for each parameter and buffer, for each of its dimensions, the unit that an index belongs to (int64, -1: it
    stays), or None for a dimension without channels. makers: the weights that make units by their first dimension.
    offset: units that are not zero where their filters are (through a sigmoid). fixed_by: what fixes the others.
    """

    axes: dict[str, tuple[Tensor | None, ...]]
    makers: list[str]
    count: int
    offset: Tensor
    fixed_by: list[str]

    def rectangle(self, name: str, units: Tensor) -> Tensor:
        """True (in the tensor's shape) where no dimension lies in `units`, a bool tensor by unit."""
        axes = self.axes[name]
        kept = torch.ones([1] * len(axes), dtype=torch.bool)
        for d, axis in enumerate(axes):
            if axis is not None:
                shape = [1] * len(axes)
                shape[d] = len(axis)
                kept = kept & stays(axis, units).view(shape)
        return kept


def stays(axis: Tensor, units: Tensor) -> Tensor:
    """Which indices of a dimension stay when `units` (bool, by unit) go."""
    return ~torch.cat([units, units.new_zeros(1)])[axis]  # -1 is the last: it stays


@torch.no_grad()
def trace(net: nn.Module, shape: tuple[int, ...]) -> Channels:
    """The channels of a network for inputs (1, *shape); computes one forward pass on the network's device."""
    first = next(net.parameters())
    modes = {module: module.training for module in net.modules()}
    names = {id(t): name for name, t in [*net.named_parameters(), *net.named_buffers()]}
    x = torch.zeros(1, *shape, dtype=first.dtype, device=first.device)
    watch = _Watch(names)
    watch.note(x, _whole(torch.tensor(_FIXED), x.shape))
    with watch:
        out = net.eval()(x)
    for module, mode in modes.items():
        module.training = mode
    watch.fix(watch.labels(out), "the output")
    return watch.channels({name: t.dim() for name, t in [*net.named_parameters(), *net.named_buffers()]})


class _Watch(TorchFunctionMode):
    """Carries labels along while a network computes."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.parent = torch.arange(2)
        self.size = 2
        self.known: dict[int, tuple[Tensor, Tensor]] = {}  # the tensor is held, so that its id stays its own
        self.axes: dict[str, dict[int, Tensor]] = {}
        self.makers: list[str] = []
        self.offset: list[Tensor] = []
        self.reasons: dict[str, None] = {}

    # ---- labels and their unions

    def fresh(self, count: int) -> Tensor:
        """New labels."""
        made = torch.arange(self.size, self.size + count)
        self.parent = torch.cat([self.parent, made])
        self.size += count
        return made

    def root(self, labels: Tensor) -> Tensor:
        """The representative of each label; the zero label is its own."""
        while not torch.equal(up := self.parent[labels], labels):
            labels = up
        return labels

    def unite(self, a: Tensor, b: Tensor) -> Tensor:
        """Unite labels element by element; zero gives way to the other. Returns the united labels."""
        a, b = torch.broadcast_tensors(self.root(a), self.root(b))
        pairs = torch.stack([a.flatten(), b.flatten()]).unique(dim=1)
        for x, y in pairs[:, (pairs != _ZERO).all(0)].T.tolist():
            low, high = sorted((self._find(x), self._find(y)))  # fixed is the lowest: it wins
            self.parent[high] = low
        return self.root(torch.where(a == _ZERO, b, a))

    def _find(self, label: int) -> int:
        while (up := int(self.parent[label])) != label:
            label = up
        return label

    def fix(self, labels: Tensor | None, why: str) -> None:
        """These channels have to stay."""
        if labels is not None:
            found = self.root(compact(labels)).unique()
            found = found[found > _FIXED]
            if len(found):
                self.parent[found] = _FIXED
                self.reasons[why] = None

    def labels(self, value: Any) -> Tensor | None:
        """The labels of an activation; None for anything else."""
        return self.known[id(value)][1] if isinstance(value, Tensor) and id(value) in self.known else None

    def note(self, value: Any, labels: Any) -> None:
        """Label what an operation gave: a tensor, or several."""
        if isinstance(value, Tensor):
            self.known[id(value)] = (value, labels)
        elif isinstance(value, (tuple, list)):
            for v, one in zip(value, labels):
                self.note(v, one)

    def axis(self, tensor: Any, dimension: int, labels: Tensor) -> Tensor:
        """A parameter's dimension has these labels; used twice, both."""
        name = self.names.get(id(tensor))
        if name is None:
            return labels
        axes = self.axes.setdefault(name, {})
        axes[dimension] = self.unite(axes[dimension], labels) if dimension in axes else labels
        return axes[dimension]

    # ---- operations

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        name = name_of(function)
        if name != "setitem" and not any(True for _ in _tensors(out)):
            return out  # a size, a device, an assertion
        inputs = list(_tensors([*args, *kwargs.values()]))
        if any(id(t) in self.known for t in inputs):
            known = self._apply(name, function, args, kwargs, out)
            if not known:
                for t in inputs:
                    self.fix(self.labels(t), name)
                targets = args[:1] if name == "setitem" else _tensors(out)
                for t in targets:
                    self.note(t, _whole(torch.tensor(_FIXED), t.shape))
        return out

    def _apply(self, name: str, function: Any, args: Any, kwargs: Any, out: Any) -> bool:
        """Label the output of an operation that is understood; False if it is not."""
        x = self.labels(args[0]) if args else None
        if name == "conv2d" and x is not None:
            return self._convolution(x, out, *_bound(args, kwargs, ("input", "weight", "bias"))[1:])
        if name == "linear" and x is not None:
            return self._linear(x, out, *_bound(args, kwargs, ("input", "weight", "bias"))[1:])
        if name == "batch_norm" and x is not None:
            order = ("input", "running_mean", "running_var", "weight", "bias")
            return self._batch_norm(x, out, _bound(args, kwargs, order)[1:])
        if name == "pad":
            padded, widths, mode, value = _bound(args, kwargs, ("input", "pad", "mode", "value"))
            if (mode or "constant") != "constant" or value:
                return False
            self.note(out, F.pad(self.labels(padded), widths))  # type: ignore[arg-type]
        elif name in MOVES:
            moved = [_mapped(a, self.labels) for a in args]
            if any(isinstance(t, Tensor) and t.dtype != torch.int64 for t in _tensors(moved)):
                return False
            labels = function(*moved, **{k: v for k, v in kwargs.items() if k not in ("dtype", "memory_format")})
            self.note(out, labels if name not in ("to", "float", "double", "type") else x)
        elif name in KEEP_ZERO | GATES and x is not None:
            if name in GATES:
                self.offset.append(compact(x))
            self.note(out, x)
        elif name in POOLS and x is not None and (plane := _uniform(x, (2, 3))) is not None:
            self.note(out, _whole(plane[:, :, :1, :1], out.shape))
        elif name in REDUCTIONS and x is not None:
            return self._reduction(x, out, args, kwargs)
        elif name in TOGETHER:
            return self._together(name, args, out)
        else:
            return False
        return True

    def _convolution(self, x: Tensor, out: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        plane = _uniform(x, (2, 3))
        if plane is None or id(weight) not in self.names:
            return False
        inner = self.root(plane[0, :, 0, 0])
        if len(inner) == weight.shape[1]:
            self.axis(weight, 1, inner)
            outer = self._made(weight)
        elif weight.shape[1] == 1:  # depthwise: a channel in, its channels out
            outer = inner.repeat_interleave(weight.shape[0] // len(inner))
            outer = self.axis(weight, 0, outer.clamp(min=_FIXED))
            self._maker(weight)
        else:
            return False
        self._note_made(out, outer, bias, 1)
        return True

    def _linear(self, x: Tensor, out: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        row = _uniform(x, tuple(range(x.dim() - 1)))
        if row is None or id(weight) not in self.names:
            return False
        self.axis(weight, 1, row.flatten())
        self._note_made(out, self._made(weight), bias, out.dim() - 1)
        return True

    def _made(self, weight: Tensor) -> Tensor:
        """The labels of what a weight makes: new ones, or those it made before."""
        made = self.axes[self.names[id(weight)]].get(0)
        self._maker(weight)
        return self.axis(weight, 0, self.fresh(weight.shape[0]) if made is None else made)

    def _maker(self, weight: Tensor) -> None:
        if (name := self.names[id(weight)]) not in self.makers:
            self.makers.append(name)

    def _note_made(self, out: Tensor, labels: Tensor, bias: Tensor | None, dimension: int) -> None:
        if bias is not None:
            labels = self.axis(bias, 0, labels)
        shape = [1] * out.dim()
        shape[dimension] = len(labels)
        self.note(out, _whole(labels.view(shape), out.shape))

    def _batch_norm(self, x: Tensor, out: Tensor, tensors: list[Tensor | None]) -> bool:
        plane = _uniform(x, tuple(d for d in range(x.dim()) if d != 1))
        if plane is None:
            return False
        labels = plane.flatten().clamp(min=_FIXED)
        for tensor in tensors:
            if tensor is not None:
                labels = self.axis(tensor, 0, labels)
        self._note_made(out, labels, None, 1)
        return True

    def _reduction(self, x: Tensor, out: Tensor, args: Any, kwargs: Any) -> bool:
        _, dims, keep = _bound(args, kwargs, ("input", "dim", "keepdim"))
        if dims is None:
            return False
        row = _uniform(x, (dims,) if isinstance(dims, int) else tuple(dims), bool(keep))
        if row is None:
            return False
        self.note(out, _whole(row, out.shape))
        return True

    def _together(self, name: str, args: Any, out: Tensor) -> bool:
        one, other = args[0], args[1]
        known = [labels for t in (one, other) if (labels := self.labels(t)) is not None]
        tensors = [t for t in (one, other) if isinstance(t, Tensor) and t.dim()]
        if len(tensors) < 2:  # a scalar
            x = known[0]
            if name in ("add", "sub", "maximum", "minimum"):
                self.offset.append(compact(x))
            self.note(out, _whole(x, out.shape))
            return True
        if len(known) < 2:
            return False  # a parameter or a constant by channel
        a, b = (self.root(compact(labels)) for labels in known)
        for x, shared, of in ((a, b, other), (b, a, one)):
            if _shared(of, x):
                self.fix(shared, f"{name} with one channel for all")
                if name not in ("mul", "div"):
                    self.fix(x, f"{name} with one channel for all")
                self.note(out, _whole(x, out.shape))
                return True
        self.note(out, _whole(self.unite(a, b), out.shape))
        return True

    # ---- the result

    def channels(self, dimensions: dict[str, int]) -> Channels:
        """Labels as unit numbers."""
        made = [self.root(self.axes[name][0]) for name in self.makers]
        roots = torch.cat([*made, torch.tensor([_FIXED])])
        ordered = list(dict.fromkeys(r for r in roots.tolist() if r > _FIXED))
        number = torch.full((self.size,), -1)
        number[torch.tensor(ordered, dtype=torch.long)] = torch.arange(len(ordered))
        offset = torch.zeros(len(ordered) + 1, dtype=torch.bool)
        for labels in self.offset:
            offset[number[self.root(labels).flatten()]] = True
        axes = {
            name: tuple(number[self.root(found[d])] if d in found else None for d in range(dimensions[name]))
            for name, found in self.axes.items()
        }
        return Channels(axes, list(self.makers), len(ordered), offset[:-1], list(self.reasons))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for v in value:
            yield from _tensors(v)


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, (tuple, list)) and any(True for _ in _tensors(value)):
        return type(value)(_mapped(v, function) for v in value)
    found = function(value)
    return value if found is None else found


def _bound(args: Any, kwargs: Any, order: tuple[str, ...]) -> list[Any]:
    """Arguments by their place or name; None where there is none."""
    return [args[i] if i < len(args) else kwargs.get(key) for i, key in enumerate(order)]


def compact(labels: Tensor) -> Tensor:
    """Labels without the copies that expanding made."""
    for d, stride in enumerate(labels.stride()):
        if stride == 0:
            labels = labels.narrow(d, 0, 1)
    return labels


def _whole(labels: Tensor, shape: Any) -> Tensor:
    return compact(labels).expand(shape)


def _uniform(labels: Tensor, dims: tuple[int, ...], keep: bool = True) -> Tensor | None:
    """The labels along some dimensions, if they are the same along them; these dimensions are then 1, or gone."""
    dims = tuple(d % labels.dim() for d in dims)
    small = compact(labels)
    small = small.expand([small.shape[d] if d in dims else n for d, n in enumerate(labels.shape)])
    low, high = small.amin(dims, keepdim=keep), small.amax(dims, keepdim=keep)
    return low if torch.equal(low, high) else None


def _shared(tensor: Tensor, labels: Tensor) -> bool:
    """Whether a tensor is of size 1 wherever the other's labels vary: one channel that meets them all."""
    varied = [d - labels.dim() for d, n in enumerate(labels.shape) if n > 1]
    return bool(varied) and all(-d > tensor.dim() or tensor.shape[d] == 1 for d in varied)
