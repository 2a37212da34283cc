"""The runner: computes what the store does not hold, and tells listeners what it does.

Several runners, in processes of one command or of several, on one host or many, may work on the same graph and
store: a claim keeps them from doing the same stage at once. How a kind of stage is computed comes from outside,
as a dictionary from kind to function: the engine knows neither pruning nor training.
"""

from __future__ import annotations

import math
import os
import socket
import sys
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lthbench.base.errors import UserError
from lthbench.base.memory import forget_peak, peak
from lthbench.engine.claims import Claims
from lthbench.engine.graph import Stage, State, ancestors
from lthbench.engine.plan import Goal, Work, plan
from lthbench.engine.store import Demand, Gone, Store, moments_file, state_file
from lthbench.engine.twins import Twins, take_over

if TYPE_CHECKING:
    from torch import Tensor

Listener = Callable[..., None]  # listener(event, **facts)
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 5.0  # seconds, when all that is left is being computed by others


class Stopped(BaseException):
    """The process was asked to stop, and what it was computing is saved up to here."""


def never() -> bool:
    return False


@dataclass
class Job:
    """What the function of a kind gets: the stage, what of it is missing, and where results go.

    A kind that takes long looks at `stop()` now and then; when it is true, it saves what it has and raises Stopped.
    """

    stage: Stage
    missing: frozenset[Demand]
    resume: int | None
    store: Store
    device: str
    tell: Listener
    stop: Callable[[], bool] = never

    def input(self, role: str, of: str = "state") -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and values of an input: its state (or only output), or its `moments`; None where there is none."""
        ref = self.stage.inputs.get(role)
        if ref is None:
            return None
        name = "out.safetensors"
        if isinstance(ref, State):
            name = state_file(ref.step)
            if of == "moments":
                assert isinstance(ref.step, int)
                name = moments_file(ref.step)
        return self.store.read(ref.stage.id, name)


_NEEDS = "needs "  # how the reason of a stage begins that lacks an input


@dataclass
class Outcome:
    """What a command did: distinct stages asked for, computed by it, and failed with their reasons.

    `stopped`: it was asked to stop, and is not done. `waiting`: what others were computing when patience ended.
    """

    asked: int = 0
    computed: set[Stage] = field(default_factory=set)
    failed: dict[Stage, str] = field(default_factory=dict)
    stopped: bool = False
    waiting: set[Stage] = field(default_factory=set)

    @property
    def causes(self) -> dict[Stage, str]:
        """What failed by itself, not for want of something that had failed."""
        return {stage: reason for stage, reason in self.failed.items() if not reason.startswith(_NEEDS)}

    def __str__(self) -> str:
        reused = self.asked - len(self.computed) - len(self.failed)
        return f"stages: {self.asked} asked, {len(self.computed)} computed, {reused} reused"


class Teller:
    """Tells listeners what happens; one that raises is switched off, with a warning."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self.listeners = list(listeners)

    def __call__(self, event: str, **facts: Any) -> None:
        for listener in list(self.listeners):
            try:
                listener(event, **facts)
            except Exception as error:
                self.listeners.remove(listener)
                warnings.warn(f"a listener was switched off: {type(error).__name__}: {error}", stacklevel=2)


