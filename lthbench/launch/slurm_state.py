"""What has become of a submission: by Slurm's queue, and by the elements' own accounts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from lthbench.launch.slurm import SLURM_SECONDS, Submission, demand_of_text
from lthbench.launch.tasks import Underway

Queue = dict[tuple[str, int], tuple[str, str]]  # (array's job id, index) -> state and reason, in Slurm's words
ALIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "RESIZING",
         "REQUEUE_FED", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT"}  # fmt: skip
WAITS = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "CONFIGURING", "SPECIAL_EXIT"}
STATES = ("queued", "requeued", "running", "done", "failed", "lost")


@dataclass(frozen=True)
class ElementState:
    """`state` is one of STATES; `lost`: not done, and Slurm runs it no more (or nobody can ask Slurm)."""

    number: int
    job: str | None
    state: str
    restarts: int
    reason: str


def queue(users: Sequence[str]) -> Queue | None:
    """All array elements of these users that Slurm knows of; None where it cannot be asked."""
    words = ["squeue", "-h", "-r", "-t", "all", "-u", ",".join(sorted(set(users))), "-o", "%F|%K|%T|%r"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=SLURM_SECONDS)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    if said.returncode:
        return None
    found: Queue = {}
    for line in said.stdout.splitlines():
        job, index, state, reason = line.split("|", 3)
        if index.isdigit():
            found[job, int(index)] = (state, "" if reason in ("None", "BeginTime") else reason)
    return found


def states(submission: Submission, known: Queue | None) -> list[ElementState]:
    """The state of each element that was submitted, in order."""
    return [
        _state(submission, first + index, job, index, known)
        for job, first, count in submission.jobs()
        for index in range(count)
    ]


def _state(submission: Submission, number: int, job: str, index: int, known: Queue | None) -> ElementState:
    try:
        own = json.loads((submission.folder / "state" / f"{number}.json").read_text())
    except FileNotFoundError:
        own = {"state": "queued", "restarts": 0}
    state, reason = known.get((job, index), ("", "")) if known is not None else ("", "Slurm cannot be asked")
    restarts, said = own["restarts"], own["state"]

    def is_(what: str, why: str) -> ElementState:
        return ElementState(number, f"{job}_{index}", what, restarts, why)

    if state in WAITS or (state == "COMPLETING" and said in ("saved", "waiting")):
        came_back = said != "queued"
        return is_("requeued" if came_back else "queued", own.get("reason") or reason if came_back else reason)
    if state in ALIVE:
        return is_("running", "")
    if said == "done":
        return is_("done", "")
    if said in ("failed", "needs", "waiting"):
        return is_("failed", own["reason"])
    how = state.lower().replace("_", " ") or reason or "no longer in the queue"
    told = own.get("reason") if state in ("", "FAILED") else None  # what Slurm did to it since, it cannot know
    return is_("lost", told or f"{how}; the same command goes on from here")


def underway(submissions: Sequence[Submission], known: Queue) -> list[Underway]:
    """What is queued or running of earlier submissions, so that it is not submitted twice."""
    found = []
    for submission in submissions:
        elements = submission.elements()
        ids = submission.run_ids()
        for each in states(submission, known):
            if each.state in ("queued", "requeued", "running"):
                assert each.job is not None
                tasks = elements[each.number]["tasks"]
                asked = {i: frozenset(map(demand_of_text, ds)) for task in tasks for i, ds in task["chain"]}
                ends = frozenset(ids[i] for task in tasks for i in (*task["runs"], *task["shared"]))
                found.append(Underway(each.job, asked, ends))
    return found
