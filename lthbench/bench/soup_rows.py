"""The row of the bench that tells what an average costs beside training."""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.bench.measure import Row, ratio
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import split
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.soups.average import mean
from lthbench.soups.recalibrate import recalibrated
from lthbench.soups.settings import Recalibrate
from lthbench.training.checkpoint import Checkpoint
from lthbench.training.loop import Trajectory
from lthbench.training.recipe import LrSchedule, Recipe

DATA = DataSettings("standin_cifar10", "official", Normalise("channel", (0.5,), (0.25,)), Augment(4, True))
RECIPE = Recipe("sgd", 0.1, 128, LrSchedule("constant"), momentum=0.9, weight_decay=1e-4)


def averaged(blocks: int) -> Iterator[Row]:
    """The mean of five ResNet-20 and its BatchNorm anew, against an epoch of training on the same images."""
    model = ModelSettings.of("resnet_20", {}, DATA.shape, DATA.classes)
    nets = [Checkpoint.of(model, fresh(model, "kaiming_normal", seed, 0), {}) for seed in range(5)]
    images, how = split(DATA, "train"), Recalibrate("sms", 1.0, RECIPE.batch, DATA, 0)
    steps = RECIPE.steps_per_epoch(len(images))
    ours = Trajectory(nets[0], {}, RECIPE, images.stream(DATA.augment, RECIPE.batch, steps, 0, (0, 0)), 0)
    yield ratio(
        "averaging and recalibrating five against an epoch: ResNet-20, batch 128",
        lambda: recalibrated(mean(nets), how),
        lambda: ours.run(ours.step + steps),
        blocks,
        f"an epoch of {len(images)} images, so that averaging weighs most",
    )
