"""Workers side by side: processes that share one graph and one store, and report to the process that started them.

Workers are forked after everything is checked and planned, so they hold the same graph, the same modules and
the same data without reading anything again. Claims share the work out; the parent only listens.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from typing import Any

from lthbench.base.errors import UserError
from lthbench.engine.graph import ancestors
from lthbench.engine.plan import Goal, Work
from lthbench.engine.runner import Listener, Outcome, Runner, Teller, never
from lthbench.engine.store import Store
from lthbench.stages import KINDS

_OWN = {"planned", "waiting", "finished"}  # events of one worker that say nothing about the command


def default_jobs(device: str) -> int:
    """One worker a core, or one a GPU; one where processes cannot be forked."""
    if not sys.platform.startswith("linux") or device != "cpu":
        return 1
    return len(os.sched_getaffinity(0))


def run(
    jobs: int,
    goals: list[Goal],
    works: list[Work],
    store: Store,
    listeners: Iterable[Listener],
    device: str,
    token: str,
    stop: Callable[[], bool] = never,
    patience: float = math.inf,
) -> Outcome:
    """Compute goals with `jobs` workers; `works` is what is missing. What one leaves when it dies, others take over.

    Workers of one command share its `token`: a stage that fails is tried once. They look at `stop`, and have
    `patience`, each for itself: see Runner.
    """
    if jobs == 1:
        return Runner(store, KINDS, listeners, device, token=token, stop=stop, patience=patience).run(goals)
    if not hasattr(os, "fork"):
        raise UserError("jobs: this system cannot fork processes; use jobs=1")
    workers = [_start(goals, store, device, token, stop, patience) for _ in range(jobs)]
    tell = Teller(listeners)
    tell("planned", works=works)
    try:
        return _listen(workers, Outcome(asked=sum(1 for _ in ancestors(stage for stage, _ in goals))), tell)
    finally:
        for process, connection in workers:
            connection.close()  # a worker whose listener is gone stops at its next word
            process.terminate()
            process.join()


_Worker = tuple[Any, Connection]


def _start(goals: list[Goal], store: Store, *how: Any) -> _Worker:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, here, goals, store, *how), daemon=True)
    process.start()
    there.close()
    return process, here


def _work(
    parent: Connection,
    others: Connection,
    goals: list[Goal],
    store: Store,
    device: str,
    token: str,
    stop: Callable[[], bool],
    patience: float,
) -> None:
    """The life of a worker: run, tell, end."""
    others.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    if stop is never:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def tell(event: str, **facts: Any) -> None:
        try:
            if event not in _OWN:
                parent.send((event, facts))
            elif event == "waiting":
                parent.send((event, {"held": facts["held"]}))
        except (BrokenPipeError, ConnectionResetError):
            sys.exit(1)  # the command is gone, and so are we

    def sleep(seconds: float) -> None:
        if parent.poll(seconds):
            parent.recv()

    outcome = Runner(store, KINDS, [tell], device, token=token, sleep=sleep, stop=stop, patience=patience).run(goals)
    parent.send(("outcome", {"outcome": outcome}))


def _listen(workers: list[_Worker], outcome: Outcome, tell: Teller) -> Outcome:
    """Pass the workers' words on, wake those that wait when something is done, and add up what they did."""
    living = {connection: process for process, connection in workers}
    waiting: set[Connection] = set()
    ended = 0
    while living:
        for ready in wait(list(living)):
            assert isinstance(ready, Connection)
            try:
                event, facts = ready.recv()
            except (EOFError, ConnectionResetError):
                living.pop(ready).join()
                waiting.discard(ready)
                continue
            if event == "waiting":
                waiting.add(ready)
                if len(waiting) == len(living):
                    tell(event, **facts)
            elif event == "outcome":
                ended += 1
                outcome.computed |= facts["outcome"].computed
                outcome.failed |= facts["outcome"].failed
                outcome.stopped |= facts["outcome"].stopped
                outcome.waiting |= facts["outcome"].waiting
            else:
                tell(event, **facts)
            if event in ("end", "failed", "outcome"):
                _wake(waiting)
    if ended < len(workers):
        died = [str(process.exitcode) for process, _ in workers if process.exitcode]
        tell("died", exitcodes=died)
        if not ended:
            raise UserError(f"all workers died (exit codes {', '.join(died)}); the same command goes on from here")
    tell("finished", outcome=outcome)
    return outcome


def _wake(waiting: set[Connection]) -> None:
    for connection in waiting:
        try:
            connection.send(None)
        except (BrokenPipeError, ConnectionResetError):
            pass  # its end is read in its turn
    waiting.clear()
