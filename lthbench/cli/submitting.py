"""`launcher=slurm`: a grid becomes job arrays, and the command returns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lthbench.base.errors import UserError
from lthbench.cli.grid import Grid
from lthbench.engine.plan import plan
from lthbench.engine.store import Store
from lthbench.launch import local, slurm_submit
from lthbench.launch.slurm import SlurmSettings, Submission, submissions
from lthbench.launch.slurm_state import STATES, queue, states, underway
from lthbench.launch.tasks import Task, cut

WAIT_SECONDS = 5.0  # how often a command that waits looks
ON_THEIR_WAY = {"queued", "requeued", "running"}


def submit(grid: Grid, store: Store, out: Path, command: dict[str, Any]) -> int | None:
    """Submit what is missing of a grid and not on its way already, or only write it (launcher.dry_run).

    `command` is what `expand` needs to make the grid again. Returns the exit code, or None where everything is there.
    """
    settings = SlurmSettings.of(grid.config["launcher"])
    goals = [e.goals for e in grid.experiments]
    works = plan([goal for each in goals for goal in each], store)
    if not works:
        return None
    missing = {work.stage for work in works}
    earlier = submissions(out)
    known = queue([s.job["user"] for s in earlier]) if earlier else {}
    made = cut(works, goals, underway(earlier, known or {}))
    if made:
        earlier.append(_submit(grid, made, settings, store, out, command))
    else:
        print("slurm: all that is missing is queued or running")
    there = [e for e in grid.experiments if all(stage not in missing for stage, _ in e.goals)]
    local.run(there, store, out)  # computes nothing: it writes the JSONs that are not there yet
    print(f"what becomes of it: python -m lthbench jobs out={out}")
    if not settings.wait or settings.dry_run:
        return 0
    counts = _wait(earlier)
    return 1 if counts["failed"] or counts["lost"] or plan([g for each in goals for g in each], store) else None


def _submit(
    grid: Grid, made: Sequence[Task], settings: SlurmSettings, store: Store, out: Path, command: dict[str, Any]
) -> Submission:
    array_limit, room = slurm_submit.limits(settings)
    if not settings.dry_run and (kind := slurm_submit.on_this_machine_only(out)):
        _say(f"out: '{out}' is on this machine's own disk ({kind}): the cluster's nodes may not see it")
    config = {key: grid.config[key] for key in ("device", "threads", "keep", "tracking", "launcher")}
    config |= {"out": str(out.absolute()), "store": str(store.root.absolute())}
    written = slurm_submit.prepare(out, grid.name, config, command, grid.experiments, made, array_limit, room)
    counts = f"{len(made)} tasks in {len(written.elements())} elements"
    if settings.dry_run:
        print(f"slurm: {counts}, written and not submitted: {written.folder / 'submit.sh'}")
    else:
        print(f"slurm: {counts}, jobs {' '.join(slurm_submit.submit(written))}")
    return written


def _wait(waited: Sequence[Submission]) -> Counter[str]:
    """Stay until no element is queued or running; says how far it is whenever that changes."""
    said = ""
    while True:
        known = queue([s.job["user"] for s in waited])
        if known is None:
            raise UserError("launcher.wait: squeue does not answer; the jobs go on: python -m lthbench jobs")
        counts = Counter(each.state for s in waited for each in states(s, known))
        if (now := counted(counts.elements())) != said:
            _say(now)
            said = now
        if not counts.keys() & ON_THEIR_WAY:
            return Counter(each.state for each in states(waited[-1], known))
        time.sleep(WAIT_SECONDS)


def _say(text: str) -> None:
    from lthbench.cli.execute import say

    say(text)


def counted(states: Iterable[str]) -> str:
    """How many elements are in each state, in words."""
    counts = Counter(states)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
