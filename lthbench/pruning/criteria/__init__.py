"""Criteria: what makes a weight worth keeping. One file each; a file dropped in here is found.

A criterion is a function `(net: Subject, **settings) -> {name: score}` with one score for each prunable
weight, larger = kept. It leaves the network, its gradients and buffers and all generators as it found them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Subject:
    """What a criterion looks at.

    weights: the prunable weights by name. mask: which of them are still there (bool, True = kept).
    generator: the stream (seed, score) of the run, for criteria with `random=True`; else None.
    """

    model: nn.Module
    weights: Mapping[str, Tensor]
    mask: Mapping[str, Tensor]
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class Criterion:
    """A registered criterion; `random`: its scores depend on the seed."""

    name: str
    version: int
    score: Callable[..., dict[str, Tensor]]
    random: bool
    what: str


CRITERIA: dict[str, Criterion] = {}


def criterion(name: str, *, version: int, random: bool = False) -> Callable[[Any], Any]:
    """Register the decorated function; raise `version` when its numbers change."""

    def register(score: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
        CRITERIA[name] = Criterion(name, version, score, random, (score.__doc__ or "").strip().splitlines()[0])
        return score

    return register


@dataclass(frozen=True)
class CriterionSettings(Settings):
    """What names a criterion in an id: name, version, its own settings, and the seed if it draws."""

    name: str
    version: int
    args: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None

    @classmethod
    def of(cls, name: str, args: Mapping[str, Any], seed: int) -> CriterionSettings:
        """Settings of a registered criterion. Raises UserError for an unknown name."""
        if name not in CRITERIA:
            raise UserError(f"unknown criterion '{name}'{near(name, CRITERIA)}")
        known = CRITERIA[name]
        return cls(name, known.version, dict(args), seed if known.random else None)

    def __hash__(self) -> int:
        return hash(self.text)


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
