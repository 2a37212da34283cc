"""Second derivatives of the loss by the weights, from gradients of single images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lthbench.pruning.criteria import Subject


def rows(net: Subject, labels: str) -> Iterator[dict[str, Tensor]]:
    """Vectors a, by weight, whose mean outer product over the images, sum a a^T / images, is a curvature.

    labels `given`: one vector an image, the gradient of its loss (empirical Fisher). `all`: one a class c, the logits'
    gradient along sqrt(p_c) (e_c - p), since sum_c p_c (e_c - p)(e_c - p)^T is the Hessian of the cross-entropy by
    the logits (Gauss-Newton). In a piecewise linear network (ReLU, max-pooling, BatchNorm in eval mode) the output is
    linear in the weights of one layer, so that there `all` is the layer's block of the Hessian itself.
    Raises ValueError for networks whose BatchNorm would normalise a single image by itself.
    """
    if any(m.training for m in net.model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)):
        raise ValueError("gradients of single images need pruner.mode=eval")
    weights = list(net.weights.values())
    for x, y in net.batches:
        for image, label in zip(x, y):
            logits = net.model(image[None])[0]
            p = logits.detach().softmax(0)
            unit = torch.eye(len(p), dtype=p.dtype)
            along = [p - unit[label]] if labels == "given" else [p[c].sqrt() * (unit[c] - p) for c in range(len(p))]
            for i, vector in enumerate(along):
                found = torch.autograd.grad(logits, weights, vector, retain_graph=i + 1 < len(along))
                yield dict(zip(net.weights, found))
