"""Criteria: what makes a weight worth keeping. One file each; a file dropped in here is found.

A criterion is a function `(net: Subject, **settings) -> {name: score}` with one score for each prunable
weight, larger = kept; one that also moves what stays (`updates=True`) gives `(scores, update)`, with `update(mask)` the
new values of all prunable weights. It leaves the weights, their gradients and all generators as it found them; the
network is a private copy, whose BatchNorm statistics may move.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, later

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lthbench.pruning.scoring import Scoring


class Undeclared:
    """In place of what a criterion did not say it looks at: any use explains how to say it."""

    def __init__(self, name: str, what: str, word: str) -> None:
        self._say = f"criterion {name} looks at {what}: say @criterion(..., {word}=True)"

    def _refuse(self, *_: object) -> Any:
        raise ValueError(self._say)

    __getitem__ = __iter__ = __len__ = __bool__ = _refuse

    def __getattr__(self, _: str) -> Any:
        return self._refuse()


@dataclass(frozen=True)
class Subject:
    """What a criterion looks at: a private copy of the network, as the mask leaves it.

    shape: (channels, height, width) of one input. weights: the prunable parameters by name, zero where pruned.
    mask: which are still there (bool, True = kept). original: their values before any mask of this pruning.
    batches: scoring batches, images (B, C, H, W) and labels (B,), for criteria with `data=True`. initial: the
    values at initialisation, for criteria with `initial=True`. generator: the stream (seed, score), for criteria
    with `random=True`.
    """

    model: nn.Module
    shape: tuple[int, ...]
    weights: Mapping[str, Tensor]
    mask: Mapping[str, Tensor]
    original: Mapping[str, Tensor]
    batches: Sequence[tuple[Tensor, Tensor]] = ()
    initial: Mapping[str, Tensor] | None = None
    generator: torch.Generator | None = None

    def gradient(self, batches: Sequence[tuple[Tensor, Tensor]] | None = None) -> dict[str, Tensor]:
        """The gradient of the mean cross-entropy over the batches (default all), by weight; however they are split,
        the same."""
        import torch
        from torch.nn.functional import cross_entropy

        batches = self.batches if batches is None else batches
        images = sum(len(y) for _, y in batches)
        total = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        for x, y in batches:
            loss = cross_entropy(self.model(x), y, reduction="sum") / images
            grads = torch.autograd.grad(loss, list(self.weights.values()))
            for name, g in zip(self.weights, grads):
                total[name] += g
        return total


Check = Callable[[Mapping[str, Any], "Scoring"], None]


def unchecked(settings: Mapping[str, Any], how: Scoring) -> None:
    """Whatever is said means something."""


@dataclass(frozen=True)
class Criterion:
    """A registered criterion. `random`: its scores depend on the seed; `data`: on images; `initial`: on the
    initial weights too. `updates`: it gives scores and a function from the mask chosen by them to new weights.
    `later`: settings that came after ids existed, in none while they have the function's default. `check` raises a
    UserError for settings, of its own or of how it is scored, that mean nothing."""

    name: str
    version: int
    score: Callable[..., Any]
    what: str
    random: bool
    data: bool
    initial: bool
    updates: bool
    later: frozenset[str]
    check: Check

    def look(self, net: Subject, **settings: Any) -> tuple[dict[str, Tensor], Update | None]:
        """Scores, and how what stays is changed once the mask is chosen, if it is."""
        scores, update = self.score(net, **settings) if self.updates else (self.score(net, **settings), None)
        for name, weight in net.weights.items():
            if name not in scores or scores[name].shape != weight.shape:
                raise ValueError(f"criterion {self.name} gives no score of shape {tuple(weight.shape)} for {name}")
        return scores, update


Update = Callable[[Mapping[str, "Tensor"]], "dict[str, Tensor]"]
CRITERIA: dict[str, Criterion] = {}
OWN: dict[str, Criterion] = {}  # the users' own, by the sha256 of their files: see lthbench/pruning/own.py


def criterion(
    name: str,
    *,
    version: int = 0,
    random: bool = False,
    data: bool = False,
    initial: bool = False,
    updates: bool = False,
    later: Iterable[str] = (),
    check: Check = unchecked,
) -> Callable[[Any], Any]:
    """Register the decorated function; raise `version` when its numbers change (a file of one's own has none: its
    content names it)."""

    def register(score: Callable[..., Any]) -> Callable[..., Any]:
        what = ((score.__doc__ or "").strip().splitlines() or [""])[0]
        made = Criterion(name, version, score, what, random, data, initial, updates, frozenset(later), check)
        score.criterion = made  # type: ignore[attr-defined]
        if score.__module__.startswith(__name__):  # a file of one's own hides nothing that is here
            CRITERIA[name] = made
        return score

    return register


LABELS = {"all": "Gauss-Newton", "given": "empirical Fisher"}  # whose curvature; see lthbench/pruning/curvature.py


def check_curvature(settings: Mapping[str, Any], how: Scoring) -> None:
    """Raise a UserError where the gradients of single images cannot be had."""
    if settings.get("labels", "all") not in LABELS:
        raise UserError(f"pruner.labels: unknown choice '{settings['labels']}'{near(settings['labels'], LABELS)}")
    if how.mode != "eval":
        raise UserError("pruner.mode: gradients of single images need eval")


@dataclass(frozen=True)
class CriterionSettings(Settings):
    """What names a criterion in an id: name, version, its own settings, and the seed if it draws; of a user's own
    the `source`, its file's sha256."""

    name: str
    version: int
    args: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    source: str | None = later(None)

    @classmethod
    def of(cls, name: str, args: Mapping[str, Any], seed: int) -> CriterionSettings:
        """Settings of a registered criterion. Raises UserError for an unknown name."""
        if name not in CRITERIA:
            raise UserError(f"unknown criterion '{name}'{near(name, CRITERIA)}")
        known = CRITERIA[name]
        parameters = inspect.signature(known.score).parameters
        said = {k: v for k, v in args.items() if k not in known.later or v != parameters[k].default}
        return cls(name, known.version, said, seed if known.random else None)

    @property
    def known(self) -> Criterion:
        """The registered criterion that these settings name."""
        return OWN[self.source] if self.source else CRITERIA[self.name]

    def __hash__(self) -> int:
        return hash(self.text)


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
