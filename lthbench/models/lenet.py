"""The two networks of the MNIST experiments."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int, int]


class FullyConnected(nn.Module):
    """Linear layers with ReLU between them; names fc1, fc2, ..."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.depth = len(sizes) - 1
        for i in range(self.depth):
            setattr(self, f"fc{i + 1}", nn.Linear(sizes[i], sizes[i + 1]))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        x = x.flatten(1)
        for i in range(1, self.depth):
            x = F.relu(getattr(self, f"fc{i}")(x))
        out: Tensor = getattr(self, f"fc{self.depth}")(x)
        return out


def lenet_300_100(shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """LeNet-300-100; `width` multiplies the hidden sizes."""
    channels, height, breadth = shape
    return FullyConnected(
        [channels * height * breadth, max(1, round(300 * width)), max(1, round(100 * width)), classes]
    )


class LeNet5Caffe(nn.Module):
    """conv 20 5x5, pool, conv 50 5x5, pool, linear 500, ReLU, linear. No ReLU after the convolutions, as in Caffe."""

    def __init__(self, shape: Shape, classes: int, width: float) -> None:
        super().__init__()
        channels, height, breadth = shape
        c1, c2, hidden = (max(1, round(size * width)) for size in (20, 50, 500))
        self.conv1 = nn.Conv2d(channels, c1, 5)
        self.conv2 = nn.Conv2d(c1, c2, 5)
        h, w = (((size - 4) // 2 - 4) // 2 for size in (height, breadth))
        if h < 1 or w < 1:
            raise ValueError("its two 5x5 convolutions and poolings need at least 16x16")
        self.fc1 = nn.Linear(c2 * h * w, hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        out: Tensor = self.fc2(x)
        return out


def lenet_5_caffe(shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """LeNet-5 as Caffe's example defines it; `width` multiplies channels and hidden units."""
    return LeNet5Caffe(shape, classes, width)
