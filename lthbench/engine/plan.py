"""What is missing: walk from the results that are asked for towards what the store already holds.

Planning runs backwards, so what exists hides everything behind it: a state that was dropped on purpose is
only recomputed when something that is missing needs it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from lthbench.engine.graph import Stage
from lthbench.engine.store import Demand, Output, Store, demand_of
from lthbench.engine.twins import Twins

Goal = tuple[Stage, Demand]


@dataclass(frozen=True)
class Work:
    """One stage to compute: what of it is missing, and from which step a trajectory goes on (None: its start).

    `twin`: the trajectory of which it is taken over. `after`: what tells whether there is one.
    """

    stage: Stage
    missing: frozenset[Demand]
    resume: int | None
    twin: Stage | None = None
    after: tuple[Stage, ...] = ()

    @property
    def inputs_needed(self) -> list[Goal]:
        needed: list[Goal] = [(stage, Output()) for stage in self.after]
        if self.twin is not None:
            needed += [(self.twin, demand) for demand in self.missing]
        inputs = self.stage.inputs.items()
        if self.resume is not None:  # it goes on from its own state: whoever teaches, and which images, is in none
            inputs = {role: ref for role, ref in inputs if role in ("teacher", "examples")}.items()
        return [(ref.stage, demand_of(ref, full=role == "moments")) for role, ref in inputs] + needed


def plan(goals: Iterable[Goal], store: Store, twins: Twins | None = None) -> list[Work]:
    """The work that the goals still need, in an order in which every input comes before its consumers.

    Without `twins` every stage is computed for itself.
    """
    wanted: dict[Stage, set[Demand]] = {}
    heap: list[tuple[int, Stage]] = []

    def ask(stage: Stage, demand: Demand) -> None:
        if stage not in wanted:
            wanted[stage] = set()
            heapq.heappush(heap, (-stage.serial, stage))
        wanted[stage].add(demand)

    for stage, demand in goals:
        ask(stage, demand)
    todo = []
    while heap:  # highest serial first: all consumers of a stage have spoken before it is looked at
        stage = heapq.heappop(heap)[1]
        missing = {demand for demand in wanted[stage] if not store.has(stage, demand)}
        if not missing:
            continue
        resume = None if missing == {Output()} else store.resumable(stage, missing)
        twin, after = twins.of(stage) if twins else (None, [])
        work = Work(stage, frozenset(missing), resume, twin, tuple(after))
        todo.append(work)
        for needed in work.inputs_needed:
            ask(*needed)
    return todo[::-1]
