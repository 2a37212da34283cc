"""The life of an array element: compute its tasks, say what became of them, come back if it must.

What it prints goes to its log, what became of it into `state/<n>.json`. Its exit code is one of

    0    everything is there                    75   another computes what it needs; requeued
    1    a stage failed                         85   asked to stop: saved, not done (requeued when its time was over)
    4    what it needs failed elsewhere
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lthbench import __version__
from lthbench.base.errors import UserError
from lthbench.base.settings import build
from lthbench.engine.graph import Stage, ancestors
from lthbench.engine.keep import drop, living_plan, register
from lthbench.engine.plan import Goal, plan
from lthbench.engine.runner import Listener, Outcome
from lthbench.engine.store import Store
from lthbench.launch import local, workers
from lthbench.launch.signals import Signals
from lthbench.launch.slurm import NEEDS, SAVED, SLURM_SECONDS, WAITING, Submission, demand_of_text
from lthbench.models import FILES
from lthbench.programs import Experiment, Run, experiment
from lthbench.stages.train import Train

ENDINGS = {0: "done", 1: "failed", NEEDS: "needs", WAITING: "waiting", SAVED: "saved"}


class Element:
    """One line of a submission's elements, with the graphs of the runs it names."""

    def __init__(self, submission: Submission, number: int) -> None:
        self.submission, self.number = submission, number
        FILES.update(submission.job["files"])
        elements = (submission.folder / "elements.jsonl").read_text().splitlines()
        if not 0 <= number < len(elements):
            raise UserError(f"'{submission.folder}' has {len(elements)} elements, no number {number}")
        self.tasks = json.loads(elements[number])["tasks"]
        self.runs = self._graphs({i for task in self.tasks for i in (*task["names"], *task["runs"], *task["shared"])})
        self.stages = {stage.id: stage for stage in ancestors(e.result for e in self.runs.values())}
        lacking = [i for task in self.tasks for i, _ in task["chain"] if i not in self.stages]
        if lacking:
            raise self._other_version()

    def _graphs(self, numbers: set[int]) -> dict[int, Experiment]:
        """The experiments of some of the submission's runs, in order: serial numbers then are in order too."""
        ids = self.submission.run_ids()
        with open(self.submission.folder / "runs.jsonl") as file:
            lines = [line if i in numbers else "" for i, line in enumerate(file)]
        try:
            made = {i: experiment(build(Run, json.loads(lines[i]), "run")) for i in sorted(numbers)}
        except UserError as error:
            raise UserError(f"{self._other_version()} ({error})") from None
        if any(found.id != ids[i] for i, found in made.items()):
            raise self._other_version()
        return made

    def _other_version(self) -> UserError:
        by = self.submission.job["lthbench"]
        return UserError(
            f"'{self.submission.folder}' was written by another lthbench ({by}, this is {__version__}): "
            "what it names is not what this one would compute; submit the command again"
        )

    def goals(self) -> list[Goal]:
        """What its chains are asked for, and the results of the runs that end in it alone."""
        asked = [(self.stages[i], demand_of_text(d)) for task in self.tasks for i, ds in task["chain"] for d in ds]
        return [*asked, *(goal for task in self.tasks for i in task["runs"] for goal in self.runs[i].goals)]

    @property
    def ending(self) -> list[Experiment]:
        """The runs whose results it may compute."""
        return [self.runs[i] for i in sorted({i for task in self.tasks for i in (*task["runs"], *task["shared"])})]

    def ready(self, store: Store) -> list[Goal]:
        """The goals of shared runs of which all trainings are there: then this element was the last."""
        shared = [self.runs[i] for i in sorted({i for task in self.tasks for i in task["shared"]})]
        return [g for e in shared if not any(_trains(w.stage) for w in plan(e.goals, store)) for g in e.goals]

    def everything(self) -> list[Experiment]:
        """All runs of the submission."""
        return list(self._graphs(set(range(len(self.submission.run_ids())))).values())


def _trains(stage: Stage) -> bool:
    return isinstance(stage.settings, Train)


