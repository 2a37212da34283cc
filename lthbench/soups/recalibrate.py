"""BatchNorm's running statistics, made anew for weights that no training step has seen."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from lthbench.base.seeds import derive
from lthbench.data.stream import split
from lthbench.soups.settings import Recalibrate
from lthbench.training.checkpoint import Checkpoint


def recalibrated(checkpoint: Checkpoint, how: Recalibrate, device: str = "cpu") -> Checkpoint:
    """The network with new statistics; weights, masks and global generators are left alone."""
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        return _recalibrated(checkpoint, how, device)


def _recalibrated(checkpoint: Checkpoint, how: Recalibrate, device: str) -> Checkpoint:
    net = checkpoint.network().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layers = [m for m in net.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return checkpoint
    images = split(how.data, "train", device)
    steps = -(-len(images) // how.batch)
    stream = images.stream(how.data.augment, how.batch, steps, how.seed or 0, ())  # as the images lie
    net.train(how.how == "sms")
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    seen = 0
    for step in range(max(1, round(how.share * steps))):
        torch.manual_seed(derive(how.seed or 0, "recalibrate", step))
        x, _ = stream.batch(step)
        seen += len(x)
        if how.how == "cumulative":
            for layer in layers:
                layer.momentum = len(x) / seen  # then the running value is the exact mean over all images so far
        net(x)
    fresh = {k: v.detach().cpu() for k, v in net.state_dict().items()}
    kept = dict(net.named_parameters())
    weights = {k: checkpoint.weights[k] if k in kept else fresh[k] for k in checkpoint.weights}
    return Checkpoint(checkpoint.model, weights, checkpoint.mask, checkpoint.diverged_at)
