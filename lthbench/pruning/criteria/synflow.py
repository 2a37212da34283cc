"""SynFlow: synaptic flow (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020, arXiv 2006.05467).

R = 1^T (prod_l |W_l|) 1 is the output of the network on an image of ones with all parameters made positive and
BatchNorm the identity; the score |w dR/dw| conserves flow through layers, so that many rounds never empty one.

The published code does otherwise: float32 (`dtype`; R overflows it on deep networks), and BatchNorm's statistics made
positive, which at initialisation changes nothing; here they count as (0, 1), so that trained networks score too.
"""

from lthbench.base.errors import UserError
from lthbench.pruning.criteria import Subject, criterion


def check(settings, how) -> None:  # type: ignore[no-untyped-def]
    """Raise a UserError where BatchNorm would normalise the flow away."""
    if how.mode != "eval":
        raise UserError("pruner.mode: synflow needs eval; BatchNorm over one image of ones leaves no flow")


@criterion("synflow", version=1, check=check)
def synflow(net: Subject):  # type: ignore[no-untyped-def]
    """|w| dR/d|w|: the share of the synaptic flow that runs through the weight; needs no data."""
    import torch

    signs = {
        name: net.original[name] if name in net.original else p.detach().clone()
        for name, p in net.model.named_parameters()
    }
    buffers = {name: buffer.clone() for name, buffer in net.model.named_buffers()}
    try:
        with torch.no_grad():
            for parameter in net.model.parameters():
                parameter.abs_()
            for module in net.model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.reset_running_stats()
        weights = list(net.weights.values())
        ones = torch.ones(1, *net.shape, dtype=weights[0].dtype)
        grads = torch.autograd.grad(net.model(ones).sum(), weights)
        return {name: g.mul_(w.detach()).abs_() for (name, w), g in zip(net.weights.items(), grads)}
    finally:
        with torch.no_grad():
            for name, parameter in net.model.named_parameters():
                parameter.copysign_(signs[name])
            for name, buffer in net.model.named_buffers():
                buffer.copy_(buffers[name])
