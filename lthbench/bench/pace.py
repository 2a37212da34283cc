"""How long a training step and a measured image take here: a few real ones, on made-up images of the right shape.

Images are noise, a random half of each weight matrix is masked, nothing is compiled or decoded. A batch that would
take seconds is timed in part and scaled up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lthbench.data.sets import Augment, DataSettings
from lthbench.data.stream import Split, TrainingStream
from lthbench.evaluation.metrics import BATCH, measure
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.training.checkpoint import Checkpoint
from lthbench.training.loop import Trajectory
from lthbench.training.recipe import Recipe

SECONDS = 0.6  # about how long one figure is measured
BLOCKS = 12  # the median of so many counts
FEWEST = 3  # of what takes longer
FEW = 4  # images of the first step, which tells how many more can be timed
BYTES = 2 * 10**8  # at most so much of a data set is made up: as large as matters for caches


@dataclass(frozen=True)
class Pace:
    """Seconds of a training step and of measuring one image; `weights` is how many parameters the network has."""

    step: float
    image: float
    weights: int


def pace(model: ModelSettings, recipe: Recipe, data: DataSettings, device: str) -> Pace:
    """Time a network under a recipe. Uses as many threads as torch is set to."""
    net = fresh(model, "pytorch", 0, 0)
    draws = torch.Generator().manual_seed(0)
    mask = {name: torch.rand(p.shape, generator=draws) < 0.5 for name, p in net.named_parameters() if p.dim() > 1}
    start = Checkpoint.of(model, net, {}).masked(mask)
    split = _made_up(data, device)
    augment = Augment(data.augment.pad, data.augment.flip)

    def trajectory(batch: int) -> Trajectory:
        smaller = replace(recipe, batch=min(batch, len(split)), compile=False)
        stream = TrainingStream(split, augment, smaller.batch, smaller.steps_per_epoch(len(split)), 0, (0, 0))
        return Trajectory(start, {}, smaller, stream, 0, device=device)

    def advance(run: Trajectory) -> Callable[[], None]:
        return lambda: run.run(run.step + 1)

    few = _seconds(advance(trajectory(FEW)), device)
    batch = max(FEW, min(recipe.batch, len(split), int(FEW * 2 * SECONDS / few)))
    step = few * recipe.batch / FEW
    if batch > FEW:
        step = _seconds(advance(trajectory(batch)), device) * recipe.batch / batch
    images = max(FEW, min(BATCH, len(split), int(SECONDS / FEWEST / step * recipe.batch)))
    part = Split(split.x[:images], split.y[:images], split.samples[:images], split.normalise)
    shown = start.network().to(device)
    image = _seconds(lambda: measure(shown, part), device) / images
    return Pace(step, image, sum(p.numel() for p in net.parameters()))


def _made_up(data: DataSettings, device: str) -> Split:
    """Noise of the shape and, up to a size, the number of a data set's training images."""
    channels, height, width = data.shape
    draws = torch.Generator().manual_seed(0)
    few = torch.randint(0, 256, (64, height, width, channels), generator=draws, dtype=torch.uint8)
    count = max(64, min(data.train_samples, BYTES // few[0].numel()) // 64 * 64)
    y = torch.randint(0, data.classes, (count,), generator=draws)
    x = few.repeat(count // 64, 1, 1, 1).to(device)
    return Split(x, y.to(device), torch.arange(count, device=device), data.normalise)


def _seconds(function: Callable[[], object], device: str) -> float:
    """A call's seconds: the median of blocks of calls, after a call that warms up (the first step of a convolution
    takes two or three times as long as the next)."""
    _once(function, device)
    warm = _once(function, device)
    each = max(1, int(SECONDS / BLOCKS / warm))
    blocks = BLOCKS if each > 1 else max(FEWEST, min(BLOCKS, round(SECONDS / warm)))
    return statistics.median([warm, *(_once(function, device, each) for _ in range(blocks - 1))])


def _once(function: Callable[[], object], device: str, calls: int = 1) -> float:
    """Mean seconds of some calls: the device's work included, time in which this process had to wait for its turn
    left out."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    begun, worked = time.perf_counter(), time.process_time()
    for _ in range(calls):
        function()
    if on_gpu:
        torch.cuda.synchronize()
    took = time.perf_counter() - begun
    if not on_gpu:
        took = min(took, time.process_time() - worked)
    return max(1e-7, took) / calls
