"""FORCE: foresight connection sensitivity (de Jorge et al., ICLR 2021, arXiv 2006.09081).

The gradient is taken at the masked network, but for all weights, pruned ones included, and multiplied with their
original values: what was pruned in an early round may come back in a later one (`regrow`).
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("force", version=1, data=True)
def force(net: Subject):  # type: ignore[no-untyped-def]
    """|w_original dL/dw| with the gradient at the masked network."""
    return {name: (net.original[name] * g).abs() for name, g in net.gradient().items()}
