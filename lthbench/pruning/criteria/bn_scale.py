"""BatchNorm scale: network slimming (Liu et al., ICCV 2017, arXiv 1708.06519).

A filter is worth the |gamma| by which BatchNorm multiplies its output; where several BatchNorms see a channel, their
mean. Each weight has an equal part of it, so that a filter's weights add up to |gamma|. The paper trains with an L1
penalty on gamma, which is a recipe's business, and prunes channels: structure=filter.
"""

from lthbench.pruning.criteria import Subject, criterion


@criterion("bn_scale", version=1)
def bn_scale(net: Subject):  # type: ignore[no-untyped-def]
    """|gamma| of the BatchNorm behind the filter, over the filter's number of weights."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from lthbench.models.channels import trace

    channels = trace(net.model, net.shape)
    scale = torch.zeros(channels.count + 1, dtype=torch.float64)  # the last: what belongs to no channel
    seen = torch.zeros_like(scale)
    for name, module in net.model.named_modules():
        axes = channels.axes.get(f"{name}.weight")
        if isinstance(module, _BatchNorm) and axes is not None and axes[0] is not None:
            scale.index_add_(0, axes[0] % len(scale), module.weight.detach().abs().double().cpu())
            seen.index_add_(0, axes[0] % len(scale), torch.ones(len(axes[0]), dtype=torch.float64))
    scores = {}
    for name, weight in net.weights.items():
        units = channels.axes.get(name, (None,))[0]
        if weight.dim() < 4:
            scores[name] = torch.zeros_like(weight)
            continue
        if units is None or not seen[units].all():
            raise ValueError(f"criterion bn_scale: no BatchNorm follows {name}")
        each = (scale[units] / seen[units] / weight[0].numel()).to(weight)
        scores[name] = each.view(-1, 1, 1, 1).expand_as(weight).contiguous()
    return scores
