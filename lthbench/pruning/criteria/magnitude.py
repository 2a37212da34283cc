"""Magnitude: |w| (Han et al., NeurIPS 2015, arXiv 1506.02626)."""

from lthbench.pruning.criteria import Subject, criterion


@criterion("magnitude", version=1)
def magnitude(net: Subject):  # type: ignore[no-untyped-def]
    """|w|: the largest weights stay."""
    return {name: weight.detach().abs() for name, weight in net.weights.items()}
