"""How many weights each layer keeps.

An allocation turns counts per layer into groups: names that are ranked together, and how many of them stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings
from lthbench.pruning.density import Density

Groups = list[tuple[list[str], int]]
ALLOCATIONS = {
    "global": "all prunable weights ranked together",
    "uniform": "the same density in every layer",
    "by_kind": "Frankle and Carbin's rates a round for each kind of layer; sparsity=level:n only",
}


@dataclass(frozen=True)
class Allocation(Settings):
    """`rates` (by_kind only): the share of what is left that one round removes, as exact text, by layer kind."""

    name: str
    rates: dict[str, str]

    def __post_init__(self) -> None:
        if self.name not in ALLOCATIONS:
            raise UserError(f"allocation: unknown '{self.name}'{near(self.name, ALLOCATIONS)}")
        if self.rates and self.name != "by_kind":
            raise UserError(f"allocation.rates mean nothing for allocation={self.name}")
        for kind, rate in self.rates.items():
            try:
                valid = 0 <= Fraction(rate) < 1
            except (ValueError, ZeroDivisionError):
                valid = False
            if not valid:
                raise UserError(f"allocation.rates.{kind}: '{rate}' is not a number in 0 <= r < 1")

    def __hash__(self) -> int:
        return hash(self.text)


@dataclass(frozen=True)
class Layer:
    """What an allocation needs to know of a layer: its kind, all its weights, and those still there."""

    kind: str
    total: int
    alive: int


def groups(allocation: Allocation, layers: dict[str, Layer], density: Density | None, rounds: int) -> Groups:
    """The groups to rank: for a density of the original count, or by_kind rates applied `rounds` times."""
    if allocation.name == "by_kind":
        return [([name], _after_rounds(layer, allocation.rates, rounds)) for name, layer in layers.items()]
    assert density is not None
    kept = density.kept(sum(layer.total for layer in layers.values()))
    if allocation.name == "global":
        return [(list(layers), kept)]
    shares = largest_remainder({name: layer.total for name, layer in layers.items()}, kept)
    return [([name], n) for name, n in _within(shares, layers).items()]


def _within(shares: dict[str, int], layers: dict[str, Layer]) -> dict[str, int]:
    """Shares no larger than what a layer still has; what that leaves over goes to the layers furthest from empty.

    Largest remainders are not monotone: with fewer weights to keep in all, a layer's share can grow by one.
    """
    capped = {name: min(n, layers[name].alive) for name, n in shares.items()}
    for _ in range(sum(shares.values()) - sum(capped.values())):
        name = max(capped, key=lambda name: layers[name].alive - capped[name])
        capped[name] += 1
    return capped


def _after_rounds(layer: Layer, rates: dict[str, str], rounds: int) -> int:
    """What stays when each round removes round-half-even(rate * what is left), as the original does."""
    if layer.kind not in rates:
        raise UserError(f"allocation.rates has no rate for '{layer.kind}' layers")
    left = layer.alive
    for _ in range(rounds):
        left -= round(Fraction(rates[layer.kind]) * left)
    return left


def largest_remainder(sizes: dict[str, int], kept: int) -> dict[str, int]:
    """`kept` split in proportion to sizes, each within one of its exact share; equal remainders: the earlier layer."""
    total = sum(sizes.values())
    shares = {name: kept * size // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: -(kept * sizes[name] % total))
    for name in by_remainder[: kept - sum(shares.values())]:
        shares[name] += 1
    return shares
