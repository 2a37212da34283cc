"""How many weights each layer keeps.

An allocation turns counts per layer into groups: names that are ranked together, and how many of them stay. The
counts add up to the exact total, whatever the allocation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, later
from lthbench.pruning.density import Density

if TYPE_CHECKING:
    from torch import Tensor

Groups = list[tuple[list[str], int]]
ALLOCATIONS = {
    "global": "all prunable weights ranked together",
    "uniform": "the same density in every layer",
    "erk": "densities in proportion to the sum of a layer's dimensions over their product",
    "smart_ratio": "convolutions' densities fall with depth, linear layers' are fixed",
    "given": "your own densities by layer, times one factor that meets the sparsity",
    "by_kind": "Frankle and Carbin's rates a round for each kind of layer; sparsity=level:n only",
    "threshold": "Han et al.: each layer keeps what is above quality * its standard deviation; sparsity=level:n only",
}
_FIELDS = {
    "rates": ("by_kind",),
    "layers": ("given", "threshold"),
    "quality": ("threshold",),
    "linear": ("smart_ratio",),
}


@dataclass(frozen=True)
class Allocation(Settings):
    """Numbers are exact texts.

    `rates` (by_kind): the share of what is left that one round removes, by role (attention, mlp, ...) or else by layer
    kind. `layers`, by weight name, role or kind: densities up to a common factor (given), or what differs from
    `quality`, thresholds in standard deviations (threshold). `linear`, `vgg` (smart_ratio): the density of linear
    layers; whether ratios are divided by depth squared too.
    """

    name: str
    rates: dict[str, str]
    layers: dict[str, str] | None = later(None)
    quality: str | None = later(None)
    linear: str | None = later(None)
    vgg: bool = later(False)

    def __post_init__(self) -> None:
        if self.name not in ALLOCATIONS:
            raise UserError(f"allocation: unknown '{self.name}'{near(self.name, ALLOCATIONS)}")
        for field, names in _FIELDS.items():
            if getattr(self, field) and self.name not in names:
                means = "mean" if field.endswith("s") else "means"
                raise UserError(f"allocation.{field} {means} nothing for allocation={self.name}")
        for kind, rate in self.rates.items():
            if not fits(rate, lambda r: 0 <= r < 1):
                raise UserError(f"allocation.rates.{kind}: '{rate}' is not a number in 0 <= r < 1")
        numbers = {f"layers.{name}": number for name, number in (self.layers or {}).items()}
        for field, number in (numbers | {"quality": self.quality, "linear": self.linear}).items():
            if number is not None and not fits(number, lambda n: n >= 0):
                raise UserError(f"allocation.{field}: '{number}' is not a number of at least 0")

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def by_round(self) -> bool:
        """Whether it decides itself how much a round removes: then the target is a number of rounds."""
        return self.name in ("by_kind", "threshold")


def fits(text: str, rule: Callable[[Fraction], bool]) -> bool:
    """Whether a text is a number that a rule allows."""
    try:
        return rule(Fraction(text))
    except (ValueError, ZeroDivisionError):
        return False


@dataclass(frozen=True)
class Layer:
    """What an allocation needs to know of a layer: its kind, all its weights, those still there (their number, and
    for `threshold` their values), the shape of its weight, and what it is for in a transformer (its role)."""

    kind: str
    total: int
    alive: int
    shape: tuple[int, ...] = ()
    values: Tensor | None = None
    role: str = ""


def groups(
    allocation: Allocation, layers: dict[str, Layer], density: Density | None, rounds: int, of: str = "prunable weights"
) -> Groups:
    """The groups to rank: for a density of the original count, or by_kind rates applied `rounds` times.

    Raises UserError for a layer that the allocation says nothing of, and for a target that leaves no weight.
    """
    _known(allocation, layers)
    if density is None:
        decide = _after_rounds if allocation.name == "by_kind" else _above
        return [([name], decide(name, layer, allocation, rounds)) for name, layer in layers.items()]
    total = sum(layer.total for layer in layers.values())
    kept = density.kept(total)
    if not kept:
        raise UserError(f"sparsity: of {total} {of} less than one would stay")
    if allocation.name == "global":
        return [(list(layers), kept)]
    if allocation.name == "uniform":
        counts = _within(largest_remainder({name: layer.total for name, layer in layers.items()}, kept), layers)
    elif allocation.name == "smart_ratio":
        counts = smart_ratio(layers, kept, Fraction(allocation.linear or "0.3"), allocation.vgg)
    else:
        if allocation.name == "erk":
            sizes = {name: Fraction(sum(layer.shape)) for name, layer in layers.items()}
        else:
            sizes = {name: Fraction(_of(allocation, name, layer)) * layer.total for name, layer in layers.items()}
        counts = proportional(sizes, {name: layer.alive for name, layer in layers.items()}, kept)
    return [([name], counts[name]) for name in layers]


def _of(allocation: Allocation, name: str, layer: Layer) -> str:
    """The number that holds for a layer: under its weight's name, its role, or its kind, or for all."""
    said = allocation.layers or {}
    found = said.get(name, said.get(layer.role, said.get(layer.kind, allocation.quality)))
    if found is None:
        raise UserError(f"allocation.layers has no number for '{name}', nor for '{layer.kind}' layers")
    return found


