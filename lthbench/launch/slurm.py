"""Job arrays on a Slurm cluster: the settings, and the folder of a submission.

A submission is a folder `<out>/slurm/<number>-<grid>/`:

    job.json         settings of the command, its token, the version that wrote it
    runs.jsonl       the settings of each run, one a line: enough to make its graph again
    elements.jsonl   one array element a line: its tasks, each a chain of trainings and the runs that end with it
    array.sh         the script of an element; submit.sh: the calls of sbatch, which note their ids in `jobs`
    state/<n>.json   what has become of element n, by its own account; logs/: what it printed

One depth of tasks is one array, or several where Slurm's limit is smaller; an array begins when those before it
have ended, well or not: the store says what is there. Nothing stays behind that watches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lthbench.base.errors import UserError
from lthbench.base.settings import Settings, build
from lthbench.engine.graph import Best
from lthbench.engine.store import At, Demand, Points

SCHEMA = 1
SLURM_SECONDS = 30.0  # a call that takes longer has no daemon to talk to
SAVED, WAITING, NEEDS = 85, 75, 4  # exit codes of an element, besides 0, 1 (something failed) and 2 (bad input)
TIMES = r"\d+|\d+:\d+(:\d+)?|\d+-\d+(:\d+(:\d+)?)?"


@dataclass(frozen=True)
class SlurmSettings(Settings):
    """What conf/launcher/slurm.yaml explains, line by line."""

    name: str
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    gres: str | None
    gpus: int | None
    cpus: int
    mem: str | None
    time: str | None
    throttle: int | None
    signal: int
    requeues: int
    patience: int
    pack_steps: int
    side_by_side: int
    max_submit: int | None
    setup: tuple[str, ...]
    python: str | None
    options: tuple[str, ...]
    logs: str | None
    template: str | None
    wait: bool
    dry_run: bool

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> SlurmSettings:
        """The checked settings of a configuration."""
        if type(time := section.get("time")) is int and time >= 60:
            raise UserError(
                f"launcher.time: {time} may be minutes, or an H:M:S that YAML has read as a number; say D-H:M:S, or "
                "H:M:S (in a file within quotes)"
            )
        return build(cls, section, "launcher")

    def __post_init__(self) -> None:
        for name, least in (("gpus", 0), ("cpus", 1), ("throttle", 1), ("signal", 1), ("requeues", 0), ("patience", 0),
                            ("pack_steps", 0), ("side_by_side", 1), ("max_submit", 1)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"launcher.{name}: {value} is less than {least}")
        if self.time is not None and self.signal >= seconds(self.time):
            raise UserError(f"launcher.signal: {self.signal} s before the end of launcher.time={self.time} is no time")
        if self.template is not None and not Path(self.template).is_file():
            raise UserError(f"launcher.template: no file '{self.template}'")


def seconds(time: str) -> int:
    """A time limit as sbatch reads it: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    if not re.fullmatch(TIMES, time):
        raise UserError(f"launcher.time: '{time}' is no time; say minutes, H:M:S or D-H:M:S")
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, secs = [*parts, 0, 0][:3]
    else:
        hours, minutes, secs = {1: (0, parts[0], 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + secs


@dataclass(frozen=True)
class Submission:
    """A submission's folder, read."""

    folder: Path
    job: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Submission:
        """Raises UserError for a folder that is no submission, or one of another version."""
        try:
            job = json.loads((folder / "job.json").read_text())
        except (OSError, ValueError):
            raise UserError(f"'{folder}' is no submission: its job.json cannot be read") from None
        if job.get("schema") != SCHEMA:
            raise UserError(f"'{folder}' was written by lthbench {job.get('lthbench')}; submit the command again")
        return cls(folder, job)

    @property
    def settings(self) -> SlurmSettings:
        return SlurmSettings.of(self.job["config"]["launcher"])

    def elements(self) -> list[dict[str, Any]]:
        """The array elements as they were written, in order."""
        return [json.loads(line) for line in (self.folder / "elements.jsonl").read_text().splitlines()]

    def run_ids(self) -> list[str]:
        return list(self.job["runs"])

    def jobs(self) -> list[tuple[str, int, int]]:
        """The arrays that were submitted: job id, number of the first element, how many."""
        try:
            lines = (self.folder / "jobs").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(ident, int(base), int(count)) for ident, base, count in map(str.split, lines)]


def submissions(out: Path) -> list[Submission]:
    """All submissions below a folder of results, oldest first."""
    return [Submission.read(path.parent) for path in sorted((out / "slurm").glob("*/job.json"))]


def demand_text(demand: Demand) -> str:
    """What is asked of a training, as text."""
    if isinstance(demand, Points):
        return f"points {demand.split} {demand.every} {demand.until}"
    assert isinstance(demand, At)
    if isinstance(demand.step, Best):
        return f"best {demand.step.by} {demand.step.every} {demand.step.until}"
    return f"at {demand.step} {'full' if demand.full else 'state'}"


def demand_of_text(text: str) -> Demand:
    kind, what, *rest = text.split()
    if kind == "points":
        return Points(what, *map(int, rest))
    if kind == "best":
        return At(Best(what, *map(int, rest)))
    return At(int(what), rest == ["full"])
