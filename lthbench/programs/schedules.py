"""Rounds of prune-and-retrain: what density each round leaves, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings
from lthbench.pruning.density import Density, rooted

SCHEDULES = {
    "oneshot": "one round",
    "iterative": "each round removes `rate` of what is left, the last one less, to hit the target (LTH)",
    "linear": "each round removes `rate` of the original weights, the last one less (BERT tickets)",
    "geometric": "`rounds` rounds with equal factors",
}


@dataclass(frozen=True)
class Schedule(Settings):
    """`rate`: the share of what is left (`linear`: of what there was at first) that a round removes, as exact text;
    `rounds` for `geometric`.

    `until`: how many of the rounds are run, None: all; a run that stops sooner shares them with those that do not.
    """

    name: str
    rate: str = "0.2"
    rounds: int = 1
    until: int | None = None

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise UserError(f"schedule: unknown '{self.name}'{near(self.name, SCHEDULES)}")
        try:
            valid = 0 < Fraction(self.rate) < 1
        except ValueError:
            valid = False
        if not valid:
            raise UserError(f"schedule.rate: '{self.rate}' is not a number in 0 < r < 1")
        for name in ("rounds", "until"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"schedule.{name}: {value} is less than 1")

    def densities(self, target: Fraction | int) -> list[Density]:
        """The density after each round for a sparsity, or for exactly `target` rounds (`level:n`); none: dense.

        Rounds after `until` are left out.
        Iterative densities are (1 - rate)^r, so that a deeper target contains the rounds of a shallower one.
        """
        return self._all(target)[: self.until]

    def _all(self, target: Fraction | int) -> list[Density]:
        rate = Fraction(self.rate)
        stays = 1 - rate
        if isinstance(target, int):
            if self.name == "geometric":
                raise UserError("sparsity=level:n needs schedule=iterative or oneshot; geometric counts its own rounds")
            if self.name == "linear":
                if target * rate >= 1:
                    raise UserError(f"sparsity: {target} rounds of schedule.rate={self.rate} leave nothing")
                return [Density(1 - r * rate) for r in range(1, target + 1)]
            levels = [Density(stays**r) for r in range(1, target + 1)]
            return levels if self.name == "iterative" else levels[-1:]
        density = 1 - target
        if density == 1:
            return []
        if self.name == "oneshot":
            return [Density(density)]
        if self.name == "geometric":
            return [rooted(density, r, self.rounds) for r in range(1, self.rounds + 1)]
        rounds = []
        left = stays
        while left > density:
            rounds.append(Density(left))
            left = left - rate if self.name == "linear" else left * stays
        return [*rounds, Density(density)]
