"""The straight line between two states: how far apart they are, error and loss on the way, and how high it rises.

Linear mode connectivity and instability analysis: Frankle et al. 2020 (arXiv 1912.05671).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lthbench.base.settings import Settings
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job
from lthbench.soups.settings import Recalibrate

if TYPE_CHECKING:
    from lthbench.training.checkpoint import Checkpoint

KIND, VERSION = "connect", 1
POINTS = 30


@dataclass(frozen=True)
class Connect(Settings):
    """`points` on the line, the ends included, are measured on `splits`; all tensors are interpolated, BatchNorm's
    statistics too. `recalibrate` adds a second line on which they are made anew at every point."""

    data: DataSettings
    splits: tuple[str, ...]
    points: int
    recalibrate: Recalibrate | None


def connect(
    one: Ref,
    other: Ref,
    data: DataSettings,
    splits: tuple[str, ...] = ("test",),
    points: int = POINTS,
    recalibrate: Recalibrate | None = None,
) -> Stage:
    """The line between two states, whichever is named first."""
    ends = sorted((one, other), key=lambda ref: ref.ref)
    settings = Connect(replace(data, augment=Augment()), splits, points, recalibrate)
    return stage(KIND, VERSION, settings, {"a": ends[0], "b": ends[1]})


def compute(job: Job) -> None:
    """Write alphas, distances, and for each split accuracy and loss at every point and the barriers in both."""
    from lthbench.soups.line import distances
    from lthbench.training.checkpoint import Checkpoint

    s = job.stage.settings
    packed = job.input("a"), job.input("b")
    assert isinstance(s, Connect)
    one, other = (Checkpoint.unpack(p) for p in packed if p is not None)
    found: dict[str, Any] = {"alphas": [i / (s.points - 1) for i in range(s.points)], **distances(one, other)}
    found |= _line(job, s, found["alphas"], one, other, None)
    if s.recalibrate is not None:
        found["recalibrated"] = _line(job, s, found["alphas"], one, other, s.recalibrate)
    job.store.write_json(job.stage, "out.json", found)


def _line(
    job: Job, s: Connect, alphas: list[float], one: Checkpoint, other: Checkpoint, how: Recalibrate | None
) -> dict[str, Any]:
    """By split: accuracy and loss along the line; `barrier` is in error (0..1), `loss_barrier` in loss."""
    from lthbench.data.stream import split
    from lthbench.evaluation.metrics import measure
    from lthbench.soups.line import barrier, between
    from lthbench.soups.recalibrate import recalibrated

    values: dict[str, list[dict[str, Any]]] = {name: [] for name in s.splits}
    for alpha in alphas:
        point = between(one, other, alpha)
        net = (recalibrated(point, how, job.device) if how else point).network().to(job.device)
        for name in s.splits:
            values[name].append(measure(net, split(s.data, name, job.device)))
    return {
        name: {
            "accuracy": [v["accuracy"] for v in each],
            "loss": [v["loss"] for v in each],
            "barrier": barrier([1 - v["accuracy"] for v in each]),
            "loss_barrier": barrier([v["loss"] for v in each]),
        }
        for name, each in values.items()
    }
