"""Several retrainings of one pruned network, and what is made of them (Zimmer et al. 2024, arXiv 2306.16788)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.base.seeds import derive
from lthbench.base.settings import Settings, coerce
from lthbench.programs.retraining import Retrain
from lthbench.soups.settings import ACCEPTS, RECALIBRATIONS
from lthbench.training.schedules import RETRAINS

SOUPS = {
    "none": "one network a round, nothing is averaged (IMP)",
    "uniform": "the mean of all candidates, round after round",
    "greedy": "the mean of those that do not harm it on validation images, best first",
    "best": "of the last round's candidates the one best on validation images; rounds before average all",
    "mean": "the mean of the last round's candidates' results; rounds before average all",
    "ensemble": "the last round's candidates' mean prediction; rounds before average all",
    "instability": "two copies from step k on, in another order of data, and the line between them (LMC)",
    "reprune": "m runs of their own; their mean is pruned again, since it has lost sparsity",
}
CHOOSING = ("greedy", "best")  # by validation images
VARIED = {  # what is varied: the field of Retrain, and whether it is drawn by orders of magnitude
    "seed": ("", False),
    "weight_decay": ("weight_decay", True),
    "retrain_length": ("epochs", False),
    "lr": ("lr", True),
    "retrain_schedule": ("name", False),
}


@dataclass(frozen=True)
class Soup(Settings):
    """`m` candidates a round that differ in what `vary` says, and in nothing else.

    Copy j takes `values[j]`; or copy 0 is as the run says and the others are drawn between the two numbers of `draw`
    (by orders of magnitude for lr and weight_decay). `accept` is greedy's rule: a candidate stays if the soup
    with it is better (`gt`) or no worse (`ge`). Instability measures `points` of the line on `splits`.
    """

    name: str = "none"
    m: int = 1
    vary: str = "seed"
    values: tuple[Any, ...] = ()
    draw: tuple[float, ...] = ()
    accept: str = "ge"
    points: int = 30
    splits: tuple[str, ...] = ("train", "test")

    def __post_init__(self) -> None:
        for value, known, where in (
            (self.name, tuple(SOUPS), "soup"),
            (self.vary, tuple(VARIED), "soup.vary"),
            (self.accept, ACCEPTS, "soup.accept"),
        ):
            if value not in known:
                raise UserError(f"{where}: unknown choice '{value}'{near(value, known)}")
        if self.m < 1:
            raise UserError(f"soup.m: {self.m} is less than 1")
        if self.name == "instability" and (self.m, self.vary) != (2, "seed"):
            raise UserError("soup=instability compares two copies that differ in seed: soup.m=2 soup.vary=seed")
        if self.points < 2:
            raise UserError(f"soup.points: {self.points} is less than 2, the ends of the line")
        if not self.splits:
            raise UserError("soup.splits: name at least one of train, val, test")
        if self.name != "none":
            self._check_values()

    @property
    def averages(self) -> bool:
        """Whether it stands beside averages, whose BatchNorm needs new statistics."""
        return self.name not in ("none", "instability")

    def _check_values(self) -> None:
        if self.vary == "seed":
            if self.values or self.draw:
                raise UserError("soup.values, soup.draw: seeds are told by soup.m alone; name another soup.vary")
            return
        if bool(self.values) == bool(self.draw):
            raise UserError(f"soup.vary={self.vary} needs soup.values (one for each copy) or soup.draw (two bounds)")
        if self.values and len(self.values) < self.m:
            raise UserError(f"soup.values: {len(self.values)} values for soup.m={self.m} copies")
        if self.draw and self.vary == "retrain_schedule":
            raise UserError("soup.vary=retrain_schedule needs soup.values: schedules are named, not drawn")
        if self.draw and not (len(self.draw) == 2 and 0 < self.draw[0] <= self.draw[1]):
            raise UserError(f"soup.draw: {list(self.draw)} is not a lower and an upper bound above 0")

    def copies(self, how: Retrain, seed: int) -> list[Retrain]:
        """How each copy is retrained."""
        field, orders = VARIED[self.vary]
        if self.name == "none":
            return [how]
        if not field:
            return [how] * self.m
        if self.values:
            kind = str if field == "name" else float
            values = [coerce(v, kind, f"soup.values[{j}]") for j, v in enumerate(self.values[: self.m])]
            for value in values if field == "name" else ():
                if value not in RETRAINS:
                    raise UserError(f"soup.values: unknown schedule '{value}'{near(value, RETRAINS)}")
            return [_varied(how, field, value) for value in values]
        drawn = [how]
        for copy in range(1, self.m):
            share = derive(seed, "soup", copy) / 2**63
            low, high = map(math.log, self.draw) if orders else self.draw
            value = low + share * (high - low)
            drawn.append(_varied(how, field, float(f"{math.exp(value) if orders else value:.4g}")))
        return drawn


@dataclass(frozen=True)
class Recalibration(Settings):
    """Whether BatchNorm's statistics are made anew; `default`: as SMS does for soups, not at all otherwise."""

    how: str = "default"
    share: float = 1.0

    def __post_init__(self) -> None:
        known = ("default", *RECALIBRATIONS)
        if self.how not in known:
            raise UserError(f"recalibrate.how: unknown choice '{self.how}'{near(self.how, known)}")
        if not 0 < self.share <= 1:
            raise UserError(f"recalibrate.share: {self.share} is not in 0 < share <= 1")


def _varied(how: Retrain, field: str, value: Any) -> Retrain:
    """One copy; a length of its own stands in place of one shared by all rounds."""
    changes: dict[str, Any] = {field: value}
    return replace(how, **changes | ({"total": None} if field == "epochs" else {}))
