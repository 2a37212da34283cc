"""ProsPr: prospect pruning (Alizadeh et al., ICLR 2022, arXiv 2202.08132).

The masked initial weights m w take `steps` SGD steps; the score is |dL/dm| of the loss after them at m = 1. With
`first_order` the derivative of the trained weights by the initial ones is taken as the identity: |w dL/dw_trained|.
One scoring batch is used for all steps; with steps + 1, step i takes batch i and the loss the last.

The published code does otherwise: with momentum it detaches the first momentum buffer, so that step 1 contributes no
derivative (`detach_first_momentum`), and its command line takes momentum 0 and one batch for all steps.
"""

from lthbench.base.errors import UserError
from lthbench.pruning.criteria import Subject, criterion


def check(settings, how) -> None:  # type: ignore[no-untyped-def]
    """Raise a UserError for steps that cannot be taken, and for batches that are too few or too many for them."""
    if (steps := settings.get("steps", 3)) < 0:
        raise UserError(f"pruner.steps: {steps} is negative")
    if how.batches not in (1, steps + 1):
        raise UserError(
            f"pruner.batches: {how.batches} for {steps} steps; 1 for all, or {steps + 1}, one each and one after"
        )


@criterion("prospr", version=1, data=True, check=check)
def prospr(  # type: ignore[no-untyped-def]
    net: Subject,
    steps: int = 3,
    lr: float = 0.1,
    momentum: float = 0.0,
    first_order: bool = False,
    detach_first_momentum: bool = False,
):
    """|dL/dm| of the loss after a few training steps from the masked weights."""
    import torch
    from torch.nn.functional import cross_entropy

    mask = {name: torch.ones_like(w, requires_grad=True) for name, w in net.weights.items()}
    start = {name: p.detach().requires_grad_() for name, p in net.model.named_parameters()}
    parameters = {name: p * mask[name] if name in mask else p for name, p in start.items()}
    buffers: dict[str, torch.Tensor] = {}

    def loss(i):  # type: ignore[no-untyped-def]
        x, y = net.batches[min(i, len(net.batches) - 1)]
        return cross_entropy(torch.func.functional_call(net.model, parameters, x), y)

    for i in range(steps):
        names = list(parameters)
        grads = torch.autograd.grad(loss(i), list(parameters.values()), create_graph=not first_order)
        for name, g in zip(names, grads):
            if momentum:
                first = g.detach() if detach_first_momentum and name not in buffers else g
                g = buffers[name] = momentum * buffers[name] + g if name in buffers else first
            moved = parameters[name] - lr * g
            parameters[name] = moved.detach().requires_grad_() if first_order else moved
    if first_order:
        trained = torch.autograd.grad(loss(steps), [parameters[name] for name in mask])
        return {name: (start[name].detach() * g).abs() for name, g in zip(mask, trained)}
    return {name: g.abs() for name, g in zip(mask, torch.autograd.grad(loss(steps), list(mask.values())))}
