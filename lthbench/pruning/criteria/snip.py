"""SNIP: connection sensitivity (Lee, Ajanthan, Torr, ICLR 2019, arXiv 1810.02340).

The paper scores |dL/dc| at c = 1, c the indicators that weights are there, over its sum; dL/dc = w dL/dw, and the
sum does not change a ranking. The absolute value is taken after the mean over images. Iter-SNIP (de Jorge et al.
2021, arXiv 2006.09081) is the same score in many rounds on the masked network.

The published code does otherwise: it scores one draw of the weights and trains another (`control=reinit`), and prunes
biases too (here they are not prunable). Ports score with BatchNorm in train mode (`mode: train`).
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("snip", version=1, data=True)
def snip(net: Subject):  # type: ignore[no-untyped-def]
    """|w dL/dw|: how much the loss feels the weight's absence."""
    return {name: (net.weights[name].detach() * g).abs() for name, g in net.gradient().items()}