def run(element: Element, listeners: Iterable[Listener], signals: Signals) -> int:
    """Compute an element; returns the exit code, after having it requeued where that is needed."""
    submission, settings = element.submission, element.submission.settings
    folder, number = submission.folder, element.number
    note(folder, number, "running")
    tried: list[str] = []  # failures of this element's own, not found in the store

    def listen(event: str, **facts: Any) -> None:
        if event == "failed":
            tried.append(facts["error"])

    try:
        outcome, store = _compute(element, [*listeners, listen], signals)
    except UserError as error:
        note(folder, number, "failed", code=2, reason=str(error))
        raise
    code = _code(element, outcome, store, bool(tried))
    reason = ""
    if code in (1, NEEDS):
        roots = [(s, r) for s, r in outcome.failed.items() if not r.startswith("needs ")] or [*outcome.failed.items()]
        reason = "; ".join(f"{stage!r}: {text}" for stage, text in roots[:3])
    if code == WAITING:
        reason = "others compute " + ", ".join(sorted(map(repr, outcome.waiting))[:3])
    if code == WAITING or (code == SAVED and signal.SIGUSR2 in signals.received):
        reason = _requeue(settings.requeues) or reason
    note(folder, number, ENDINGS[code], code=code, reason=reason)
    return code


def _compute(element: Element, listeners: Iterable[Listener], signals: Signals) -> tuple[Outcome, Store]:
    job, settings = element.submission.job, element.submission.settings
    config = job["config"]
    out, store, device, threads = Path(config["out"]), Store(config["store"]), config["device"], config["threads"]
    runs = list(element.runs.values())
    told = [*listeners, local.recorder(runs, store, out / "runs", device, threads)]
    graph = list(ancestors(e.result for e in runs))

    def compute(goals: list[Goal]) -> Outcome:
        todo = plan(goals, store)
        jobs = max(1, min(settings.side_by_side, sum(_trains(w.stage) for w in todo)))
        patience = float(settings.patience)
        return workers.run(jobs, goals, todo, store, told, device, job["token"], signals.stop, patience)

    local.prepare(device, threads)
    register(store, out)
    with living_plan(store, graph, f"{job['token']}-{element.number}"):
        outcome = compute(element.goals())
        if not outcome.stopped and (ready := element.ready(store)):
            last = compute(ready)
            outcome.failed |= last.failed
            outcome.waiting |= last.waiting
            outcome.stopped = last.stopped
    return outcome, store


def _code(element: Element, outcome: Outcome, store: Store, tried: bool) -> int:
    if outcome.stopped:
        return SAVED
    if outcome.waiting and plan(element.goals(), store):  # what a worker waited for, its neighbour may have finished
        return WAITING
    if not outcome.failed:
        return 0
    own = {element.stages[ident] for task in element.tasks for ident, _ in task["chain"]}
    own |= {element.runs[i].result for task in element.tasks for i in (*task["runs"], *task["shared"])}
    before = any(s in own and not reason.startswith("needs ") for s, reason in outcome.failed.items())  # it came back
    return 1 if tried or before else NEEDS


def _requeue(most: int) -> str | None:
    """Have Slurm run this element again; the reason if it may not. Slurm starts it some two minutes from now."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return "not on a cluster: nobody runs it again"
    if int(os.environ.get("SLURM_RESTART_COUNT", 0)) >= most:
        return f"came back {most} times (launcher.requeues); the same command goes on from here"
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=SLURM_SECONDS)
    return done.stderr.strip() or None


def finish(element: Element) -> bool:
    """Whether all runs of the submission have results; then, with keep=needed, drop what only led there."""
    config = element.submission.job["config"]
    there = {path.name for path in os.scandir(Path(config["out"]) / "runs")}
    if not all(f"{ident}.json" in there for ident in element.submission.run_ids()):
        return False
    if config["keep"] == "needed":
        runs = element.everything()
        store = Store(config["store"])
        drop(
            store, ancestors(e.result for e in runs), [e.roles["final"] for e in runs], element.submission.job["token"]
        )
    return True


def note(folder: Path, number: int, state: str, **more: Any) -> None:
    """Write an element's own account of itself."""
    value = {
        "state": state,
        "host": socket.gethostname(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
        "at": time.strftime("%Y-%m-%d %H:%M:%S"),
        **more,
    }
    part = folder / "state" / f".{number}.{os.getpid()}"
    part.write_text(json.dumps(value) + "\n")
    os.replace(part, folder / "state" / f"{number}.json")
