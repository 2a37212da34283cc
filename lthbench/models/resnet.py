"""ResNets for small images (He et al. 2016, arXiv 1512.03385, section 4.2): 6n+2 layers, widths 16, 32, 64."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int, int]


class PadShortcut(nn.Module):
    """Option A: every second pixel, new channels zero; no parameters."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.before, self.after = extra // 2, extra - extra // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and the shortcut around them."""

    def __init__(self, inner: int, outer: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            if shortcut == "A":
                self.shortcut = PadShortcut(outer - inner)
            else:
                self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out)

    def narrow(self, stays: Tensor) -> None:
        """What is left of the output channels (bool, by channel), after their weights went: zeros pad fewer."""
        if isinstance(pad := self.shortcut, PadShortcut):
            last = len(stays) - pad.after
            pad.before, pad.after = int(stays[: pad.before].sum()), int(stays[last:].sum())


class CifarResNet(nn.Module):
    """conv1, three stages of n blocks, global average pooling, `linear`."""

    def __init__(self, blocks: int, shape: Shape, classes: int, width: float, shortcut: str) -> None:
        super().__init__()
        if shortcut not in ("A", "B"):
            raise ValueError(f"model.shortcut is 'A' or 'B', not '{shortcut}'")
        widths = [max(1, round(size * width)) for size in (16, 32, 64)]
        self.conv1 = nn.Conv2d(shape[0], widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inner = widths[0]
        for stage, outer in enumerate(widths, 1):
            layers = []
            for i in range(blocks):
                layers.append(Block(inner, outer, 2 if stage > 1 and i == 0 else 1, shortcut))
                inner = outer
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)  # type: ignore[operator]
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


def resnet_20(shape: Shape, classes: int, width: float = 1.0, shortcut: str = "A") -> nn.Module:
    """20 layers; shortcut A has no parameters, B a 1x1 convolution with BatchNorm; `width` multiplies channels."""
    return CifarResNet(3, shape, classes, width, shortcut)


def resnet_32(shape: Shape, classes: int, width: float = 1.0, shortcut: str = "A") -> nn.Module:
    """32 layers."""
    return CifarResNet(5, shape, classes, width, shortcut)


def resnet_44(shape: Shape, classes: int, width: float = 1.0, shortcut: str = "A") -> nn.Module:
    """44 layers."""
    return CifarResNet(7, shape, classes, width, shortcut)


def resnet_56(shape: Shape, classes: int, width: float = 1.0, shortcut: str = "A") -> nn.Module:
    """56 layers."""
    return CifarResNet(9, shape, classes, width, shortcut)


def resnet_110(shape: Shape, classes: int, width: float = 1.0, shortcut: str = "A") -> nn.Module:
    """110 layers."""
    return CifarResNet(18, shape, classes, width, shortcut)
