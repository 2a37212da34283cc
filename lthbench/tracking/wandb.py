"""Weights & Biases: a mirror of the runs, one W&B run each, that continues when a run is resumed.

A W&B run's id is the run's own, its group the table. History is the curve of the run's last trajectory, one row an
epoch or measured point, with `step` and `epoch` as columns of its own; then come the summary (metrics, sparsities,
multiply-adds) and a table of the layers. A run that is stopped is closed as preempted; how far its history was sent is
noted in `<out>/wandb/sent/`, and what goes on from there continues the same W&B run. Finished runs that were not
mirrored (computed without this, or killed) are mirrored at the end. Whatever fails here fails no run.
"""

from __future__ import annotations

import hashlib
import json
import netrc
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from lthbench import __version__
from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, build, canonical
from lthbench.engine.graph import Stage
from lthbench.engine.runner import Outcome
from lthbench.engine.store import Output, Store
from lthbench.programs import Experiment
from lthbench.programs.identity import identity
from lthbench.stages.train import Train
from lthbench.tracking.parts import clear_torn, note, sent

MODES = ("online", "offline", "disabled")
REACH_SECONDS, START_SECONDS, CLOSE_SECONDS = 3.0, 10.0, 30.0  # how long the network may take for each
STOPPED = 85  # exit code of a W&B run that will go on


@dataclass(frozen=True)
class WandbSettings(Settings):
    """What conf/tracking/wandb.yaml explains."""

    name: str
    project: str
    entity: str | None
    mode: str | None
    group: str | None
    tags: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            raise UserError(f"tracking.mode: unknown '{self.mode}'{near(self.mode, MODES)}")


class Mirror:
    """The listener."""

    def __init__(
        self, section: Mapping[str, Any], experiments: Sequence[Experiment], store: Store, out: Path, group: str
    ) -> None:
        self.settings = build(WandbSettings, section, "tracking")
        self.store, self.out, self.group = store, out.absolute(), self.settings.group or group
        self.by_result = {e.result: e for e in experiments}
        self.by_trajectory: dict[Stage, list[Experiment]] = {}
        for e in experiments:
            if e.trajectory is not None:
                self.by_trajectory.setdefault(e.trajectory, []).append(e)
        self.open: dict[str, _Run] = {}
        self.began_again = False

    def __call__(self, event: str, **facts: Any) -> None:
        if self.mode == "disabled":
            return
        try:
            self._hear(event, **facts)
        except Exception:
            if self.began_again:
                raise
            self._begin_again()
            self._hear(event, **facts)

    def _begin_again(self) -> None:
        """W&B's own process is gone: Slurm's TERM goes to all of a job. Another one closes the runs in order."""
        self.began_again = True
        with suppress(Exception):
            self.wandb.teardown()
        were, self.open = list(self.open.values()), {}
        for run in were:
            self._run(run.experiment)

    def _hear(self, event: str, **facts: Any) -> None:
        if event == "start":
            for e in self.by_trajectory.get(facts["work"].stage, []):
                self._run(e)
        elif event == "step":
            for e in self.by_trajectory.get(facts["stage"], []):
                self._run(e).feed(facts["points"])
        elif event == "end" and facts["work"].stage in self.by_result:
            self._complete(self.by_result[facts["work"].stage])
        elif event == "failed":
            ended = [e for e in self.by_trajectory.get(facts["stage"], []) if e.id in self.open]
            for e in [*ended, *filter(None, [self.by_result.get(facts["stage"])])]:
                self._run(e).close(1)
                del self.open[e.id]
        elif event == "finished":
            self._finish(facts["outcome"])
        elif event == "leaderboard":
            self._leaderboard(**facts)

    @cached_property
    def mode(self) -> str:
        """Online only where it can work: a key is there and the server answers."""
        asked = self.settings.mode or os.environ.get("WANDB_MODE")
        if asked not in (None, "online", "run"):
            return "disabled" if asked == "disabled" else "offline"  # W&B's old word for that: dryrun
        server = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
        host = server.hostname or "api.wandb.ai"
        if not _key(host):
            if asked:
                print(f"wandb: no API key for {host}: offline (wandb login)", file=sys.stderr)
            return "offline"
        if not _answers(server.geturl()):
            print(f"wandb: {host} does not answer: offline (python -m lthbench sync, later)", file=sys.stderr)
            return "offline"
        return "online"

    def _run(self, experiment: Experiment) -> _Run:
        if experiment.id not in self.open:
            self.open[experiment.id] = _Run(self, experiment)
        return self.open[experiment.id]

    def _complete(self, experiment: Experiment) -> None:
        self._run(experiment).complete()
        del self.open[experiment.id]

    def _finish(self, outcome: Outcome) -> None:
        for run in list(self.open.values()):
            run.close(STOPPED if outcome.stopped or outcome.waiting else 1)
        self.open.clear()
        for e in self.by_result.values():
            if not sent(self.out, e.id)["done"] and self.store.has(e.result, Output()):
                self._complete(e)

    def _leaderboard(self, name: str, title: str, head: list[str], rows: list[list[str]]) -> None:
        ident = leaderboard_id(name, (e.id for e in self.by_result.values()))
        now = hashlib.sha256(canonical(rows).encode()).hexdigest()
        if sent(self.out, ident).get("rows") == now:
            return
        run = self.start(ident, f"leaderboard {name}", "leaderboard", [], {"title": title})
        run.log({"leaderboard": self.wandb.Table(columns=head, data=rows)})
        run.finish(exit_code=0)
        note(self.out, ident, Path(run.dir).parent, step=-1, done=True, rows=now)

    @cached_property
    def wandb(self) -> Any:
        import wandb

        return wandb

    def start(self, ident: str, name: str, job_type: str, tags: list[str], config: dict[str, Any]) -> Any:
        """Begin or continue a W&B run; offline if the server will not have it."""
        self.out.mkdir(parents=True, exist_ok=True)
        clear_torn(self.out, ident)
        how = self.wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            x_transaction_log_flush_interval=2,  # seconds; a killed process loses no more
            init_timeout=START_SECONDS,
            finish_timeout=CLOSE_SECONDS,
        )
        said = {
            "id": ident,
            "name": name,
            "group": self.group,
            "job_type": job_type,
            "config": config,
            "tags": [*tags, *self.settings.tags],
            "project": self.settings.project,
            "entity": self.settings.entity,
            "dir": str(self.out),
            "resume": "allow",
            "reinit": "create_new",  # several may be open at once
            "settings": how,
        }
        try:
            return self.wandb.init(mode=self.mode, **said)
        except Exception as error:
            if self.mode == "offline":
                raise
            print(f"wandb: {str(error).splitlines()[0]}: offline from here", file=sys.stderr)
            self.mode = "offline"
            self.wandb.teardown()  # else the id counts as in use
            return self.wandb.init(mode="offline", **said)


