"""Which cells a claim is about: pairs of cells that differ in nothing but what its two sides name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lthbench.published import Claim, alike, is_at
from lthbench.report.quantities import QUANTITIES

if TYPE_CHECKING:
    from lthbench.report.board import Entry

Place = Mapping[str, Any]
NEAREST = 1.12  # a claim's sparsity means the nearest level: rounds of 20 % are a factor 1.25 apart
TO_DENSE = ("error minus dense error", "top-1 drop")  # quantities that compare with the dense network first
OF_QUANTITY = ("metric", "quantity")
OF_SPARSITY = ("sparsity", "compression_log10")


class Pair(NamedTuple):
    """The case: left minus right (0 where there is none) minus `offset`."""

    left: Entry
    right: Entry | None
    offset: float = 0.0


def quantity_of(claim: Claim, default: str = "accuracy") -> str:
    """The name of the quantity that a claim is about; where it names none, the table's."""
    whens = claim.when if isinstance(claim.when, (list, tuple)) else [claim.when]
    named = [side[key] for side in (claim.left, claim.right, *whens) for key in OF_QUANTITY if key in side]
    return str(named[0]) if named else default


def understood(claim: Claim) -> bool:
    """Whether results hold what the claim is about."""
    return quantity_of(claim) in (*QUANTITIES, *TO_DENSE)


def names(claim: Claim) -> list[tuple[str, Any]]:
    """What the sides name besides sparsity: (word, value), as (method, snip)."""
    words = {**claim.left, **claim.right}
    free = {key for key in words if any(isinstance(side.get(key), Mapping) for side in (claim.left, claim.right))}
    free |= {*OF_QUANTITY, *OF_SPARSITY, "value"}
    points = [point for side in (claim.left, claim.right) for point in _points(side)]
    return [(key, value) for point in points for key, value in point.items() if key not in free]


def pairs(claim: Claim, entries: Sequence[Entry]) -> list[Pair]:
    """The cases of a claim among the cells of a table, each once."""
    found: dict[tuple[int, int, float], Pair] = {}
    for when, left, right in itertools.product(_points(claim.when), _points(claim.left), _points(claim.right)):
        for pair in _of(quantity_of(claim), when, left, right, entries):
            if pair.left is not pair.right:
                found.setdefault((id(pair.left), id(pair.right), pair.offset), pair)
    return list(found.values())


def _of(quantity: str, when: Place, left: Place, right: Place, entries: Sequence[Entry]) -> Iterator[Pair]:
    if quantity == "error_barrier" and "method" not in {**when, **left}:
        left = {"method": "dense", **left}  # of the whole network, unless it says of which
    named = {*left, *right, "method"}
    for one in _fitting({**when, **left}, entries):
        if "value" not in right:
            yield from (Pair(one, e) for e in _fitting({**when, **right}, entries) if _agree(one, e, named))
        elif quantity in TO_DENSE:
            denses = _fitting({**when, "method": "dense"}, entries)
            yield from (Pair(e, one, float(right["value"])) for e in denses if _agree(one, e, named))
        else:
            yield Pair(one, None, float(right["value"]))


def _points(side: Any) -> list[dict[str, Any]]:
    """The points that lists in a side (or in `when`) stand for; a list of mappings is those mappings."""
    if isinstance(side, (list, tuple)):
        return [point for part in side for point in _points(part)]
    axes = [
        [(key, value) for value in (values if isinstance(values, list) else [values])]
        for key, values in side.items()
        if key not in OF_QUANTITY
    ]
    return [dict(point) for point in itertools.product(*axes)]


def _fitting(wanted: Place, entries: Sequence[Entry]) -> list[Entry]:
    """The cells at a place. What a cell does not tell (its place lacks the word) is not held against it."""
    wanted = {key: value for key, value in wanted.items() if key != "value"}
    if "compression_log10" in wanted:
        wanted["sparsity"] = _compressed(wanted.pop("compression_log10"))
    sparsity = wanted.pop("sparsity", None)
    dense = str(wanted.get("method")).startswith("dense")
    if wanted.get("method") == "dense":  # a method with nothing pruned is the dense network
        del wanted["method"]
    found = [
        e
        for e in entries
        if e.nominal is not None
        and (e.nominal == 0) == dense
        and all(is_at(e.where, key, value) for key, value in wanted.items())
    ]
    if dense:
        return _once(found)
    if isinstance(sparsity, Mapping):
        low, high = float(sparsity["from"]), float(sparsity["to"])
        return [e for e in found if _between(e.nominal or 0.0, low, high)]
    return found if sparsity is None else _nearest(found, float(sparsity))


def _between(sparsity: float, low: float, high: float) -> bool:
    return low <= sparsity <= high or alike(sparsity, low, 1.005) or alike(sparsity, high, 1.005)


def _once(entries: Sequence[Entry]) -> list[Entry]:
    """Dense networks that several methods name, each once: the one with the most runs."""
    best: dict[tuple[tuple[str, str], ...], Entry] = {}
    for e in entries:
        key = tuple(sorted((k, str(v)) for k, v in e.where.items() if k != "method"))
        if key not in best or len(e.runs) > len(best[key].runs):
            best[key] = e
    return list(best.values())


def _compressed(value: Any) -> Any:
    """Sparsity from the logarithm of the compression."""
    if isinstance(value, Mapping):
        return {key: 1 - 10.0 ** -float(power) for key, power in value.items()}
    return 1 - 10.0 ** -float(value)


def _nearest(entries: Sequence[Entry], sparsity: float) -> list[Entry]:
    """Of each method (label) the cell whose sparsity is nearest, if it is near."""
    best: dict[str, Entry] = {}
    for e in entries:
        if alike(e.nominal or 0.0, sparsity, NEAREST):
            known = best.get(e.label)
            if known is None or _far(e, sparsity) < _far(known, sparsity):
                best[e.label] = e
    return list(best.values())


def _far(entry: Entry, sparsity: float) -> float:
    return abs(math.log((1 - (entry.nominal or 0.0)) / (1 - sparsity)))


def _agree(one: Entry, other: Entry, named: set[str]) -> bool:
    """Whether two cells differ in nothing but what the claim's sides name (a dense network in sparsity as well)."""
    if any(other.where.get(key, value) != value for key, value in one.where.items() if key not in named):
        return False
    free = not one.nominal or not other.nominal or named & {*OF_SPARSITY}
    return bool(free) or alike(one.nominal or 0.0, other.nominal or 0.0)
