"""The course of a training run, seen at some of its states: loss and gradient on the same images, distance from where
it began, how the mask changed, how the tangent kernel did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lthbench.base.settings import Settings
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job

KIND, VERSION = "trace", 1


@dataclass(frozen=True)
class Trace(Settings):
    """Gradients are those on `images` training images, drawn from (seed, "batches"), kernels on the first `kernel` of
    them."""

    data: DataSettings
    images: int
    kernel: int
    seed: int


def trace(states: Sequence[Ref], data: DataSettings, images: int, kernel: int, seed: int) -> Stage:
    """The course of training through these states, the first of them first."""
    settings = Trace(replace(data, augment=Augment()), images, kernel, seed)
    return stage(KIND, VERSION, settings, {f"state {i:03d}": state for i, state in enumerate(states)})


def compute(job: Job) -> None:
    """Write, a list over states each: loss, gradient_norm, gradient_flow, distance, relative, churn (share of the mask
    that changed since the state before), kernel_change (since the first); None where a value is not finite."""
    import torch

    from lthbench.base.seeds import generator
    from lthbench.data.stream import split
    from lthbench.evaluation import course
    from lthbench.training.checkpoint import Checkpoint, moved

    s = job.stage.settings
    assert isinstance(s, Trace)
    images = split(s.data, "train", job.device)
    rows = torch.randperm(len(images), generator=generator(s.seed, "batches", 0))[: s.images].to(job.device)
    x, y = images.batch(rows), images.y[rows]
    found: dict[str, list[float | None]] = {}
    first = before = first_kernel = None
    for role in sorted(job.stage.inputs):
        packed = job.input(role)
        assert packed is not None
        here = Checkpoint.unpack(packed)
        net, mask = here.network().to(job.device), {n: m.to(job.device) for n, m in here.mask.items()}
        loss, norm = course.gradient(net, mask, x, y)
        kernel = course.kernel(net, mask, x[: s.kernel])
        first, before = first or here, before or here
        first_kernel = kernel if first_kernel is None else first_kernel
        names = [name for name, _ in net.named_parameters()]
        distance, relative = moved({n: first.weights[n] for n in names}, {n: here.weights[n] for n in names})
        values: dict[str, Any] = {
            "loss": loss,
            "gradient_norm": norm,
            "gradient_flow": norm**2,
            "distance": distance,
            "relative": relative,
            "churn": course.changed(before, here),
            "kernel_change": course.kernel_distance(first_kernel, kernel),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value if math.isfinite(value) else None)
        before = here
    job.store.write_json(job.stage, "out.json", found)
