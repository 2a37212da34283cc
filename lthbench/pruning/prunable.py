"""Which weights are counted and pruned: presets, one for each convention of the literature."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from lthbench.base.errors import UserError, near

if TYPE_CHECKING:
    from torch import nn


class Weight(NamedTuple):
    """A parameter that may be pruned. kind: `conv`, `linear`, `output` for the last linear layer; role: see ROLES."""

    parameter: nn.Parameter
    kind: str
    role: str = ""


PRESETS: dict[str, tuple[str, Callable[[str, Weight], bool]]] = {
    "weights": ("all weights of convolutions and linear layers (most papers)", lambda name, w: True),
    "conv": ("convolutions only (Rethinking, PrAC)", lambda name, w: w.kind == "conv"),
    "conv_3x3": (
        "convolutions larger than 1x1 (LTH section 4: no shortcuts, no output)",
        lambda name, w: w.kind == "conv" and w.parameter.shape[2:] != (1, 1),
    ),
    "encoder": (
        "all weights but the output layer's, a pooler's and embeddings' (fine-pruning: Sanh et al. 2020)",
        lambda name, w: w.role not in ("head", "pooler", "embedding"),
    ),
    "no_output": ("all weights but the output layer's (open_lth's LeNet)", lambda name, w: w.kind != "output"),
}


ROLES = {  # what a layer of a transformer is for, by what timm and transformers call it; the first that fits
    "embedding": r"embed|(^|\.)(wte|wpe)\.",
    "attention": r"attn|attention",
    "mlp": r"mlp|ffn|feed_?forward|(^|\.)(intermediate|output)\.dense",
    "pooler": r"(^|\.)pooler\.",
    "head": r"(^|\.)(heads?|head_dist|classifier|pre_classifier|qa_outputs|score)\.",
}


def role(name: str, kind: str) -> str:
    """What a weight is for in a transformer (ROLES), by its name; its kind in other networks."""
    if kind == "output":
        return "head"
    return next((what for what, pattern in ROLES.items() if re.search(pattern, name)), kind)


def roles(names: Iterable[str]) -> dict[str, list[str]] | None:
    """The weights of a transformer by what they are for, those without a role under `other`; None: it is none."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(role(name, "other"), []).append(name)
    return found if found.keys() & {"attention", "mlp"} else None


def known(preset: str) -> str:
    """The preset, or a UserError that names the nearest one."""
    if preset not in PRESETS:
        raise UserError(f"prunable: unknown preset '{preset}'{near(preset, PRESETS)}")
    return preset


def prunable(net: nn.Module, preset: str) -> dict[str, Weight]:
    """The prunable weights by parameter name, in the order of the network's modules (ties depend on it)."""
    from torch import nn

    layers = [(name, m) for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    last = next((name for name, m in reversed(layers) if isinstance(m, nn.Linear)), None)
    found = {}
    for name, module in layers:
        kind = "conv" if isinstance(module, nn.Conv2d) else "output" if name == last else "linear"
        weight = Weight(module.weight, kind, role(f"{name}.weight", kind))  # type: ignore[arg-type]
        if PRESETS[preset][1](name, weight):
            found[f"{name}.weight"] = weight
    if not found:
        raise UserError(f"prunable={preset}: this network has no such weights")
    return found
