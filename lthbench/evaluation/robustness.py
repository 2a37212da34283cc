"""Accuracy of a network on corrupted test images."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from lthbench.base.seeds import generator
from lthbench.data.sets import DataSettings
from lthbench.data.stream import Split, split
from lthbench.evaluation.corruptions import corrupted
from lthbench.evaluation.metrics import measure
from lthbench.evaluation.settings import Corruptions, published

FEW = 2000  # images: 75 times as many stay in memory


def robustness(net: nn.Module, data: DataSettings, how: Corruptions, device: str) -> dict[str, Any]:
    """Mean accuracy and loss over all corruptions and severities, and the accuracy of each, by severity.

    The same images for every network; of a subset, those that the seed draws.
    """
    clean = split(data, "test", device)
    rows = torch.arange(len(clean))
    if how.images is not None and how.images < len(clean):
        rows = torch.randperm(len(clean), generator=generator(how.seed, "corrupted images"))[: how.images].sort().values
    results: dict[str, list[dict[str, Any]]] = {}
    for name in how.corruptions:
        for severity in how.severities:
            images = torch.from_numpy(_images(clean, rows, data, name, severity, how)).to(device)
            there = Split(images, clean.y[rows.to(device)], rows.to(device), data.normalise)
            results.setdefault(name, []).append(measure(net, there))
    every = [one for each in results.values() for one in each]
    losses = [one["loss"] for one in every]
    return {
        "accuracy": math.fsum(one["accuracy"] for one in every) / len(every),
        "loss": None if None in losses else math.fsum(losses) / len(losses),
        "by_corruption": {name: [one["accuracy"] for one in each] for name, each in results.items()},
    }


def _images(clean: Split, rows: torch.Tensor, data: DataSettings, name: str, severity: int, how: Corruptions) -> Any:
    if how.version == "official":
        folder = published(data.name, how.root)
        if folder is None:
            raise FileNotFoundError(f"the published corrupted images of {data.name} are no longer in '{how.root}'")
        count = len(clean)
        labels = np.load(folder / "labels.npy")[:count]
        if (labels != clean.y.cpu().numpy()).any():
            raise ValueError(f"'{folder}/labels.npy' are not the labels of {data.name}")
        stored = np.load(folder / f"{name}.npy", mmap_mode="r")
        return np.ascontiguousarray(stored[(severity - 1) * count + rows.numpy()])
    few = how.images is not None and how.images <= FEW
    return (_computed if few else _computed.__wrapped__)(data, how, tuple(rows.tolist()), name, severity)


@lru_cache(maxsize=75)
def _computed(data: DataSettings, how: Corruptions, rows: tuple[int, ...], name: str, severity: int) -> Any:
    """Corrupted images, kept where they are few: a grid asks for the same ones again and again."""
    x = split(data, "test").x[list(rows)].numpy()
    return corrupted(x, rows, name, severity, how.seed, how.root)
