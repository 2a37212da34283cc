"""Cut what is missing into tasks for a cluster: chains of trainings that nobody else has to wait inside of.

Only trainings make tasks. What is light (initial weights, masks, evaluations) is computed by whoever comes first of
those that need it, and results by whoever finishes last before them. A training that waits for one other alone, which
nobody else waits for, is joined to it: iterative pruning to one sparsity with its dense run is one chain. Tasks stand
in depths: a task waits for tasks of lesser depth only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lthbench.engine.graph import Stage
from lthbench.engine.plan import Goal, Work
from lthbench.stages.train import Train, end


@dataclass(eq=False)
class Task:
    """A chain of trainings, in order. Runs are given by number.

    `runs` end in this task alone; `shared` end in others as well, and the last of those computes their results.
    `names` are runs whose graphs hold the chain. `after` are jobs of earlier submissions that it waits for.
    """

    chain: list[Work]
    waits_for: set[Task] = field(default_factory=set)
    after: set[str] = field(default_factory=set)
    runs: list[int] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    names: set[int] = field(default_factory=set)
    depth: int = 1

    @property
    def steps(self) -> int:
        """Optimiser steps that are left of the chain."""
        return sum(max(0, max(map(end, w.missing)) - (w.resume or _first(w))) for w in self.chain)


def _first(work: Work) -> int:
    assert isinstance(work.stage.settings, Train)
    return work.stage.settings.first


@dataclass(frozen=True)
class Underway:
    """What a task of an earlier submission, queued or running as `job`, will have computed."""

    job: str
    missing: Mapping[str, frozenset[object]]  # id of a training -> what is asked of it
    results: frozenset[str]  # ids of runs that it ends


def cut(works: Sequence[Work], wanted: Sequence[Sequence[Goal]], underway: Sequence[Underway] = ()) -> list[Task]:
    """Tasks for all that is missing (`works`, in topological order) of the runs' goals (`wanted`, by number).

    What is underway is not cut again; what rests on it waits for its job.
    """
    missing = {work.stage: work for work in works}
    behind = _trainings_behind(works)
    waits = _waits(works, behind)
    lasts = [_lasts(goals, missing, behind, waits) for goals in wanted]
    jobs: dict[Stage, set[str]] = {}  # trainings that jobs underway are at, and those jobs
    taken: set[Stage] = set()  # those of them that give all that is asked
    for work in works:
        for other in underway:
            if (asked := other.missing.get(work.stage.id)) is not None:
                jobs.setdefault(work.stage, set()).add(other.job)
                if work.missing <= asked:
                    taken.add(work.stage)
    task_of = _chains([w for w in works if w.stage in waits and w.stage not in taken], waits, taken)
    tasks = list(dict.fromkeys(task_of.values()))
    for stage, task in task_of.items():
        task.after |= jobs.get(stage, set())
        for before in waits[stage]:
            if before in taken:
                task.after |= jobs[before]
            elif task_of[before] is not task:
                task.waits_for.add(task_of[before])
    tasks += _attach(wanted, lasts, missing, task_of, jobs, underway)
    _name(works, lasts, task_of)
    for task in tasks:  # tasks come after those they wait for
        task.depth = 1 + max((other.depth for other in task.waits_for), default=0)
    return tasks


def _trainings_behind(works: Sequence[Work]) -> dict[Stage, set[Stage]]:
    """For each missing stage, the missing trainings that come right before it, through light stages."""
    behind: dict[Stage, set[Stage]] = {}
    for work in works:
        near: set[Stage] = set()
        for stage, _ in work.inputs_needed:
            if stage in behind:
                near |= {stage} if isinstance(stage.settings, Train) else behind[stage]
        behind[work.stage] = near
    return behind


def _waits(works: Sequence[Work], behind: Mapping[Stage, set[Stage]]) -> dict[Stage, set[Stage]]:
    """For each missing training, those it waits for and that no other of them waits for."""
    waits: dict[Stage, set[Stage]] = {}
    for work in works:
        if isinstance(work.stage.settings, Train):
            waits[work.stage] = _without_implied(behind[work.stage], waits)
    return waits


def _without_implied(near: set[Stage], waits: Mapping[Stage, set[Stage]]) -> set[Stage]:
    """Leave out what an other one of them rests on."""
    if len(near) < 2:
        return near
    lowest = min(stage.serial for stage in near)
    implied: set[Stage] = set()
    todo = [before for stage in near for before in waits[stage]]
    while todo:
        stage = todo.pop()
        if stage not in implied and stage.serial >= lowest:
            implied.add(stage)
            todo.extend(waits[stage])
    return near - implied


def _lasts(
    goals: Iterable[Goal],
    missing: Mapping[Stage, Work],
    behind: Mapping[Stage, set[Stage]],
    waits: Mapping[Stage, set[Stage]],
) -> set[Stage]:
    """The missing trainings after which a run needs none."""
    near: set[Stage] = set()
    for stage, _ in goals:
        if stage in missing:
            near |= {stage} if stage in waits else behind[stage]
    return _without_implied(near, waits)


def _chains(works: Sequence[Work], waits: Mapping[Stage, set[Stage]], taken: set[Stage]) -> dict[Stage, Task]:
    """The task of each training; one is joined to another if it waits for that alone, and it alone waits for that."""
    waited: dict[Stage, int] = {}
    for work in works:
        for before in waits[work.stage]:
            waited[before] = waited.get(before, 0) + 1
    task_of: dict[Stage, Task] = {}
    for work in works:
        one = next(iter(waits[work.stage]), None) if len(waits[work.stage]) == 1 else None
        if one is not None and one not in taken and waited[one] == 1:
            task_of[work.stage] = task_of[one]
            task_of[one].chain.append(work)
        else:
            task_of[work.stage] = Task([work])
    return task_of


def _attach(
    wanted: Sequence[Sequence[Goal]],
    lasts: Sequence[set[Stage]],
    missing: Mapping[Stage, Work],
    task_of: Mapping[Stage, Task],
    jobs: Mapping[Stage, set[str]],
    underway: Sequence[Underway],
) -> list[Task]:
    """Give each run that misses something to the tasks it ends in; returns tasks made for those that end in none."""
    ended = {ident for other in underway for ident in other.results}
    made = []
    for number, goals in enumerate(wanted):
        if all(stage not in missing for stage, _ in goals):
            continue
        ends = {task_of[stage] for stage in lasts[number] if stage in task_of}
        elsewhere = [stage for stage in lasts[number] if stage not in task_of]
        if not elsewhere and ends:
            for task in ends:
                (task.runs if len(ends) == 1 else task.shared).append(number)
        elif ends or goals[-1][0].id not in ended:  # its end is light, or another submission's
            made.append(Task([], ends, {j for s in elsewhere for j in jobs[s]}, [number]))
    return made


def _name(works: Sequence[Work], lasts: Sequence[set[Stage]], task_of: Mapping[Stage, Task]) -> None:
    """Note for each chain a run in whose graph it is."""
    owner: dict[Stage, int] = {}
    for number, stages in enumerate(lasts):
        for stage in stages:
            owner.setdefault(stage, number)
    for work in reversed(works):
        if (holder := owner.get(work.stage)) is None:
            continue
        for stage, _ in work.inputs_needed:
            owner.setdefault(stage, holder)
        if work.stage in task_of:
            task_of[work.stage].names.add(holder)


def pack(tasks: Sequence[Task], steps: int) -> list[list[Task]]:
    """Elements: tasks of one depth that wait for the same jobs, together until they have so many optimiser steps."""
    elements: list[list[Task]] = []
    open_: dict[tuple[int, frozenset[str]], tuple[list[Task], int]] = {}
    for task in tasks:
        key = (task.depth, frozenset(task.after))
        element, filled = open_.get(key, ([], 0))
        if not element or filled + task.steps > steps:
            element, filled = [], 0
            elements.append(element)
        element.append(task)
        open_[key] = (element, filled + task.steps)
    return sorted(elements, key=lambda element: (element[0].depth, sorted(element[0].after)))
