"""Weights and masks of one network put into another of the same architecture, the output layer drawn anew or not."""

from __future__ import annotations

from torch import Tensor

from lthbench.base.errors import UserError
from lthbench.models import ModelSettings, create
from lthbench.models.initialise import fresh, output_of

Tensors = dict[str, Tensor]


def transplanted(
    model: ModelSettings, weights: Tensors, mask: Tensors, output: tuple[str, int] | None
) -> tuple[Tensors, Tensors]:
    """The network's tensors and masks (bool, True = kept, by parameter name).

    `output` (initialiser, seed) draws the output layer anew and leaves it unpruned; None keeps the ticket's. Raises
    UserError naming the first tensor that does not fit.
    """
    net = create(model) if output is None else fresh(model, output[0], output[1], 0)
    own = {k: v.detach().clone() for k, v in net.state_dict().items()}
    apart = output_of(net) if output is not None else set()
    for name in sorted((own.keys() | weights.keys()) - apart):
        if name not in own or name not in weights:
            raise UserError(f"ticket: '{name}' is in {'the ticket' if name in weights else model.name} only")
        if own[name].shape != weights[name].shape:
            there, here = tuple(weights[name].shape), tuple(own[name].shape)
            hint = "" if apart or name not in output_of(net) else "; ticket_output=fresh draws the output layer anew"
            raise UserError(f"ticket: '{name}' is {there} in the ticket, {here} in {model.name}{hint}")
        own[name] = weights[name]
    return own, {name: kept for name, kept in mask.items() if name in own and name not in apart}


def read_state(path: str) -> tuple[Tensors, Tensors]:
    """Weights and masks of a state's file, as runs leave them. Raises UserError if it is something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"ticket: '{path}' is no safetensors file: {error}") from None
    parts = {p: {k[len(p) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{p}/")} for p in ("weights", "mask")}
    if not parts["weights"] or not parts["mask"]:
        raise UserError(f"ticket: '{path}' holds no weights/ and mask/, as the file of a pruned network does")
    return parts["weights"], parts["mask"]
