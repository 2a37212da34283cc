"""Progress in the terminal: stages and epochs done, time left. Lines instead of a bar where nobody watches."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lthbench.engine.claims import EXPIRY_SECONDS
from lthbench.engine.graph import Stage
from lthbench.stages.train import epochs

LINE_SECONDS = 30.0


class ProgressBar:
    """A listener that shows how far the command is. Work is counted in epochs of training."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.fields[stages]}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[now]}"),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("", total=1.0, stages="", now="")
        self.works = self.done = 0
        self.epochs = self.epochs_done = 0.0
        self.inside: dict[Stage, float] = {}  # epochs into each trajectory that is being trained
        self.held = ""  # what others are computing, where there is nothing else to do
        self.said = self.begun = time.monotonic()

    def __call__(self, event: str, **facts: Any) -> None:
        if event == "planned":
            self.works = self.done + len(facts["works"])
            self.epochs = self.epochs_done + sum(epochs(w) for w in facts["works"])
            self.bar.start()
        elif event == "step":
            self.inside[facts["stage"]] = (facts["step"] - facts["begun"]) / facts["per_epoch"]
        elif event == "end":
            self.done += 1
            self.epochs_done += epochs(facts["work"])
            self.inside.pop(facts["work"].stage, None)
        elif event == "failed":
            self.inside.pop(facts["stage"], None)
            self.console.print(
                f"[red]failed:[/red] {facts['stage']!r}: {facts['error']}", highlight=False, soft_wrap=True
            )
        elif event == "waiting":
            self.held = facts["held"]
            self._show(f"waiting for {self.held}" if self.held else None)
            return
        elif event == "finished":
            self._show("")
            self.bar.stop()
            return
        self.held = ""
        now = facts["work"].stage if event == "start" else None
        self._show(repr(now) if now else None)

    def _show(self, now: str | None) -> None:
        completed = self.epochs_done + sum(self.inside.values())
        if now is not None:
            self.bar.update(self.task, now=now)
        stages = f"stage {self.done}/{self.works}"
        self.bar.update(self.task, completed=completed, total=max(self.epochs, 1e-9), stages=stages)
        if not self.live and time.monotonic() - self.said > LINE_SECONDS:
            self.said = time.monotonic()
            spent = self.said - self.begun
            left = f", {spent * (self.epochs - completed) / completed:.0f} s left" if completed else ""
            where = f"stage {self.done}/{self.works}, {completed:.0f}/{self.epochs:.0f} epochs"
            if self.held:
                left = f"; waiting for {self.held} (taken over if nothing is heard of it for {EXPIRY_SECONDS:.0f} s)"
            print(f"{where}, {spent:.0f} s{left}", file=sys.stderr, flush=True)
