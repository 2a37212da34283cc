"""Exact densities: the share of the prunable weights that stays, and how many weights that is.

A density is a text, so that it names a result: `1/10`, or `(1/10)^(3/5)` for round 3 of 5 equal factors. R =
round-half-up((1 - density) N) weights go and N - R stay, in exact arithmetic: never through a float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

from lthbench.base.errors import UserError


@dataclass(frozen=True)
class Density:
    """base ** (power / root), 0 < base <= 1, in lowest terms."""

    base: Fraction
    power: int = 1
    root: int = 1

    def __str__(self) -> str:
        base = f"{self.base.numerator}/{self.base.denominator}"
        return base if self.root == 1 else f"({base})^({self.power}/{self.root})"

    def __float__(self) -> float:
        return float(self.base) ** (self.power / self.root)

    @classmethod
    def parse(cls, text: str) -> Density:
        """The inverse of str()."""
        if not text.startswith("("):
            return cls(Fraction(text))
        base, _, exponent = text[1:-1].partition(")^(")
        power, root = map(int, exponent.split("/"))
        return cls(Fraction(base), power, root)

    def kept(self, total: int) -> int:
        """How many of `total` weights stay."""
        if self.root == 1:
            s = 1 - self.base
            return total - (2 * s.numerator * total + s.denominator) // (2 * s.denominator)
        with localcontext() as context:
            context.prec = 60  # irrational: never a tie, and 60 digits decide any count below 10^50
            exact = Decimal(self.base.numerator) / Decimal(self.base.denominator)
            density = (exact.ln() * self.power / self.root).exp()
            return total - int(((1 - density) * total).to_integral_value(ROUND_HALF_UP))


@lru_cache(maxsize=4096)
def rooted(base: Fraction, power: int, root: int) -> Density:
    """base ** (power / root) in lowest terms: a plain fraction wherever it is one, so that one density is one text."""
    for k in range(base.denominator.bit_length(), 1, -1):  # (1/4)^(1/4) is (1/2)^(1/2)
        inner = _root(base.numerator, k), _root(base.denominator, k)
        if all(inner):
            base, power = Fraction(*inner), power * k  # type: ignore[arg-type]
            break
    common = math.gcd(power, root)
    power, root = power // common, root // common
    if root == 1:
        return Density(base**power)
    numerator, denominator = _root(base.numerator, root), _root(base.denominator, root)
    if numerator and denominator:
        return Density(Fraction(numerator, denominator) ** power)
    return Density(base, power, root)


def _root(n: int, k: int) -> int | None:
    """The integer k-th root of n, if it is one."""
    guess = round(n ** (1 / k))
    return next((g for g in (guess - 1, guess, guess + 1) if g > 0 and g**k == n), None)


def parse_sparsity(value: object) -> Fraction | int:
    """`sparsity` as exact text: a Fraction in [0, 1), or the n of `level:n`. Raises UserError for anything else."""
    text = str(value).strip()
    if text.startswith("level:"):
        if text[6:].isdecimal():
            return int(text[6:])
        raise UserError(f"sparsity: '{text}' is not level:n with n = 0, 1, 2, ...")
    if isinstance(value, (list, tuple)):
        raise UserError(f"sparsity: {value!r} is a list where one number belongs; -m runs a list, one run a value")
    try:
        sparsity = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"sparsity: '{text}' is not a number with 0 <= s < 1, nor level:n") from None
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity: {text} is not in 0 <= s < 1; it is the share of the prunable weights that goes")
    return sparsity
