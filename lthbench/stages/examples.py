"""The critical images of a round (Zhang et al., ICML 2021, arXiv 2106.03225): those that it forgot, and those that the
first round's network and this one's tell apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lthbench.base.settings import Settings
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Stage, State, stage
from lthbench.engine.runner import Job

KIND, VERSION = "examples", 1


@dataclass(frozen=True)
class Examples(Settings):
    """An image is critical if it was forgotten more than `forgotten` times."""

    data: DataSettings
    forgotten: int


def examples(data: DataSettings, forgotten: int, trained_on: Stage | None, net: State, first: State | None) -> Stage:
    """The critical training images after a round that ended at `net` and saw the images of another such stage (None:
    all); told apart from `first`, if any."""
    inputs = {"net": net, "moments": net, "examples": trained_on, "first": first}
    said = {role: ref for role, ref in inputs.items() if ref is not None}
    return stage(KIND, VERSION, Examples(replace(data, augment=Augment()), forgotten), said)


def compute(job: Job) -> None:
    """Write `rows`, the critical ones of the training images, in their order."""
    import torch

    from lthbench.data.stream import split
    from lthbench.training.checkpoint import Checkpoint, part

    s = job.stage.settings
    assert isinstance(s, Examples)
    images = split(s.data, "train", job.device)
    moments, net, before, first = job.input("moments", "moments"), *map(job.input, ("net", "examples", "first"))
    assert moments is not None and net is not None
    seen = before[0]["rows"] if before else torch.arange(len(images))
    critical = torch.zeros(len(images), dtype=torch.bool)
    counted = part(moments[0], "x")
    critical[seen[hard(counted["forgets"], counted["learned"], s.forgotten)]] = True
    if first is not None:
        one, other = (Checkpoint.unpack(each).network().to(job.device) for each in (first, net))
        critical |= apart(one, other, images)
    rows = critical.nonzero().flatten()
    if not len(rows):
        raise ValueError("no image is critical: every one was learned and never forgotten")
    job.store.write(job.stage, "out.safetensors", {"rows": rows}, {})


def hard(forgets: Any, learned: Any, more_than: int) -> Any:
    """Which images were forgotten more often than that, or never learned."""
    return (forgets > more_than) | ~learned


def apart(one: Any, other: Any, images: Any) -> Any:
    """Which images two networks put in different classes, unaugmented, in evaluation mode."""
    import torch

    from lthbench.evaluation.metrics import BATCH

    with torch.no_grad():
        sides = [torch.cat([n.eval()(x).argmax(1).cpu() for _, x in images.batches(BATCH)]) for n in (one, other)]
    return sides[0] != sides[1]
