"""Magnitude: |w| (Han et al., NeurIPS 2015, arXiv 1506.02626).

Han et al. remove what is below a multiple of the layer's standard deviation (`allocation=threshold`); most later papers
an exact count.
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("magnitude", version=1)
def magnitude(net: Subject):  # type: ignore[no-untyped-def]
    """|w|: the largest weights stay."""
    return {name: weight.detach().abs() for name, weight in net.weights.items()}