class _Run:
    """One W&B run while it is open."""

    def __init__(self, mirror: Mirror, experiment: Experiment) -> None:
        self.mirror, self.experiment = mirror, experiment
        run = experiment.run
        config = json.loads(canonical(identity(run))) | {"id": experiment.id, "lthbench": __version__}
        config["sparsity"] = run.sparsity
        tags = [run.model.name, run.data.name]
        name = f"{run.model.name} dense, seed {run.seed}"
        if run.rounds:
            tags.append(run.pruner.criterion.name)
            name = f"{run.model.name} {run.pruner.criterion.name} {run.sparsity}, seed {run.seed}"
        kind = run.pruner.program if run.rounds else "dense"
        self.run = mirror.start(experiment.id, name, kind, [tag[:64] for tag in tags], config)
        self.run.define_metric("*", step_metric="step")
        self.step = sent(mirror.out, experiment.id)["step"]
        if experiment.trajectory is not None:
            self.feed(mirror.store.curve(experiment.trajectory.id))

    def feed(self, curve: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> None:
        """Log what a curve has beyond what was sent, one row a step."""
        trajectory = self.experiment.trajectory
        if trajectory is None:
            return
        s = trajectory.settings
        assert isinstance(s, Train)
        per_epoch = s.recipe.steps_per_epoch(s.data.train_samples)
        for step in sorted({step for points in curve.values() for step in points if step > self.step}):
            values = {f"{split}/{key}": value for split, points in curve.items() for key, value in
                      points.get(step, {}).items() if isinstance(value, (int, float))}  # fmt: skip
            self.run.log({"step": step, "epoch": step / per_epoch, **values})
            self.step = step

    def complete(self) -> None:
        """Log the rest of the history, the layers and the summary, and close."""
        store, e = self.mirror.store, self.experiment
        if e.trajectory is not None:
            self.feed(store.curve(e.trajectory.id))
        found = store.output(e.result)
        for split, metrics in found["metrics"].items():
            for key, value in metrics.items():
                if isinstance(value, (int, float)):
                    self.run.summary[f"{split}/{key}"] = value
        for what, count in found["sparsity"].items():
            self.run.summary[f"sparsity/{what}"] = count["removed"] / count["total"]
        self.run.summary["multiply_adds"] = found["flops"]["nonzero"]
        self.run.summary["final_weights_sha256"] = found["final_weights_sha256"]
        rows = [[name, layer["kept"], layer["total"]] for name, layer in found["layers"].items()]
        self.run.log({"layers": self.mirror.wandb.Table(columns=["layer", "kept", "total"], data=rows)})
        self.close(0)

    def close(self, code: int) -> None:
        """End the W&B run in an orderly way, and note how far it is."""
        if code == STOPPED:
            self.run.mark_preempting()
        self.run.finish(exit_code=code)
        part = Path(self.run.dir).parent
        note(self.mirror.out, self.experiment.id, part, step=self.step, done=code == 0)


def leaderboard_id(name: str, runs: Iterable[str]) -> str:
    """The id of the W&B run that holds a grid's leaderboard."""
    return hashlib.sha256(f"{name} {sorted(runs)}".encode()).hexdigest()[:32]


def _key(host: str) -> bool:
    """Whether a key for the server is known, without asking anybody."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _answers(url: str) -> bool:
    """Whether a server says anything within REACH_SECONDS, finding its address included."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            urlopen(url, timeout=REACH_SECONDS).close()
        except HTTPError:  # an answer
            pass
        except (OSError, HTTPException, ValueError):
            return
        answers.append(True)

    asking = threading.Thread(target=ask, daemon=True)  # no time-out holds while a name is looked up
    asking.start()
    asking.join(REACH_SECONDS)
    return bool(answers)
