"""Stages and states: names for results, made before anything is computed.

    id = sha256(kind, version, its own settings, ids of its inputs), 32 hexadecimal digits

A `Stage` is an operation; a `State` names a point on a trajectory (what a stage of kind `train` makes). Both
are names: they hold no tensor. Stages are interned by their text, so two programs that describe the same
operation hold the same object, and a stage's serial number is larger than those of its inputs: serial order
is a topological order. This file imports no torch; 10,000 runs are described in seconds.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Union
from weakref import WeakValueDictionary

from lthbench.base.settings import Settings, canonical


@dataclass(frozen=True)
class Best(Settings):
    """The point of a trajectory where `by` is best among the steps every, 2*every, ... up to `until`.

    `by` is `val.loss` (smallest) or `test.accuracy` (largest); the earliest of equals.
    """

    by: str
    every: int
    until: int

    def __str__(self) -> str:
        return f"best-{self.by}-{self.every}-{self.until}"

    @property
    def split(self) -> str:
        return self.by.split(".")[0]


class Stage:
    """An operation with its settings and inputs; `id` names its result.

    `may_be`: of a choice, the stage on the same inputs that it may turn out to be.
    """

    __slots__ = ("__weakref__", "id", "inputs", "kind", "may_be", "serial", "settings", "text")

    kind: str
    settings: Settings
    inputs: Mapping[str, Ref]
    text: str
    id: str
    serial: int
    may_be: Stage | None

    def at(self, step: int | Best) -> State:
        """The state after `step` optimiser steps, counted on the dense schedule (or the best one)."""
        return State(self, step)

    @property
    def stage(self) -> Stage:
        return self

    @property
    def ref(self) -> str:
        return self.id

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """A stage travels between processes that hold the same graph by its name."""
        return _known, (self.id,)

    def __repr__(self) -> str:
        return f"{self.kind} {self.id[:8]}"


@dataclass(frozen=True)
class State:
    """A point of a trajectory: a name, not tensors (those are a `Checkpoint`)."""

    stage: Stage
    step: int | Best

    @property
    def ref(self) -> str:
        return f"{self.stage.id}@{self.step}"


Ref = Union[Stage, State]

_interned: WeakValueDictionary[str, Stage] = WeakValueDictionary()
_serials = itertools.count()


def stage(kind: str, version: int, settings: Settings, inputs: Mapping[str, Ref]) -> Stage:
    """The stage with this description: a new one, or the one that already bears it."""
    refs = ",".join(f'"{role}":"{inputs[role].ref}"' for role in sorted(inputs))
    text = f'{{"inputs":{{{refs}}},"kind":"{kind}","settings":{settings.text},"version":{version}}}'
    ident = name_of(text)
    found = _interned.get(ident)
    if found is None:
        found = Stage()
        found.kind, found.settings, found.inputs, found.text = kind, settings, dict(inputs), text
        found.id, found.may_be = ident, None
        found.serial = next(_serials)
        _interned[ident] = found
    return found


@dataclass(frozen=True)
class Recalled(Settings):
    """In place of the settings of a stage that is known by its text alone."""


def recalled(text: str) -> Stage:
    """A stage by the text that a store keeps: it names a result that is there, and cannot be computed again."""
    found = Stage()
    found.kind, found.settings, found.inputs, found.text = json.loads(text)["kind"], Recalled(), {}, text
    found.id, found.serial, found.may_be = name_of(text), next(_serials), None
    return found


def _known(ident: str) -> Stage:
    return _interned[ident]


def name_of(text: str) -> str:
    """The id of a stage with this text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def ancestors(stages: Iterable[Stage]) -> Iterator[Stage]:
    """Each distinct stage that these rest on, themselves included."""
    seen: set[Stage] = set()
    todo = list(stages)
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            yield current
            todo.extend(ref.stage for ref in current.inputs.values())


__all__ = ["Best", "Recalled", "Ref", "Stage", "State", "ancestors", "canonical", "name_of", "recalled", "stage"]
