"""Random pruning: the control that any criterion has to beat.

With `allocation=smart_ratio` the random tickets of Su et al. (NeurIPS 2020, arXiv 2009.11094), with `erk` the random
sparse networks of Liu et al. (ICLR 2022, arXiv 2202.02643).
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("random", version=1, random=True)
def random(net: Subject):  # type: ignore[no-untyped-def]
    """Uniform random scores from the run's seed: every weight is equally likely to stay."""
    import torch

    return {name: torch.rand(weight.shape, generator=net.generator) for name, weight in net.weights.items()}
