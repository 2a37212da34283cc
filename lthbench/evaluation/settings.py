"""What decides an evaluation on corrupted images; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, aside

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
FOLDERS = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}  # the published files, below the data folder
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruptions(Settings):
    """CIFAR-C: `corruptions` (none: all fifteen) at `severities`, of `images` test images (None: all).

    `version`: `official`, the published files, or `computed` here with the published constants, by draws of `seed`.
    """

    name: str
    version: str
    corruptions: tuple[str, ...] = CORRUPTIONS
    severities: tuple[int, ...] = SEVERITIES
    images: int | None = None
    seed: int = 0
    root: str = aside("data")

    def __post_init__(self) -> None:
        if self.version not in ("official", "computed"):
            raise UserError(
                f"robustness.version: unknown choice '{self.version}'{near(self.version, ('official', 'computed'))}"
            )
        for name in self.corruptions:
            if name not in CORRUPTIONS:
                raise UserError(f"robustness.corruptions: unknown '{name}'{near(name, CORRUPTIONS)}")
        for severity in self.severities:
            if severity not in SEVERITIES:
                raise UserError(f"robustness.severities: {severity} is not 1, 2, 3, 4 or 5")
        for field in ("corruptions", "severities"):
            if not getattr(self, field) or len(set(getattr(self, field))) < len(getattr(self, field)):
                raise UserError(f"robustness.{field}: a list without repetition is needed")
        if self.images is not None and self.images < 1:
            raise UserError(f"robustness.images: {self.images} is less than 1")
        if self.seed < 0:
            raise UserError(f"robustness.seed: {self.seed} is negative")


def published(dataset: str, root: str) -> Path | None:
    """Where the published corrupted images of a data set lie; None if they are not here."""
    folder = Path(root) / FOLDERS.get(dataset, "")
    return folder if dataset in FOLDERS and (folder / "labels.npy").is_file() else None
