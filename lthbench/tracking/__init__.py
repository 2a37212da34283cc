"""Listeners to what the runner says: a function `(event, **facts)`. They mirror, they never decide.

Events: planned(works), start(work), step(stage, step, begun, last, per_epoch, points), end(work, seconds),
failed(stage, error), gone(stage, error), waiting(works), died(exitcodes), finished(outcome).

`TRACKERS` is where a tracker of another kind (Weights & Biases) takes its place: a function from the run's
settings to a listener.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lthbench.base.errors import UserError, near

TRACKERS: dict[str, Callable[[dict[str, Any]], Callable[..., None] | None]] = {"none": lambda config: None}


def tracker(config: dict[str, Any]) -> list[Callable[..., None]]:
    """The listeners that the configuration asks for besides the progress bar."""
    name = config["tracking"]["name"]
    if name not in TRACKERS:
        raise UserError(f"tracking: unknown '{name}'{near(name, TRACKERS)}")
    listener = TRACKERS[name](config)
    return [listener] if listener else []
