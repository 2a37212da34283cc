"""GraSP: gradient signal preservation (Wang, Zhang, Grosse, ICLR 2020, arXiv 2002.07376).

The paper removes the weights with the largest -w (Hg): those whose removal raises the gradient norm most. Larger =
kept, so the score is w (Hg), signed. Hg is the gradient of |g|^2 / 2; with several batches, g is the gradient over
all of them and the products H_b g add up.

The published code does otherwise: `halves` splits each batch into the images of the lower and the upper classes, each
normalised by itself; `redraw` scores a copy whose linear layers are drawn anew (Glorot normal); it keeps one weight
more than it says (not done here). `absolute` keeps the largest |w (Hg)|, which works better (Frankle et al. 2021, arXiv
2009.08576).
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("grasp", version=1, data=True, later=("halves", "redraw", "absolute"))
def grasp(  # type: ignore[no-untyped-def]
    net: Subject, temperature: float = 200.0, halves: bool = False, redraw: bool = False, absolute: bool = False
):
    """w (Hg), signed: pruning keeps the flow of gradients; logits are divided by `temperature`."""
    import torch
    from torch.nn.functional import cross_entropy

    weights = list(net.weights.values())
    images = sum(len(y) for _, y in net.batches)
    batches = [half for batch in net.batches for half in _halves(*batch)] if halves else net.batches
    linear = [m.weight for m in net.model.modules() if isinstance(m, torch.nn.Linear)] if redraw else []
    kept = [w.detach().clone() for w in linear]

    def gradient(x, y, graph):  # type: ignore[no-untyped-def]
        loss = cross_entropy(net.model(x) / temperature, y, reduction="sum") / images
        return torch.autograd.grad(loss, weights, create_graph=graph)

    try:
        with torch.random.fork_rng(devices=[]):
            for w in linear:
                torch.nn.init.xavier_normal_(w)
        total = None
        if len(batches) > 1:
            parts = [gradient(x, y, False) for x, y in batches]
            total = [sum(gs) for gs in zip(*parts)]
        hessian_gradient = [torch.zeros_like(w) for w in weights]
        for x, y in batches:
            g = gradient(x, y, True)
            along = [p.detach() for p in g] if total is None else total
            for sum_, part in zip(
                hessian_gradient, torch.autograd.grad(sum((a * p).sum() for a, p in zip(along, g)), weights)
            ):
                sum_ += part
        scores = {name: w.detach() * hg for (name, w), hg in zip(net.weights.items(), hessian_gradient)}
        return {name: s.abs() for name, s in scores.items()} if absolute else scores
    finally:
        with torch.no_grad():
            for w, before in zip(linear, kept):
                w.copy_(before)


def _halves(x, y):  # type: ignore[no-untyped-def]
    """A batch in order of class, cut in two."""
    order = y.argsort(stable=True)
    return [(x[rows], y[rows]) for rows in order.tensor_split(2)]
