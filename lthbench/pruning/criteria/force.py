"""FORCE: foresight connection sensitivity (de Jorge et al., ICLR 2021, arXiv 2006.09081).

The gradient is taken at the masked network, but for all weights, pruned ones included, and multiplied with their
original values: what was pruned in an early round may come back in a later one (`regrow`).

The published code does otherwise: it keeps all ties at a threshold (here the count is exact), and the batches of a
round, each the first of a new shuffle, may overlap. Its batches: 1 for CIFAR-10, 10 for CIFAR-100, 20 for
Tiny-ImageNet.
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("force", version=1, data=True)
def force(net: Subject):  # type: ignore[no-untyped-def]
    """|w_original dL/dw| with the gradient at the masked network."""
    return {name: (net.original[name] * g).abs() for name, g in net.gradient().items()}
