"""Networks from elsewhere: torchvision's ResNets, any of timm's, and a user's own file."""

from __future__ import annotations

import importlib.util
import socket
import warnings
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import nn

from lthbench.base.errors import UserError, near
from lthbench.models import FILES

Shape = tuple[int, int, int]
SMALL = 64  # images up to this size get the small stem


def _torchvision(block: str, blocks: list[int], shape: Shape, classes: int, width: float) -> nn.Module:
    """torchvision's ResNet; small images get a 3x3 stem without pooling, as usual on CIFAR."""
    from torchvision.models import resnet

    class Net(resnet.ResNet):  # type: ignore[misc]
        def _make_layer(self, block: Any, planes: int, *args: Any, **words: Any) -> nn.Sequential:
            return super()._make_layer(block, max(1, round(planes * width)), *args, **words)

    net = Net(getattr(resnet, block), blocks, num_classes=classes)
    net.fc = nn.Linear(net.inplanes, classes)
    if max(shape[1:]) <= SMALL:
        net.conv1 = nn.Conv2d(shape[0], 64, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    elif shape[0] != 3:
        net.conv1 = nn.Conv2d(shape[0], 64, 7, 2, 3, bias=False)
    return net


def resnet_18(shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """ResNet-18 (He et al. 2016), large or small stem by the size of the images; `width` multiplies the channels after
    the stem."""
    return _torchvision("BasicBlock", [2, 2, 2, 2], shape, classes, width)


def resnet_50(shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
    """ResNet-50; `width` as above."""
    return _torchvision("Bottleneck", [3, 4, 6, 3], shape, classes, width)


def timm(shape: Shape, classes: int, name: str, version: str, pretrained: bool = False) -> nn.Module:
    """Any network of timm, at the size of the images. Raises UserError for an unknown name."""
    import timm as library

    if not library.is_model(name):
        raise UserError(f"model.name: timm has no '{name}'{near(name, library.list_models())}")
    if pretrained:
        _reachable(name)
    sizes: dict[str, Any] = {"num_classes": classes, "in_chans": shape[0], "pretrained": pretrained}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try:
                net: nn.Module = library.create_model(name, img_size=shape[1:], **sizes)
            except TypeError:  # convolutional networks take any size
                net = library.create_model(name, **sizes)
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise UserError(f"timm's weights for '{name}' cannot be had: {str(error).splitlines()[0]}") from None
    return net


def _reachable(name: str) -> None:
    """Raise a UserError, instead of a minute of retries, where the weights are not here and their host is not there."""
    import timm as library
    from huggingface_hub import constants, try_to_load_from_cache

    source = library.get_pretrained_cfg(name)
    hub = getattr(source, "hf_hub_id", None)
    files = ("model.safetensors", "pytorch_model.bin")
    if not hub or any(isinstance(try_to_load_from_cache(hub, file), str) for file in files) or getproxies():
        return
    host = urlsplit(constants.ENDPOINT).hostname
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError as error:
        raise UserError(f"timm's weights for '{name}' cannot be had: no connection to {host}: {error}") from None


def file(shape: Shape, classes: int, sha256: str, **arguments: object) -> nn.Module:
    """The network that `model(shape, classes, **arguments)` in a user's file builds."""
    spec = importlib.util.spec_from_file_location(f"lthbench_model_{sha256[:12]}", FILES[sha256])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "model"):
        raise UserError(f"model.file: '{FILES[sha256]}' defines no function model(shape, classes)")
    net: nn.Module = module.model(shape, classes, **arguments)
    return net
