"""Listeners to what the runner says: a function `(event, **facts)`. They mirror, they never decide.

Events: planned(works), start(work), step(stage, step, begun, last, per_epoch, points), end(work, seconds),
failed(stage, error), gone(stage, error), waiting(works), died(exitcodes), finished(outcome); and of a command,
leaderboard(name, title, head, rows). They speak of stages: a tracker is told which runs those belong to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.engine.runner import Listener
from lthbench.engine.store import Store
from lthbench.programs import Experiment
from lthbench.tracking.wandb import Mirror

TRACKERS = ("none", "wandb")


def trackers(
    section: Mapping[str, Any], experiments: Sequence[Experiment], store: Store, out: Path, group: str
) -> list[Listener]:
    """The listeners that the configuration asks for besides the progress bar; `group` is the grid's name."""
    name = section["name"]
    if name not in TRACKERS:
        raise UserError(f"tracking: unknown '{name}'{near(name, TRACKERS)}")
    return [Mirror(section, experiments, store, out, group)] if name == "wandb" else []
