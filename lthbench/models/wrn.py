"""Wide ResNets WRN-d-k (Zagoruyko and Komodakis 2016, arXiv 1605.07146): pre-activation, 6n+4 layers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int, int]


class Block(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice; the shortcut, where it changes size, is a 1x1 convolution."""

    def __init__(self, inner: int, outer: int, stride: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=bias)
        self.shortcut = nn.Conv2d(inner, outer, 1, stride, bias=bias) if stride != 1 or inner != outer else None

    def forward(self, x: Tensor) -> Tensor:
        ready = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.dropout(self.conv1(ready)))))
        return out + (self.shortcut(ready) if self.shortcut is not None else x)


class WideResNet(nn.Module):
    """conv1, three stages, BatchNorm, global average pooling, `linear`."""

    def __init__(self, depth: int, widen: float, shape: Shape, classes: int, dropout: float, bias: bool) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"model.depth {depth} is not 6n+4")
        self.conv1 = nn.Conv2d(shape[0], 16, 3, 1, 1, bias=bias)
        inner = 16
        stages = []
        for stage, size in enumerate((16, 32, 64)):
            outer = max(1, round(size * widen))
            blocks = []
            for i in range((depth - 4) // 6):
                blocks.append(Block(inner, outer, 2 if stage and i == 0 else 1, dropout, bias))
                inner = outer
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(inner)
        self.linear = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        x = F.relu(self.bn(self.stages(self.conv1(x))))
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


def wrn(
    shape: Shape, classes: int, depth: int, widen: float, width: float = 1.0, dropout: float = 0.0, bias: bool = False
) -> nn.Module:
    """WRN-depth-widen; `width` multiplies the widening; `bias`: convolutions have one (SMS)."""
    return WideResNet(depth, widen * width, shape, classes, dropout, bias)
