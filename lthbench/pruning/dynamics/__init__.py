"""Masks that change while the network is trained. One file each; a file dropped in here is found.

A method is a class that the training loop talks to (`Dynamics` in lthbench/training/loop.py). Its constructor takes
what it works on and its settings, among them places in steps: `begin`, `end` and `every`. There are two kinds:
what is pruned is zero until the mask changes (`Zeroed`), or the mask is made of trained scores, over weights that
stay as they are (`Scored`). Of the first kind are those that look for the step at which to prune once (`Early`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, coerce, later
from lthbench.pruning.allocation import Allocation, fits
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.scoring import Scoring
from lthbench.pruning.structure import Structure

UNITS = ("ratio", "epoch", "iteration")
PLACES = {"begin": "unit", "end": "unit", "every": "every_unit"}  # settings that become steps, and what counts them
RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {  # what settings may be, in words and as a rule
    "fraction": ("in 0 < f <= 1", lambda f: 0 < f <= 1),
    "initial": ("a number in 0 <= s < 1", lambda text: fits(text, lambda s: 0 <= s < 1)),
    "threshold": ("in 0 < t < 1", lambda t: 0 < t < 1),
    "floor": ("in 0 <= f <= 1", lambda f: 0 <= f <= 1),
    "penalty": ("at least 0", lambda p: p >= 0),
    "score_optimizer": ("adam or sgd", lambda name: name in ("adam", "sgd")),
    "score_lr": ("at least 0", lambda lr: lr >= 0),
    "score_decay": ("at least 0", lambda decay: decay >= 0),
    "epsilon": ("in 0 < e < 1", lambda e: 0 < e < 1),
    "queue": ("at least 1", lambda count: count >= 1),
    "compare": ("previous or all", lambda name: name in ("previous", "all")),
    "forgotten": ("at least 0", lambda count: count >= 0),
    "tau": ("in 0 <= t < 1", lambda t: 0 <= t < 1),
    "reference": ("start or first", lambda name: name in ("start", "first")),
}


@dataclass(frozen=True)
class Sparsify(Settings):
    """How a training run changes its mask: a method with its settings, in steps, and what it leaves in the end.

    `density` is the share of the prunable weights that stays, as exact text. It and `allocation` are None where how
    much stays is an outcome. `scoring`: the images it looks at, if any. `structure`: what goes together.
    """

    method: CriterionSettings
    prunable: str
    allocation: Allocation | None
    density: str | None
    scoring: Scoring | None = later(None)
    structure: Structure | None = later(None)


@dataclass(frozen=True)
class Method:
    """A registered method. `outcome`: its settings decide how much stays, not `sparsity`. `frozen`: weights are not
    trained. `late`: until `begin` the run is the dense one. `settles`: from `end` on the mask stays. `early`: it looks
    for the step to prune at, and says when. `rounds`: it prunes in several, each a search. `data`: it scores with
    images. `structures`: what may go together, None: single weights."""

    name: str
    version: int
    make: Any
    what: str
    outcome: bool
    frozen: bool
    late: bool
    settles: bool
    early: bool
    rounds: bool
    data: bool
    structures: tuple[str | None, ...]

    def settings(self, said: Mapping[str, Any], steps: int, per_epoch: int) -> CriterionSettings:
        """What the configuration says, its places in steps. Raises UserError for what does not fit the training."""
        known = {k: p for k, p in inspect.signature(self.make).parameters.items() if k not in ("net", "kept")}
        args: dict[str, Any] = {}
        for key, value in said.items():
            if key in PLACES and key in known:
                args[key] = _steps(key, value, said.get(PLACES[key], "ratio"), steps, per_epoch)
            elif key in known:
                hint = {"int": int, "float": float, "bool": bool, "str": str}[str(known[key].annotation)]
                args[key] = coerce(value, hint, f"pruner.{key}")
            elif key not in PLACES.values():
                raise UserError(f"unknown key 'pruner.{key}'{near(key, known)}")
        if missing := next((k for k, p in known.items() if k not in args and p.default is p.empty), None):
            raise UserError(f"pruner.{missing} is missing")
        for key, (words, rule) in RULES.items():
            if key in args and not rule(args[key]):
                raise UserError(f"pruner.{key}: {args[key]} is not {words}")
        if "initial" in args:
            args["initial"] = str(Fraction(args["initial"]))  # one spelling
        if "end" not in args and args.get("begin", 0) > steps:
            raise UserError(f"pruner.begin: {_said(said, 'begin')} is step {args['begin']}; training ends at {steps}")
        if args.get("begin", 0) > args.get("end", steps):
            raise UserError(
                f"pruner.end: {_said(said, 'end')} is step {args['end']}, before pruner.begin at step {args['begin']}"
            )
        if args.get("end", 0) > steps:
            raise UserError(f"pruner.end: {_said(said, 'end')} is step {args['end']}; training ends at {steps}")
        return CriterionSettings(self.name, self.version, args)


METHODS: dict[str, Method] = {}


def method(
    name: str,
    *,
    version: int,
    outcome: bool = False,
    frozen: bool = False,
    late: bool = False,
    settles: bool = False,
    early: bool = False,
    rounds: bool = False,
    data: bool = False,
    structures: tuple[str | None, ...] = (None,),
) -> Callable[[Any], Any]:
    """Register the decorated class; raise `version` when its numbers change."""

    def register(make: Any) -> Any:
        what = (inspect.getdoc(make) or "").splitlines()[0]
        how = (outcome, frozen, late, settles, early, rounds, data, structures)
        METHODS[name] = Method(name, version, make, what, *how)
        return make

    return register


def method_of(name: str, program: str) -> Method | None:
    """The method of this name; None for a criterion, which is used in another program. Raises UserError otherwise."""
    if name not in METHODS:
        if program == "during_training":
            raise UserError(f"pruner.program={program} needs a method that prunes while training{near(name, METHODS)}")
        return None
    if program != "during_training":
        raise UserError(f"pruner.program={program}: {name} prunes while training (during_training)")
    return METHODS[name]


def left(step: int, begin: int, end: int) -> Fraction:
    """The share of the way from `begin` to `end` that is left at a step, cubed (Zhu and Gupta 2017, equation 1)."""
    if step >= end:
        return Fraction(0)
    return (1 - Fraction(max(0, step - begin), end - begin)) ** 3


def _steps(key: str, value: Any, unit: Any, steps: int, per_epoch: int) -> int:
    """A place or a distance in steps; a distance is at least one."""
    where = PLACES[key]
    if unit not in UNITS:
        raise UserError(f"pruner.{where}: unknown choice '{unit}'{near(unit, UNITS)}")
    number = coerce(value, float, f"pruner.{key}")
    if number < 0 or (key == "every" and not number):
        raise UserError(f"pruner.{key}: {value} is {'not positive' if key == 'every' else 'negative'}")
    found = round(number * {"ratio": steps, "epoch": per_epoch, "iteration": 1}[unit])
    return max(1, found) if key == "every" else found


def _said(said: Mapping[str, Any], key: str) -> str:
    return f"{said[key]:g} {said.get(PLACES[key], 'ratio')}"


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
