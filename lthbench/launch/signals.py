"""Slurm's signals, in a module that imports next to nothing: an element listens before it loads what takes long."""

from __future__ import annotations

import multiprocessing
import os
import signal


class Signals:
    """USR2 (time is nearly over) and TERM (preempted, cancelled) turn into a wish to stop."""

    def __init__(self) -> None:
        self.received: set[int] = set()
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: object) -> None:
        self.received.add(number)
        for worker in multiprocessing.active_children():  # forked with this handler, each with a copy of what is here
            assert worker.pid is not None
            os.kill(worker.pid, number)

    def stop(self) -> bool:
        return bool(self.received)
