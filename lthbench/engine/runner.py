"""The runner: computes what the store does not hold, and tells listeners what it does.

How a kind of stage is computed comes from outside, as a dictionary from kind to function: the engine knows
neither pruning nor training.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lthbench.engine.graph import Stage, State, ancestors
from lthbench.engine.plan import Goal, Work, plan
from lthbench.engine.store import Damaged, Demand, Store, state_file

if TYPE_CHECKING:
    from torch import Tensor

Listener = Callable[..., None]  # listener(event, **facts)


@dataclass
class Job:
    """What the function of a kind gets: the stage, what of it is missing, and where results go."""

    stage: Stage
    missing: frozenset[Demand]
    resume: int | None
    store: Store
    device: str
    tell: Listener

    def input(self, role: str, of: str = "state") -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and values of an input: its state (or only output), or its `moments`; None where there is none."""
        ref = self.stage.inputs.get(role)
        if ref is None:
            return None
        name = "out.safetensors"
        if isinstance(ref, State):
            name = state_file(ref.step)
            if of == "moments":
                name = "o" + name[1:]
        return self.store.read(ref.stage.id, name)


@dataclass
class Outcome:
    """What a command did: distinct stages asked for, computed here, and failed with their reasons."""

    asked: int = 0
    computed: set[Stage] = field(default_factory=set)
    failed: dict[Stage, str] = field(default_factory=dict)

    def __str__(self) -> str:
        reused = self.asked - len(self.computed) - len(self.failed)
        return f"stages: {self.asked} asked, {len(self.computed)} computed, {reused} reused"


class Runner:
    """Computes goals in one process."""

    def __init__(
        self,
        store: Store,
        kinds: Mapping[str, Callable[[Job], None]],
        listeners: Iterable[Listener] = (),
        device: str = "cpu",
    ) -> None:
        self.store, self.kinds, self.listeners, self.device = store, kinds, list(listeners), device
        self.token = uuid.uuid4().hex

    def run(self, goals: list[Goal]) -> Outcome:
        """Compute whatever is missing. A failure stops only what needs it; damaged files are recomputed."""
        outcome = Outcome(asked=sum(1 for _ in ancestors(stage for stage, _ in goals)))
        while todo := [w for w in plan(goals, self.store) if not self._blocked(w, outcome)]:
            self.tell("planned", works=todo)
            for work in todo:
                if self._blocked(work, outcome):
                    continue
                try:
                    self._compute(work, outcome)
                except (Damaged, FileNotFoundError) as error:
                    if not all(self.store.has(*needed) for needed in work.inputs_needed) or work.resume is not None:
                        self.tell("gone", stage=work.stage, error=str(error))
                        break  # something this rests on is no longer there: plan again
                    self._fail(work.stage, error, outcome)
        self.tell("finished", outcome=outcome)
        return outcome

    def _blocked(self, work: Work, outcome: Outcome) -> bool:
        if work.stage in outcome.failed:
            return True
        for needed, _ in work.inputs_needed:
            if needed in outcome.failed:
                outcome.failed[work.stage] = f"needs {needed!r}, which failed"
                return True
        return False

    def _compute(self, work: Work, outcome: Outcome) -> None:
        stage = work.stage
        self.tell("start", work=work)
        begun = time.monotonic()
        try:
            self.kinds[stage.kind](Job(stage, work.missing, work.resume, self.store, self.device, self.tell))
            self._note_cost(work, time.monotonic() - begun)
        except (Damaged, FileNotFoundError):
            raise
        except Exception as error:
            self._fail(stage, error, outcome)
            return
        self.store.remove(stage.id, "failed.json")
        outcome.computed.add(stage)
        self.tell("end", work=work, seconds=time.monotonic() - begun)

    def _note_cost(self, work: Work, seconds: float) -> None:
        """Append what this computation took; a trajectory resumed elsewhere shows each machine."""
        try:
            cost = self.store.read_json(work.stage.id, "cost.json")
        except (FileNotFoundError, Damaged):
            cost = []
        cost.append(
            {"seconds": round(seconds, 3), "from": work.resume, "device": self.device, "host": socket.gethostname()}
        )
        self.store.write_json(work.stage, "cost.json", cost)

    def _fail(self, stage: Stage, error: Exception, outcome: Outcome) -> None:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        outcome.failed[stage] = reason
        record = {"error": reason, "trace": traceback.format_exc(), "pid": os.getpid(), "token": self.token}
        try:
            self.store.write_json(stage, "failed.json", record)
        except OSError as cannot:  # a full disk: the failure is still listed at the end
            reason += f" (and the failure could not be recorded: {cannot})"
        self.tell("failed", stage=stage, error=reason)

    def tell(self, event: str, **facts: Any) -> None:
        """Tell the listeners; one that raises is switched off, with a warning."""
        for listener in list(self.listeners):
            try:
                listener(event, **facts)
            except Exception as error:
                self.listeners.remove(listener)
                warnings.warn(f"a listener was switched off: {type(error).__name__}: {error}", stacklevel=2)
