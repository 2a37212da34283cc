"""Random pruning: the control that any criterion has to beat."""

from lthbench.pruning.criteria import Subject, criterion


@criterion("random", version=1, random=True)
def random(net: Subject):  # type: ignore[no-untyped-def]
    """Uniform random scores from the run's seed: every weight is equally likely to stay."""
    import torch

    return {name: torch.rand(weight.shape, generator=net.generator) for name, weight in net.weights.items()}
