"""Twins: trainings that turn out to be the same one under two names.

What a choice makes is known only when it is made: a greedy soup that keeps all candidates is the uniform soup, to the
bit, under a name of its own, and so is what is trained from there on. Where a graph asks for both, the one training
takes over what the other has made. Names stay as they are, and what is in the store is what computing would have made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lthbench.engine.graph import Ref, Stage, State, stage
from lthbench.engine.store import At, Demand, Output, Store, moments_file, state_file


@dataclass(frozen=True)
class Twin:
    """`other` has the same result as a stage, if the two of each of the `pairs` have come out the same."""

    other: Stage
    pairs: tuple[tuple[Stage, Stage], ...]


class Twins:
    """Which stages of a graph may be others of it, and by what is in the store whether they are."""

    def __init__(self, asked: Iterable[Stage], store: Store) -> None:
        self.store = store
        self._twins = _twins(list(asked))
        self._same: dict[tuple[Stage, Stage], bool] = {}

    def of(self, stage: Stage) -> tuple[Stage | None, list[Stage]]:
        """The stage that this one is, or None; and what has to be there before that is known."""
        if (twin := self._twins.get(stage)) is None:
            return None, []
        unknown = []
        for pair in twin.pairs:
            if pair not in self._same:
                if lacking := [each for each in pair if not self.store.has(each, Output())]:
                    unknown += lacking
                    continue
                self._same[pair] = _alike(*(self.store.read(each.id, "out.safetensors")[0] for each in pair))
            if not self._same[pair]:
                return None, []
        return (None, unknown) if unknown else (twin.other, [])


def take_over(stage: Stage, missing: Iterable[Demand], twin: Stage, store: Store) -> None:
    """Write what is missing of a trajectory from its twin, which has it."""
    there = store.names(twin.id)
    if curve := store.curve(twin.id):
        store.extend_curve(stage, curve)  # before the states: no state is ahead of its curve
    for step in (demand.step for demand in missing if isinstance(demand, At)):
        moments = [moments_file(step)] if isinstance(step, int) else []
        for name in [*moments, state_file(step)]:
            if name in there:
                store.write(stage, name, *store.read(twin.id, name))


def _twins(asked: list[Stage]) -> dict[Stage, Twin]:
    """The trajectories that would be others of the graph, were every choice what it may be."""
    if not any(each.may_be for each in asked):
        return {}
    moved: dict[Stage, Twin] = {}
    for each in sorted(asked, key=lambda s: s.serial):
        below = {ref.stage: moved[ref.stage] for ref in each.inputs.values() if ref.stage in moved}
        if below or each.may_be:
            other = _on(each.may_be or each, below)
            pairs = dict.fromkeys(pair for twin in below.values() for pair in twin.pairs)
            own = {(each, other): None} if each.may_be else {}
            moved[each] = Twin(other, tuple(pairs | own))
    there = set(asked)
    trained = {ref.stage for each in asked for ref in each.inputs.values() if isinstance(ref, State)}
    return {each: twin for each, twin in moved.items() if each in trained and twin.other in there}


def _on(of: Stage, below: Mapping[Stage, Twin]) -> Stage:
    """The same operation on other inputs; those with a number are a set, in the order of their names."""
    inputs: dict[str, Ref] = {}
    for role, ref in of.inputs.items():
        other = below[ref.stage].other if ref.stage in below else ref.stage
        inputs[role] = other.at(ref.step) if isinstance(ref, State) else other
    numbered = sorted(role for role in inputs if re.search(r" \d+$", role))
    inputs |= zip(numbered, sorted((inputs[role] for role in numbered), key=lambda ref: ref.ref))
    return stage(of.kind, json.loads(of.text)["version"], of.settings, inputs)


def _alike(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two states hold the same tensors."""
    import torch

    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)  # type: ignore[arg-type]
