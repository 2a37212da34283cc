"""How sparse a network is, by every count, and how many multiply-adds that leaves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lthbench.evaluation.paths import effective
from lthbench.pruning.prunable import prunable
from lthbench.training.checkpoint import Checkpoint


def describe(checkpoint: Checkpoint, preset: str) -> dict[str, Any]:
    """Sparsity over the prunable weights, all weights (convolutions and linear layers), all parameters, and the
    filters of convolutions (those with no weight left); nonzero parameters, counted by value; per-layer counts;
    diagnosis; multiply-adds dense and nonzero, and the theoretical speed-up, their ratio.

    The diagnosis names layers without a weight (`collapsed`) and counts prunable weights off every path from input to
    output, masked ones among them (`effective`, None where paths cannot be followed through what `unfollowed` says).

    Multiply-adds: C_in/groups * C_out * k_h * k_w * H_out * W_out for convolutions, in * out for linear layers, for
    one input; bias, BatchNorm and activations are not counted. Nonzero ones weight each layer by its density.
    """
    net = checkpoint.network()
    mask = checkpoint.mask
    parameters = dict(net.named_parameters())
    removed = {name: int((~kept).sum()) for name, kept in mask.items()}
    weights = [f"{name}.weight" for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    counted = prunable(net, preset)
    macs = multiply_adds(net, checkpoint.model.shape)

    def count(names: list[str]) -> dict[str, int]:
        return {"removed": sum(removed.get(n, 0) for n in names), "total": sum(parameters[n].numel() for n in names)}

    filters = {n: w for n, w in counted.items() if w.kind == "conv"}
    empty = sum(int((~mask[n].flatten(1).any(1)).sum()) for n in filters if n in mask)
    sparsity = {
        "prunable": count(list(counted)),
        "weights": count(weights),
        "parameters": count(list(parameters)),
    }
    if filters:
        sparsity["filters"] = {"removed": empty, "total": sum(len(w.parameter) for w in filters.values())}
    layers = {
        n: {"kept": parameters[n].numel() - removed.get(n, 0), "total": parameters[n].numel()}
        for n in parameters
        if n in mask or n in counted
    }
    on_path = effective(net, mask, checkpoint.model.shape)
    if not isinstance(on_path, str):
        for n in counted:
            layers[n]["effective"] = int(on_path[n].sum())
    total = sparsity["prunable"]["total"]
    dense = sum(macs.values())
    nonzero = sum(n * (1 - removed.get(name, 0) / parameters[name].numel()) for name, n in macs.items())
    return {
        "sparsity": sparsity,
        "parameters": {
            "dense": sparsity["parameters"]["total"],
            "nonzero": sum(int(checkpoint.weights[n].count_nonzero()) for n in parameters),
        },
        "layers": layers,
        "diagnosis": {
            "collapsed": [n for n in counted if not layers[n]["kept"]],
            "effective": None
            if isinstance(on_path, str)
            else {"removed": total - sum(layers[n]["effective"] for n in counted), "total": total},
            "unfollowed": on_path if isinstance(on_path, str) else None,
        },
        "flops": {"dense": dense, "nonzero": round(nonzero), "speedup": dense / nonzero if nonzero else None},
    }


@torch.no_grad()
def multiply_adds(net: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Multiply-adds of each convolution and linear layer for one input, by weight name, from real output shapes."""
    macs: dict[str, int] = {}
    handles = []
    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):

            def note(layer: Any, _: Any, out: Tensor, name: str = f"{name}.weight") -> None:
                positions = out[0, 0].numel() if isinstance(layer, nn.Conv2d) else out[0].numel() // layer.out_features
                macs[name] = macs.get(name, 0) + layer.weight.numel() * positions

            handles.append(module.register_forward_hook(note))
    net.eval()(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    return macs
