"""VGG with BatchNorm for small images and one linear layer (Simonyan and Zisserman 2015, as the pruning papers build
it: four poolings, global average, linear)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int, int]
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # a stage


class Vgg(nn.Module):
    """Stages of 3x3 convolutions with BatchNorm and ReLU, pooling between them."""

    def __init__(self, depth: int, shape: Shape, classes: int, width: float, bias: bool) -> None:
        super().__init__()
        if min(shape[1:]) < 16:
            raise ValueError("its four poolings need at least 16x16")
        layers: list[nn.Module] = []
        channels = shape[0]
        for stage, (count, size) in enumerate(zip(CONVOLUTIONS[depth], (64, 128, 256, 512, 512))):
            if stage:
                layers.append(nn.MaxPool2d(2))
            out = max(1, round(size * width))
            for _ in range(count):
                layers += [nn.Conv2d(channels, out, 3, 1, 1, bias=bias), nn.BatchNorm2d(out), nn.ReLU()]
                channels = out
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        out: Tensor = self.linear(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return out


def vgg_11(shape: Shape, classes: int, width: float = 1.0, bias: bool = False) -> nn.Module:
    """8 convolutions; `bias`: convolutions have one (open_lth, SynFlow)."""
    return Vgg(11, shape, classes, width, bias)


def vgg_13(shape: Shape, classes: int, width: float = 1.0, bias: bool = False) -> nn.Module:
    """10 convolutions."""
    return Vgg(13, shape, classes, width, bias)


def vgg_16(shape: Shape, classes: int, width: float = 1.0, bias: bool = False) -> nn.Module:
    """13 convolutions."""
    return Vgg(16, shape, classes, width, bias)


def vgg_19(shape: Shape, classes: int, width: float = 1.0, bias: bool = False) -> nn.Module:
    """16 convolutions."""
    return Vgg(19, shape, classes, width, bias)
