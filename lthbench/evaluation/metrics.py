"""Accuracy and loss of a network on a split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lthbench.data.stream import Split

BATCH = 1000


@torch.no_grad()
def measure(net: nn.Module, split: Split, per_class: bool = False) -> dict[str, Any]:
    """Accuracy (0..1) and mean cross-entropy in float32, evaluation mode; `loss` is None if it is not finite.

    `per_class` adds the accuracy of each class, that of the worst, and the calibration error.
    The network's mode is left as it was, and no random stream is touched.
    """
    was_training = net.training
    net.eval()
    device = split.y.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros(len(split), dtype=torch.bool, device=device)
    confidence = torch.zeros(len(split), device=device)
    classes = 0
    for rows, x in split.batches(BATCH):
        logits, y = net(x), split.y[rows]
        classes = logits.shape[1]
        loss += F.cross_entropy(logits, y, reduction="sum").double()
        right[rows] = logits.argmax(1) == y
        if per_class:
            confidence[rows] = logits.softmax(1).amax(1)
    net.train(was_training)
    mean = loss.item() / len(split)
    result: dict[str, Any] = {
        "accuracy": int(right.sum()) / len(split),
        "loss": mean if abs(mean) < float("inf") else None,
    }
    if per_class:
        total = split.y.bincount(minlength=classes).clamp(min=1)
        result["per_class"] = (split.y[right].bincount(minlength=classes) / total).tolist()
        result["worst_class"] = min(result["per_class"])
        result["ece"] = calibration_error(confidence, right)
    return result


def calibration_error(confidence: Tensor, right: Tensor, bins: int = 15) -> float | None:
    """Expected calibration error (Guo et al. 2017, equation 3): |accuracy - mean confidence| of the predicted class,
    averaged over equal bins of confidence, each by its share of the samples. None if a confidence is no number."""
    if not bool(confidence.isfinite().all()):
        return None
    place = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1  # bins are open below, closed above
    gap = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    gap.index_add_(0, place, right.double() - confidence.double())
    return float(gap.abs().sum() / len(confidence))


class _Ensemble(nn.Module):
    """Networks that predict the mean of their softmax outputs, given as its logarithm."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        logs = torch.stack([F.log_softmax(net(x), 1) for net in self.nets])
        return logs.logsumexp(0) - math.log(len(self.nets))


def ensemble(nets: Sequence[nn.Module]) -> nn.Module:
    """A network that predicts what these predict together; its outputs are log-probabilities, float (B, classes)."""
    return _Ensemble(nets)


def mean(results: Sequence[Any]) -> Any:
    """The mean of results of one form, number by number; None where one of them is None."""
    first = results[0]
    if isinstance(first, dict):
        return {key: mean([r[key] for r in results]) for key in first}
    if isinstance(first, list):
        return [mean(list(values)) for values in zip(*results)]
    if any(r is None for r in results):
        return None
    return math.fsum(results) / len(results)
