"""Small convolutional networks: Conv-2/4/6 of the lottery ticket paper, and a two-layer CNN for MNIST."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int, int]


class ConvStack(nn.Module):
    """Pairs of 3x3 convolutions with a pooling after each pair, then linear layers; ReLU between all."""

    def __init__(self, widths: list[int], hidden: list[int], shape: Shape, classes: int, dropout: float) -> None:
        super().__init__()
        channels, height, breadth = shape
        convs = []
        for width in widths:
            convs += [nn.Conv2d(channels, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)]
            channels, height, breadth = width, height // 2, breadth // 2
        if not height or not breadth:
            raise ValueError(f"its {len(widths)} poolings need larger images")
        self.convs = nn.ModuleList(convs)
        sizes = [channels * height * breadth, *hidden]
        self.fcs = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, hidden))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        for i, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            if i % 2:
                x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        for fc in self.fcs:
            x = self.dropout(F.relu(fc(x)))
        out: Tensor = self.out(x)
        return out


def _conv(pairs: int, shape: Shape, classes: int, width: float, dropout: float) -> nn.Module:
    widths = [max(1, round(w * width)) for w in (64, 128, 256)[:pairs]]
    return ConvStack(widths, [max(1, round(256 * width))] * 2, shape, classes, dropout)


def conv_2(shape: Shape, classes: int, width: float = 1.0, dropout: float = 0.0) -> nn.Module:
    """Two convolutions of 64 channels, linear 256, 256."""
    return _conv(1, shape, classes, width, dropout)


def conv_4(shape: Shape, classes: int, width: float = 1.0, dropout: float = 0.0) -> nn.Module:
    """Conv-2 and two convolutions of 128 channels."""
    return _conv(2, shape, classes, width, dropout)


def conv_6(shape: Shape, classes: int, width: float = 1.0, dropout: float = 0.0) -> nn.Module:
    """Conv-4 and two convolutions of 256 channels."""
    return _conv(3, shape, classes, width, dropout)


class SmallCnn(nn.Module):
    """conv 32 3x3, pool, conv 64 3x3, pool, linear 128, linear; ReLU between."""

    def __init__(self, shape: Shape, classes: int, width: float) -> None:
        super().__init__()
        c1, c2, hidden = (max(1, round(size * width)) for size in (32, 64, 128))
        self.conv1 = nn.Conv2d(shape[0], c1, 3, 1, 1)
        self.conv2 = nn.Conv2d(c1, c2, 3, 1, 1)
        self.fc1 = nn.Linear(c2 * (shape[1] // 4) * (shape[2] // 4), hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        out: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return out


def small_cnn(shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """The two-convolution network of introductory MNIST experiments."""
    return SmallCnn(shape, classes, width)
