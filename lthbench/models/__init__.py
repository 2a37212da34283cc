"""Networks by name.

`MODELS` says where each is built, so that names, versions and arguments are known without importing torch.
A builder takes `(shape, classes, **arguments)`, with `shape` the (channels, height, width) of one input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings, build

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Model:
    """Where a network is built, and the version of its definition (raise it when its numbers change)."""

    module: str
    version: int
    what: str
    batchnorm: bool = True  # False: surely none, so that its statistics need no thought


MODELS = {
    "lenet_300_100": Model("lenet", 1, "fully connected 300-100 (LeCun et al. 1998; LTH section 2)", batchnorm=False),
    "lenet_5_caffe": Model("lenet", 1, "two 5x5 convolutions, one hidden layer (Caffe's LeNet-5)", batchnorm=False),
    "resnet_20": Model("resnet", 1, "CIFAR ResNet of 20 layers (He et al. 2016, section 4.2)"),
    "resnet_32": Model("resnet", 1, "CIFAR ResNet of 32 layers"),
    "resnet_44": Model("resnet", 1, "CIFAR ResNet of 44 layers"),
    "resnet_56": Model("resnet", 1, "CIFAR ResNet of 56 layers"),
    "resnet_110": Model("resnet", 1, "CIFAR ResNet of 110 layers"),
    "conv_2": Model("conv", 1, "two convolutions (LTH section 3)", batchnorm=False),
    "conv_4": Model("conv", 1, "four convolutions (LTH section 3)", batchnorm=False),
    "conv_6": Model("conv", 1, "six convolutions (LTH section 3)", batchnorm=False),
    "small_cnn": Model("conv", 1, "two convolutions and two linear layers for MNIST", batchnorm=False),
    "vgg_11": Model("vgg", 1, "VGG-11 with BatchNorm for small images"),
    "vgg_13": Model("vgg", 1, "VGG-13 with BatchNorm for small images"),
    "vgg_16": Model("vgg", 1, "VGG-16 with BatchNorm for small images"),
    "vgg_19": Model("vgg", 1, "VGG-19 with BatchNorm for small images"),
    "wrn": Model("wrn", 1, "wide ResNet of any depth and width (Zagoruyko and Komodakis 2016)"),
    "resnet_18": Model("others", 1, "torchvision's ResNet-18; small stem for images up to 64x64"),
    "resnet_50": Model("others", 1, "torchvision's ResNet-50; small stem for images up to 64x64"),
    "timm": Model("others", 1, "any network of timm, by name"),
    "file": Model("others", 1, "a network of your own, from a file"),
}

PRETRAINED = "pretrained"  # in place of a file's sha256: the weights that a library has under the network's name
FILES: dict[str, str] = {}  # where the users' own networks lie, by the sha256 that names them


@dataclass(frozen=True)
class ModelSettings(Settings):
    """An architecture: name, arguments, and the input and output sizes it is built for."""

    name: str
    version: int
    args: dict[str, Any]
    shape: tuple[int, ...]
    classes: int

    @classmethod
    def of(cls, name: str, args: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> ModelSettings:
        """Settings of a known model. Raises UserError for an unknown name."""
        if name not in MODELS:
            raise UserError(f"unknown model '{name}'{near(name, MODELS)}")
        return cls(name, MODELS[name].version, dict(args), shape, classes)

    @classmethod
    def restored(cls, record: Mapping[str, Any]) -> ModelSettings:
        """Settings from their spelled-out form."""
        return build(cls, record, "model")

    def __hash__(self) -> int:
        return hash(self.text)


def create(model: ModelSettings) -> nn.Module:
    """The network, with weights as its constructor leaves them. Raises UserError if it cannot take the shape."""
    builder = getattr(import_module(f"lthbench.models.{MODELS[model.name].module}"), model.name)
    net: nn.Module = builder(tuple(model.shape), model.classes, **model.args)
    return net


def check(model: ModelSettings) -> None:
    """Raise a UserError unless the network can be built and takes inputs of its shape; computes nothing."""
    import torch

    size = "x".join(map(str, model.shape))
    import_module(f"lthbench.models.{MODELS[model.name].module}")  # on the real device, whatever it imports
    try:
        with torch.device("meta"):
            net = create(model).eval()
            out = net(torch.zeros(1, *model.shape))
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"model {model.name} cannot take inputs of {size}: {str(error).splitlines()[0]}") from None
    if tuple(out.shape) != (1, model.classes):
        raise UserError(
            f"model {model.name} gives {tuple(out.shape)[1:]} for inputs of {size}, not {model.classes} classes"
        )


def digest(path: str, where: str = "model.weights") -> str:
    """sha256 of a file. Raises UserError naming `where` if there is none."""
    if not Path(path).is_file():
        raise UserError(f"{where}: no file '{path}'")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