class Runner:
    """Computes goals in this process. Runners of one command share its `token`: a failure is tried once a command.

    It ends early when `stop()` is true, and when it has waited for others for `patience` seconds on end (longer for
    an owner whose heart stands still: it may be dead, and then its work is taken over).
    """

    def __init__(
        self,
        store: Store,
        kinds: Mapping[str, Callable[[Job], None]],
        listeners: Iterable[Listener] = (),
        device: str = "cpu",
        claims: Claims | None = None,
        token: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        stop: Callable[[], bool] = never,
        patience: float = math.inf,
    ) -> None:
        self.store, self.kinds, self.tell, self.device = store, kinds, Teller(listeners), device
        self.claims = claims or Claims()
        self.token = token or uuid.uuid4().hex
        self.sleep, self.stop, self.patience = sleep, stop, patience

    def run(self, goals: list[Goal]) -> Outcome:
        """Compute whatever is missing. A failure stops only what needs it; damaged files are recomputed."""
        asked = list(ancestors(stage for stage, _ in goals))
        outcome = Outcome(asked=len(asked))
        self.twins = Twins(asked, self.store)
        wait, moved = SHORTEST_WAIT, time.monotonic()
        try:
            while todo := [w for w in plan(goals, self.store, self.twins) if not self._blocked(w, outcome)]:
                self.tell("planned", works=todo)
                if self._walk(todo, outcome):
                    wait, moved = SHORTEST_WAIT, time.monotonic()
                elif held := [work for work in todo if not self._blocked(work, outcome)]:
                    if time.monotonic() - moved >= self.patience and not self._stalled(held):
                        ready = {work.stage for work in held if self._ready(work)}  # these are in others' hands
                        outcome.waiting = ready or {work.stage for work in held}
                        break
                    self.tell("waiting", works=todo, held=self._held(held))
                    self.sleep(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
        except Stopped:
            outcome.stopped = True
        finally:
            self.claims.close()
        self.tell("finished", outcome=outcome)
        return outcome

    def _walk(self, todo: list[Work], outcome: Outcome) -> bool:
        """Go once through the work and do what is ready and free; whether anything moved."""
        moved = False
        for work in todo:
            if self.stop():
                raise Stopped
            if self._blocked(work, outcome) or not self._ready(work):
                continue
            folder = self.store.folder(work.stage.id)
            try:
                if not self.claims.take(folder):
                    continue
            except OSError:  # a full disk, a folder that cannot be written
                self._fail(work.stage, outcome)
                moved = True
                continue
            done = False
            try:  # after taking the claim, look again: another may have finished between plan and claim
                again = plan([(work.stage, demand) for demand in work.missing], self.store, self.twins)
                if not again:
                    done = moved = True
                elif again[-1].stage is work.stage and len(again) == 1:
                    done = moved = self._attempt(again[0], outcome)
                    moved = moved or work.stage in outcome.failed
            except Gone as error:
                self.tell("gone", stage=work.stage, error=str(error))
                return True  # something this rests on is no longer there: plan again
            finally:
                self.claims.release(folder, done)
        return moved

    def _stalled(self, works: list[Work]) -> bool:
        return any(self.claims.stalled(self.store.folder(work.stage.id)) for work in works)

    def _held(self, works: list[Work]) -> str:
        """Of the first stage in others' hands: which it is, and in whose."""
        for work in works:
            if owner := self.claims.owner(self.store.folder(work.stage.id)):
                return f"{work.stage!r}, which process {owner.get('pid')} on {owner.get('host')} computes"
        return ""

    def _ready(self, work: Work) -> bool:
        return all(self.store.has(*needed) for needed in work.inputs_needed)

    def _blocked(self, work: Work, outcome: Outcome) -> bool:
        """Whether a stage has failed in this command, or needs one that has."""
        if work.stage in outcome.failed:
            return True
        for needed, _ in work.inputs_needed:
            if needed in outcome.failed:
                outcome.failed[work.stage] = f"{_NEEDS}{needed!r}, which failed"
                return True
        return False

    def _attempt(self, work: Work, outcome: Outcome) -> bool:
        """Compute a stage unless this command has seen it fail; whether it is there now."""
        stage = work.stage
        if (failure := self._failed_before(stage)) is not None:
            outcome.failed[stage] = failure
            return False
        self.tell("start", work=work)
        begun = time.monotonic()
        forget_peak(self.device)
        try:
            if work.twin is not None:
                take_over(stage, work.missing, work.twin, self.store)
            else:
                how = (self.store, self.device, self.tell, self.stop)
                self.kinds[stage.kind](Job(stage, work.missing, work.resume, *how))
            if lacking := [demand for demand in work.missing if not self.store.has(stage, demand)]:
                raise AssertionError(f"{stage!r} was computed without {lacking[0]}")
        except Gone:
            raise  # something this rests on is no longer there
        except Exception:
            self._fail(stage, outcome)
            return False
        if work.twin is None:
            self._note_cost(work, time.monotonic() - begun)
            outcome.computed.add(stage)
        self.tell("end", work=work, seconds=time.monotonic() - begun)
        return True

    def _note_cost(self, work: Work, seconds: float) -> None:
        """Append what this computation took; a trajectory resumed elsewhere shows each machine."""
        try:
            cost = self.store.read_json(work.stage.id, "cost.json")
        except Gone:
            cost = []
        place = {"host": socket.gethostname(), "device": self.device}
        cost.append({"seconds": round(seconds, 3), "from": work.resume, "peak_memory": peak(self.device), **place})
        with suppress(OSError):  # a full disk: the result itself is there
            self.store.write_json(work.stage, "cost.json", cost)
            self.store.remove(work.stage.id, "failed.json")

    def _failed_before(self, stage: Stage) -> str | None:
        """The reason, if a runner of this command has tried this stage and failed."""
        try:
            failure = self.store.read_json(stage.id, "failed.json")
        except Gone:
            return None
        return str(failure["error"]) if failure["token"] == self.token else None

    def _fail(self, stage: Stage, outcome: Outcome) -> None:
        """Record the exception that is being handled as this stage's failure."""
        error = sys.exc_info()[1]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        reason = f"{kind}{error}".splitlines()[0]
        record = {"error": reason, "trace": traceback.format_exc(), "pid": os.getpid(), "token": self.token}
        try:
            self.store.write_json(stage, "failed.json", record)
        except OSError as cannot:  # a full disk: the failure is still listed at the end
            reason += f" (and the failure could not be recorded: {cannot})"
        outcome.failed[stage] = reason
        self.tell("failed", stage=stage, error=reason)
