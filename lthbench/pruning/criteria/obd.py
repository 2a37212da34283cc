"""OBD: optimal brain damage (LeCun, Denker, Solla, NeurIPS 1989).

The loss that a weight's removal costs at a minimum where the Hessian is taken as diagonal. Deviation: the paper's
backward recursion drops the units' cross terms; here h is the exact diagonal of the Gauss-Newton matrix (`labels:
all`), which for piecewise linear networks is the Hessian's own, at one backward pass an image and class, or of the
empirical Fisher matrix (`labels: given`), at one an image. Both are never negative.
"""

from lthbench.pruning.criteria import Subject, check_curvature, criterion


@criterion("obd", version=1, data=True, check=check_curvature)
def obd(net: Subject, labels: str = "all"):  # type: ignore[no-untyped-def]
    """h w^2 / 2, h the diagonal of the Hessian: the loss that removing the weight costs."""
    import torch

    from lthbench.pruning.curvature import rows

    images = sum(len(y) for _, y in net.batches)
    diagonal = {name: torch.zeros_like(w) for name, w in net.weights.items()}
    for row in rows(net, labels):
        for name, a in row.items():
            diagonal[name].addcmul_(a, a, value=1 / images)
    return {name: h * net.weights[name].detach() ** 2 / 2 for name, h in diagonal.items()}
