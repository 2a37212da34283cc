"""What decides an average, besides the networks; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.base.settings import Settings
from lthbench.data.sets import DataSettings

ACCEPTS = ("ge", "gt")
RECALIBRATIONS = {
    "none": "statistics as training, or averaging, left them",
    "sms": "in training mode on augmented batches, the last of which count most (Zimmer et al. 2024)",
    "cumulative": "the exact mean over all unaugmented batches",
}


@dataclass(frozen=True)
class Recalibrate(Settings):
    """How BatchNorm's running statistics are made anew from training images.

    `sms`: as Zimmer et al. do, in training mode (dropout too) on augmented batches, with each layer's own momentum,
    so that the last batches count most. `cumulative`: the exact mean over unaugmented batches, dropout off.
    `share` of the training images is used, in the order in which they lie. `seed` is that of augmentation and dropout.
    """

    how: str
    share: float
    batch: int
    data: DataSettings
    seed: int | None
