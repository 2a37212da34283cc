"""The reference: the training loop a good engineer would write by hand for one network and one data set.

It imports nothing of lthbench. Data in memory, channels-last, the optimiser's fused kernels, no synchronisation; masks
by multiplying gradients. Whoever makes it faster makes every ratio in the bench honest: please do.
"""

import contextlib

import torch
from torch.nn import functional as F


def adam(parameters, lr=1.2e-3):
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    steps = [torch.zeros(()) for _ in parameters]
    fixed = {"weight_decay": 0.0, "eps": 1e-8, "amsgrad": False, "maximize": False}

    def step(grads):
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(parameters, grads, first, second, [], steps, lr=lr, beta1=0.9, beta2=0.999, **fixed)

    return step


def sgd(parameters, lr=0.1):
    momenta = [torch.zeros_like(p) for p in parameters]
    fixed = {"dampening": 0.0, "nesterov": False, "maximize": False, "is_first_step": False}

    def step(grads):
        torch._fused_sgd_(parameters, grads, momenta, weight_decay=1e-4, momentum=0.9, lr=lr, **fixed)

    return step


def trainer(net, x, y, mean, std, masks, optimizer, batch, pad=0, flip=False, bf16=False):
    """A function run(begin, end) of steps, from images uint8 (N, C, H, W), labels (N,), masks by parameter name."""
    net = net.to(memory_format=torch.channels_last).train()
    parameters = list(net.parameters())
    step = torch.no_grad()(optimizer(parameters))
    pairs = [(p, masks[name]) for name, p in net.named_parameters() if name in masks]
    keep = [torch.empty_like(p, requires_grad=False).copy_(mask) for p, mask in pairs]
    n, _, height, width = x.shape
    mean, std = (255 * torch.tensor(v).view(1, -1, 1, 1) for v in (mean, std))
    augment = pad or flip
    x = F.pad(x, (pad,) * 4) if augment else (x.float() - mean) / std
    x = x.contiguous(memory_format=torch.channels_last)
    per_epoch = -(-n // batch)
    drawn = {}

    def begin_epoch():
        drawn["order"] = torch.randperm(n)
        if augment:
            drawn["corners"] = torch.randint(0, 2 * pad + 1, (n, 2)).tolist()
            drawn["flips"] = torch.rand(n) < 0.5 if flip else torch.zeros(n, dtype=torch.bool)

    def images(index):
        if not augment:
            return x.index_select(0, index)
        corners = [(i, *drawn["corners"][i]) for i in index.tolist()]
        xb = torch.stack([x[i, :, top : top + height, left : left + width] for i, top, left in corners])
        xb = torch.where(drawn["flips"][index].view(-1, 1, 1, 1), xb.flip(3), xb)
        return ((xb.float() - mean) / std).contiguous(memory_format=torch.channels_last)

    def run(begin, end):
        torch.set_flush_denormal(True)
        for i in range(begin, end):
            if i % per_epoch == 0 or not drawn:
                begin_epoch()
            index = drawn["order"][i % per_epoch * batch : (i % per_epoch + 1) * batch]
            with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext():
                loss = F.cross_entropy(net(images(index)), y.index_select(0, index))
            for p in parameters:
                p.grad = None
            loss.backward()
            torch._foreach_mul_([p.grad for p, _ in pairs], keep)
            step([p.grad for p in parameters])

    return run
