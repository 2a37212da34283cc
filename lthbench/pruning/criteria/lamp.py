"""LAMP: layer-adaptive magnitude (Lee et al., ICLR 2021, arXiv 2010.07611).

A weight's square over the sum of the squares that are at least as large in its layer: with allocation=global this finds
its own densities, and no layer is emptied before every other has one weight. Deviation: the sums are taken from the
largest down in float64, where the published code subtracts a running sum from the total in float32.
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("lamp", version=1)
def lamp(net: Subject):  # type: ignore[no-untyped-def]
    """w^2 / sum of v^2 over the layer's |v| >= |w|: the largest weight of each layer scores 1."""
    scores = {}
    for name, weight in net.weights.items():
        squares, order = weight.detach().double().square().flatten().sort(descending=True, stable=True)
        share = (squares / squares.cumsum(0)).nan_to_num(0.0)  # 0 / 0 in a layer of zeros
        scores[name] = share.new_empty(share.shape).scatter_(0, order, share).view(weight.shape)
    return scores