def _known(allocation: Allocation, layers: Mapping[str, Layer]) -> None:
    """Raise a UserError for a name in `allocation.layers` that is no layer's."""
    kinds = {what for layer in layers.values() for what in (layer.kind, layer.role) if what}
    known = {*layers, *kinds, "conv", "linear", "output"}
    if wrong := next((name for name in allocation.layers or {} if name not in known), None):
        raise UserError(f"allocation.layers: this network has no '{wrong}'{near(wrong, known)}")


def proportional(sizes: Mapping[str, Fraction], caps: Mapping[str, int], kept: int) -> dict[str, int]:
    """`kept` split in proportion to `sizes`; layers whose share is above their cap keep all they have, and what that
    leaves over goes to the others, in proportion again (Erdos-Renyi-Kernel: Evci et al. 2020, arXiv 1911.11134,
    whose densities are sum(shape) / prod(shape): sizes are sum(shape))."""
    full: dict[str, int] = {}
    if kept > sum(caps[name] for name, size in sizes.items() if size):
        raise UserError(f"allocation: densities of 0 leave no room for {kept} weights")
    while True:
        rest = {name: size for name, size in sizes.items() if name not in full}
        left, whole = kept - sum(full.values()), sum(rest.values())
        over = {name: caps[name] for name, size in rest.items() if left * size > caps[name] * whole}
        if not over:
            return full | (largest_remainder(rest, left) if rest else {})
        full |= over


def smart_ratio(layers: Mapping[str, Layer], kept: int, linear: Fraction, vgg: bool) -> dict[str, int]:
    """Ratios that fall with depth (Su et al. 2020, arXiv 2009.11094): layer l of L keeps in proportion to
    (L-l+1)^2 + (L-l+1), over l^2 with `vgg`; linear layers keep the share `linear`. What a full convolution cannot
    take goes to the following ones, then to the earlier ones, then to the linear layers."""
    last = len(layers)
    sizes = {
        name: Fraction(layer.total * ((last - i) ** 2 + (last - i)), (i + 1) ** 2 if vgg else 1)
        for i, (name, layer) in enumerate(layers.items())
        if layer.kind == "conv"
    }
    if not sizes:
        raise UserError("allocation=smart_ratio needs convolutions: it fixes the density of linear layers")
    counts = {n: min(int(linear * x.total), x.alive) for n, x in layers.items() if x.kind != "conv"}
    budget = kept - sum(counts.values())
    if budget < 0:
        fixed = f"{sum(counts.values())} weights of linear layers (allocation.linear={linear})"
        raise UserError(f"allocation=smart_ratio keeps {fixed}, more than the {kept} that stay in all")
    over = 0
    for name, share in largest_remainder(sizes, budget).items():
        counts[name] = min(share + over, layers[name].alive)
        over += share - counts[name]
    for name in [*sizes, *(name for name in layers if name not in sizes)]:
        more = min(over, layers[name].alive - counts[name])
        counts[name] += more
        over -= more
    return counts


def _within(shares: dict[str, int], layers: dict[str, Layer]) -> dict[str, int]:
    """Shares no larger than what a layer still has; what that leaves over goes to the layers furthest from empty.

    Largest remainders are not monotone: with fewer weights to keep in all, a layer's share can grow by one.
    """
    capped = {name: min(n, layers[name].alive) for name, n in shares.items()}
    for _ in range(sum(shares.values()) - sum(capped.values())):
        name = max(capped, key=lambda name: layers[name].alive - capped[name])
        capped[name] += 1
    return capped


def _after_rounds(name: str, layer: Layer, allocation: Allocation, rounds: int) -> int:
    """What stays when each round removes round-half-even(rate * what is left), as the original does."""
    rate = allocation.rates.get(layer.role, allocation.rates.get(layer.kind))
    if rate is None:
        raise UserError(f"allocation.rates has no rate for '{layer.kind}' layers")
    left = layer.alive
    for _ in range(rounds):
        left -= round(Fraction(rate) * left)
    return left


def _above(name: str, layer: Layer, allocation: Allocation, rounds: int) -> int:
    """How many weights are at least quality * the standard deviation of those still there (Han et al. 2015)."""
    quality = Fraction(_of(allocation, name, layer))
    if layer.values is None or not layer.alive:
        return layer.alive
    return int((layer.values.abs() >= float(quality) * layer.values.std(correction=0)).sum())


def largest_remainder(sizes: Mapping[str, int | Fraction], kept: int) -> dict[str, int]:
    """`kept` split in proportion to sizes, each within one of its exact share; equal remainders: the earlier layer."""
    total = sum(sizes.values())
    shares = {name: int(kept * size // total) for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: -(kept * sizes[name] % total))
    for name in by_remainder[: kept - sum(shares.values())]:
        shares[name] += 1
    return shares
