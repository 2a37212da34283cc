"""SynFlow: synaptic flow (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020, arXiv 2006.05467).

R = 1^T (prod_l |W_l|) 1 is the output of the network on an image of ones with all parameters made positive and
BatchNorm the identity; the score |w dR/dw| conserves flow through layers, so that many rounds never empty one.

The published code does otherwise: float32 (`dtype`; R overflows it on deep networks), and BatchNorm's statistics made
positive, which at initialisation changes nothing; here they count as (0, 1), so that trained networks score too.
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("synflow", version=1)
def synflow(net: Subject):  # type: ignore[no-untyped-def]
    """|w| dR/d|w|: the share of the synaptic flow that runs through the weight; needs no data."""
    import torch

    kept = {name: tensor.detach().clone() for name, tensor in net.model.state_dict().items()}
    shape = net.shape
    try:
        with torch.no_grad():
            for parameter in net.model.parameters():
                parameter.abs_()
            for module in net.model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.reset_running_stats()
        weights = list(net.weights.values())
        ones = torch.ones(1, *shape, dtype=weights[0].dtype)
        flow = net.model(ones).sum()
        grads = torch.autograd.grad(flow, weights)
        return {name: (w.detach() * g).abs() for (name, w), g in zip(net.weights.items(), grads)}
    finally:
        net.model.load_state_dict(kept)
