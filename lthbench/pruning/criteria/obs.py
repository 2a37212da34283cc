"""OBS: optimal brain surgeon (Hassibi and Stork, NeurIPS 1992; blocks and empirical Fisher: Singh and Alistarh,
WoodFisher, NeurIPS 2020, arXiv 2004.14340; Kurtic et al., oBERT, EMNLP 2022, arXiv 2203.07259).

F is the curvature plus `damping` on its diagonal, in blocks of `block` consecutive weights of a layer (0, or a layer
that is smaller: the whole layer, exactly); it takes weights * block numbers of memory. After the selection the weights
that stay take up what the others leave: the joint minimum over each block, where WoodFisher and oBERT add up single
updates. Deviation: gradients of single images, not means over mini-batches.
"""

from lthbench.pruning.criteria import Subject, check_curvature, criterion

LARGEST = 10_000  # weights in a block: its matrix is 0.8 GB in float64, and inverting it takes a minute


@criterion("obs", version=1, data=True, updates=True, check=check_curvature)
def obs(net: Subject, block: int = 50, damping: float = 1e-7, labels: str = "given"):  # type: ignore[no-untyped-def]
    """w^2 / (2 [F^-1]_ww): the loss that removal costs once the other weights have made up for it."""
    import torch

    from lthbench.pruning.curvature import rows

    images = sum(len(y) for _, y in net.batches)
    curvature = {}
    for name, w in net.weights.items():
        size = min(block or w.numel(), w.numel())
        if size > LARGEST:
            raise ValueError(f"pruner.block: {size:,} weights of {name} at once are more than {LARGEST:,}")
        curvature[name] = w.new_zeros(-(-w.numel() // size), size, size)  # (blocks, size, size)
    for row in rows(net, labels):
        for name, a in row.items():
            a = _blocks(a, curvature[name])
            curvature[name].baddbmm_(a.unsqueeze(2), a.unsqueeze(1), alpha=1 / images)

    def fisher(name, alive):  # type: ignore[no-untyped-def]
        """F in float64, with the identity in the rows and columns of what is not alive."""
        f = curvature[name].to(torch.float64, copy=True)
        f.diagonal(dim1=1, dim2=2).add_(damping)
        f *= alive.unsqueeze(1) * alive.unsqueeze(2)
        f.diagonal(dim1=1, dim2=2).add_((~alive).double())
        return f

    scores = {}
    for name, w in net.weights.items():
        alive = _blocks(net.mask[name], curvature[name])
        inverse = torch.linalg.inv(fisher(name, alive)).diagonal(dim1=1, dim2=2).flatten()[: w.numel()].view_as(w)
        scores[name] = w.detach().double() ** 2 / (2 * inverse)

    def update(mask):  # type: ignore[no-untyped-def]
        """The weights that stay, at the minimum of d^T F d / 2 over their own changes: F_KK d_K = F_KQ w_Q."""
        moved = {}
        for name, w in net.weights.items():
            stay, were = _blocks(mask[name], curvature[name]), _blocks(net.mask[name], curvature[name])
            removed = _blocks(w.detach(), curvature[name]).double() * ~stay
            pull = (fisher(name, were) @ removed.unsqueeze(2)).squeeze(2) * stay
            change = torch.linalg.solve(fisher(name, stay), pull)
            moved[name] = w.detach() + change.flatten()[: w.numel()].view_as(w).to(w.dtype) * mask[name]
        return moved

    return scores, update


def _blocks(values, like):  # type: ignore[no-untyped-def]
    """(any shape) -> (blocks, size), filled up with zeros."""
    flat = values.new_zeros(like.shape[0] * like.shape[1])
    flat[: values.numel()] = values.flatten()
    return flat.view(like.shape[:2])
