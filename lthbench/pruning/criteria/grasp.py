"""GraSP: gradient signal preservation (Wang, Zhang, Grosse, ICLR 2020, arXiv 2002.07376).

The paper removes the weights with the largest -w (Hg): those whose removal raises the gradient norm most. Larger =
kept, so the score is w (Hg), signed. Hg is the gradient of |g|^2 / 2; with several batches, g is the gradient over
all of them and the products H_b g add up. The published code splits the classes over two half-batches, re-draws the
last layer of the scored copy, and keeps one weight more: not done here.
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("grasp", version=1, data=True)
def grasp(net: Subject, temperature: float = 200.0):  # type: ignore[no-untyped-def]
    """w (Hg), signed: pruning keeps the flow of gradients; logits are divided by `temperature`."""
    import torch
    from torch.nn.functional import cross_entropy

    weights = list(net.weights.values())
    images = sum(len(y) for _, y in net.batches)

    def gradient(x, y, graph):  # type: ignore[no-untyped-def]
        loss = cross_entropy(net.model(x) / temperature, y, reduction="sum") / images
        return torch.autograd.grad(loss, weights, create_graph=graph)

    total = None
    if len(net.batches) > 1:
        parts = [gradient(x, y, False) for x, y in net.batches]
        total = [sum(gs) for gs in zip(*parts)]
    hessian_gradient = [torch.zeros_like(w) for w in weights]
    for x, y in net.batches:
        g = gradient(x, y, True)
        along = [p.detach() for p in g] if total is None else total
        for sum_, part in zip(
            hessian_gradient, torch.autograd.grad(sum((a * p).sum() for a, p in zip(along, g)), weights)
        ):
            sum_ += part
    return {name: w.detach() * hg for (name, w), hg in zip(net.weights.items(), hessian_gradient)}
