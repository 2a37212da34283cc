"""The rows of the bench for scores: each criterion against the passes that it cannot do without."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lthbench.bench.measure import Row, ratio, row, seconds
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable
from lthbench.pruning.prune import prune
from lthbench.pruning.scoring import Scoring, draw
from lthbench.pruning.select import Tensors, keep_top
from lthbench.training.checkpoint import Checkpoint

DATA = DataSettings("standin_cifar10", "official", Normalise("channel", (0.5,), (0.25,)), Augment())
TARGET = Density(Fraction(1, 100))
TOTAL = 25_000_000


def _network(name: str) -> Checkpoint:
    model = ModelSettings.of(name, {}, DATA.shape, DATA.classes)
    return Checkpoint.of(model, fresh(model, "kaiming_normal", 0, 0), {})


def _ours(net: Checkpoint, criterion: str, how: Scoring) -> Callable[[], object]:
    settings = CriterionSettings.of(criterion, {}, 0)
    return partial(prune, net, settings, Allocation("global", {}), "weights", TARGET, 1, how)


def _bare(net: Checkpoint, how: Scoring) -> tuple[nn.Module, list[Tensor], list[tuple[Tensor, Tensor]]]:
    """The network, its prunable weights and the batches, ready for a pass by hand."""
    model = net.network().to(getattr(torch, how.dtype)).train(how.mode == "train")
    return model, [w.parameter for w in prunable(model, "weights").values()], draw(how, 0)


def snip_by_hand(net: Checkpoint, how: Scoring) -> Callable[[], object]:
    """One forward and backward pass over the batch."""
    model, weights, [(x, y)] = _bare(net, how)
    return lambda: torch.autograd.grad(cross_entropy(model(x), y), weights)


def grasp_by_hand(net: Checkpoint, how: Scoring) -> Callable[[], object]:
    """The gradient, and the gradient of half its squared norm, through one graph."""
    model, weights, [(x, y)] = _bare(net, how)

    def run() -> object:
        g = torch.autograd.grad(cross_entropy(model(x) / 200, y), weights, create_graph=True)
        return torch.autograd.grad(sum((p.detach() * p).sum() for p in g), weights)  # type: ignore[arg-type]

    return run


def synflow_by_hand(net: Checkpoint, rounds: int) -> Callable[[], object]:
    """So many passes of one image through positive weights in float64, and as many selections among what is left."""
    model, weights, _ = _bare(net, Scoring(dtype="float64"))
    ones = torch.ones(1, *net.model.shape, dtype=torch.float64)
    steps = Scoring(rounds=rounds).densities(TARGET)
    total = sum(w.numel() for w in weights)
    with torch.no_grad():
        for w in weights:
            w.abs_()

    def run() -> object:
        mask = {str(i): torch.ones_like(w, dtype=torch.bool) for i, w in enumerate(weights)}
        for step in steps:
            grads = torch.autograd.grad(model(ones).sum(), weights)
            scores: Tensors = {str(i): g for i, g in enumerate(grads)}
            assert step is not None
            mask = keep_top(scores, step.kept(total), mask)
        return mask

    return run


def scores(blocks: int) -> Iterator[Row]:
    """SNIP, GraSP and SynFlow, whole prunings, against what they cannot do without; and the selection alone."""
    resnet, vgg = _network("resnet_20"), _network("vgg_16")
    snip = Scoring(data=DATA, seed=0, batch=128)
    grasp = Scoring(data=DATA, seed=0, per_class=10, mode="train")
    for name, net, criterion, how, by_hand in (
        ("SNIP against one forward-backward: ResNet-20, batch 128", resnet, "snip", snip, snip_by_hand),
        ("GraSP against a double backward by hand: ResNet-20, 10 a class", resnet, "grasp", grasp, grasp_by_hand),
    ):
        yield ratio(name, _ours(net, criterion, how), by_hand(net, how), blocks, _memory(criterion))
    rounds = 10
    flow = Scoring(rounds=rounds, dtype="float64")
    name = f"SynFlow against as many passes of one image and selections: VGG-16, {rounds} rounds"
    yield ratio(name, _ours(vgg, "synflow", flow), synflow_by_hand(vgg, rounds), blocks, _memory("synflow"))
    draws = torch.Generator().manual_seed(0)
    layers = {str(i): torch.rand(TOTAL // 10, generator=draws) for i in range(10)}
    alive = {name: torch.ones_like(s, dtype=torch.bool) for name, s in layers.items()}
    times = [seconds(lambda: keep_top(layers, TOTAL // 20, alive)) for _ in range(blocks + 1)][1:]
    yield row("exactly 5 % of 25 million scores", times, "s", _memory("select"))


def _memory(what: str) -> str:
    """The most memory that a process of its own holds, with torch and the network in it."""
    code = f"from lthbench.bench.scoring_rows import held; held({what!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    return f"peak memory {after:.0f} MiB, of which {after - before:.0f} for this"


def held(what: str) -> None:
    """Print the most memory held in MiB, before and after a pruning (or the selection)."""
    import resource

    torch.set_num_threads(1)
    if what == "select":
        layers = {str(i): torch.rand(TOTAL // 10) for i in range(10)}
        alive = {name: torch.ones_like(s, dtype=torch.bool) for name, s in layers.items()}
        run: Callable[[], object] = partial(keep_top, layers, TOTAL // 20, alive)
    elif what == "synflow":
        run = _ours(_network("vgg_16"), what, Scoring(rounds=2, dtype="float64"))
    else:
        batch = {"per_class": 10, "mode": "train"} if what == "grasp" else {}
        run = _ours(_network("resnet_20"), what, Scoring(data=DATA, seed=0, **batch))  # type: ignore[arg-type]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([before / 1024, after / 1024]))
