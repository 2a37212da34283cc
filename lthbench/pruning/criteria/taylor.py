"""First-order Taylor scores of trained networks (Molchanov et al., ICLR 2017, arXiv 1611.06440; CVPR 2019, arXiv
1906.10771).

Near a minimum the mean gradient vanishes and with it |w g|, which is SNIP's score after training; `taylor` takes the
square of each batch before the mean. Deviation: the papers score filters (sums over a filter, or gates); here single
weights.
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("gradient_times_weight", version=1, data=True)
def gradient_times_weight(net: Subject):  # type: ignore[no-untyped-def]
    """|w g|, g the mean gradient over all batches: SNIP's score of a trained network."""
    return {name: (net.weights[name].detach() * g).abs() for name, g in net.gradient().items()}


@criterion("taylor", version=1, data=True)
def taylor(net: Subject):  # type: ignore[no-untyped-def]
    """mean over batches of (w g)^2, g the batch's gradient: the squared first-order change of the loss."""
    total = {name: w.new_zeros(w.shape) for name, w in net.weights.items()}
    for batch in net.batches:
        for name, g in net.gradient([batch]).items():
            total[name] += (net.weights[name].detach() * g) ** 2 / len(net.batches)
    return total
