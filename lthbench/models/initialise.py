"""Initial weights: published initialisers, and weights from a file."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from lthbench.base.errors import UserError, near
from lthbench.base.seeds import derive
from lthbench.models import ModelSettings, create

INITIALISERS = ("pytorch", "kaiming_normal", "kaiming_normal_fan_out", "glorot_normal", "variance_scaling")
ANEW = "model.weights_output=fresh draws it anew"
PREFIXES = ("module.", "model.", "_orig_mod.")  # of DataParallel, of a module around the network, of torch.compile


def fresh(model: ModelSettings, scheme: str, seed: int, index: int) -> nn.Module:
    """A network with new weights from the stream (seed, init, index); the global generator is left as it was.

    scheme, for convolutions and linear layers (biases 0; normalisation layers 1 and 0):
    `pytorch` as the layers come; `kaiming_normal` (gain sqrt 2, fan in) and `_fan_out`; `glorot_normal`;
    `variance_scaling`, TensorFlow's default (truncated normal, scale 1, fan in).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", index))
        net = create(model)
        if scheme != "pytorch":
            for module in net.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    _draw(module.weight, scheme)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
    return net


def _draw(weight: Tensor, scheme: str) -> None:
    if scheme == "kaiming_normal":
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
    elif scheme == "kaiming_normal_fan_out":
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    elif scheme == "glorot_normal":
        nn.init.xavier_normal_(weight)
    else:
        std = math.sqrt(1 / nn.init._calculate_fan_in_and_fan_out(weight)[0]) / 0.87962566103423978
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def output_of(net: nn.Module) -> set[str]:
    """The parameters of the last linear layer, which a task has of its own."""
    layers = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Linear)]
    return {f"{layers[-1][0]}.{name}" for name, _ in layers[-1][1].named_parameters()} if layers else set()


def pretrained(model: ModelSettings, output: tuple[str, int] | None = None) -> nn.Module:
    """A network of timm with the weights timm has for it; `output` as in `given`.

    Raises UserError where they cannot be had, or where timm would draw an output layer by itself.
    """
    from lthbench.models.others import timm

    net = timm(model.shape, model.classes, **model.args, pretrained=True)  # type: ignore[arg-type]
    if output is not None:
        drawn = fresh(model, *output, 0).state_dict()
        net.load_state_dict({n: drawn[n] if n in output_of(net) else t for n, t in net.state_dict().items()})
        return net
    theirs = getattr(net, "pretrained_cfg", {}).get("num_classes", model.classes)
    if theirs != model.classes:
        raise UserError(f"model.pretrained: timm's output layer is for {theirs} classes, not {model.classes}; {ANEW}")
    return net


def given(model: ModelSettings, path: str, output: tuple[str, int] | None = None) -> nn.Module:
    """A network with the weights of a file: safetensors, or a PyTorch state dict (nothing else is unpickled).

    Wrappers (`state_dict`, `model`) and prefixes common to all names (`module.`) are taken off. `output` (initialiser,
    seed) draws the output layer anew, whatever the file has in its place.
    Raises UserError naming the first name or shape that does not fit.
    """
    net = create(model) if output is None else fresh(model, *output, 0)
    wanted, head = net.state_dict(), output_of(net)
    weights = _unwrap(_load(path), wanted)
    for name, tensor in wanted.items():
        if output is not None and name in head:
            weights[name] = tensor
        if name not in weights:
            if name.endswith("num_batches_tracked"):
                weights[name] = tensor
                continue
            raise UserError(f"model.weights: '{path}' has no '{name}', which {model.name} needs")
        if weights[name].shape != tensor.shape:
            sizes = f"{tuple(weights[name].shape)} in '{path}', {tuple(tensor.shape)} in {model.name}"
            raise UserError(f"model.weights: '{name}' is {sizes}" + (f"; {ANEW}" if name in head else ""))
    if extra := next((name for name in weights if name not in wanted), None):
        raise UserError(f"model.weights: '{path}' holds '{extra}', which {model.name} has not")
    net.load_state_dict(weights)
    return net


def _load(path: str) -> dict[str, Tensor]:
    if path.endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"model.weights: '{path}' is not a safetensors file: {error}") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"model.weights: '{path}' is no plain state dict: {first}") from None
    while isinstance(loaded, dict):
        inner = next((loaded[k] for k in ("state_dict", "model") if isinstance(loaded.get(k), dict)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        raise UserError(f"model.weights: '{path}' is no state dict of tensors")
    return loaded


def _unwrap(weights: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Take off what wrappers put before all names, until names are the network's own."""
    while not any(name in wanted for name in weights):
        prefix = next((p for p in PREFIXES if weights and all(name.startswith(p) for name in weights)), None)
        if prefix is None:
            break
        weights = {name[len(prefix) :]: tensor for name, tensor in weights.items()}
    return weights


def known(scheme: str) -> None:
    """Raise a UserError unless this is the name of an initialiser."""
    if scheme not in INITIALISERS:
        raise UserError(f"model.init: unknown '{scheme}'{near(scheme, INITIALISERS)}")
