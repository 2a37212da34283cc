"""The rows of the bench for scores: each criterion against the passes that it cannot do without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lthbench.base.memory import peak
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
from lthbench.pruning.select import keep_top
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
    """So many passes of one image through positive weights in float64, and after each the plain selection: the
    threshold by `kthvalue` over the scores of what is left."""
    model, weights, _ = _bare(net, Scoring(dtype="float64"))
    ones = torch.ones(1, *net.model.shape, dtype=torch.float64)
    steps = Scoring(rounds=rounds).densities(TARGET)
    total = sum(w.numel() for w in weights)
    with torch.no_grad():
        for w in weights:
            w.abs_()

    def run() -> object:
        mask = torch.ones(total, dtype=torch.bool)
        for step in steps:
            flat = torch.cat([g.flatten() for g in torch.autograd.grad(model(ones).sum(), weights)])
            left = flat[mask]
            assert step is not None
            mask &= flat >= left.kthvalue(len(left) - step.kept(total) + 1).values
        return mask

    return run


def scores(blocks: int) -> Iterator[Row]:
    """SNIP, GraSP and SynFlow, whole prunings, against what they cannot do without; and the selection alone."""
    for name, what in (
        ("SNIP against one forward-backward: ResNet-20, batch 128", "snip"),
        ("GraSP against a double backward by hand: ResNet-20, 10 a class", "grasp"),
        ("SynFlow against as many passes of one image and selections: VGG-16, 100 rounds", "synflow"),
    ):
        ours, by_hand = _both(what)
        yield ratio(name, ours, by_hand, blocks if what != "synflow" else min(blocks, 3), _memory(what))
    select = _selection()
    times = [seconds(select) for _ in range(blocks + 1)][1:]
    yield row("exactly 5 % of 25 million scores", times, "s", f"peak memory {_peak('select', 0):.0f} MiB")


def _both(what: str, rounds: int = 100) -> tuple[Callable[[], object], Callable[[], object]]:
    """A pruning, and what it is compared with."""
    if what == "synflow":
        net = _network("vgg_16")
        return _ours(net, what, Scoring(rounds=rounds, dtype="float64")), synflow_by_hand(net, rounds)
    net = _network("resnet_20")
    if what == "snip":
        how, by_hand = Scoring(data=DATA, seed=0, batch=128), snip_by_hand
    else:
        how, by_hand = Scoring(data=DATA, seed=0, per_class=10, mode="train"), grasp_by_hand
    return _ours(net, what, how), by_hand(net, how)


def _selection() -> Callable[[], object]:
    draws = torch.Generator().manual_seed(0)
    layers = {str(i): torch.rand(TOTAL // 10, generator=draws) for i in range(10)}
    alive = {name: torch.ones_like(s, dtype=torch.bool) for name, s in layers.items()}
    return partial(keep_top, layers, TOTAL // 20, alive)


def _memory(what: str) -> str:
    return "peak memory {:.0f} against {:.0f} MiB".format(*(_peak(what, i) for i in range(2)))


def _peak(what: str, which: int) -> float:
    """MiB: the most that a process of its own holds that does one of both, PyTorch and the network included."""
    code = f"from lthbench.bench.scoring_rows import held; held({what!r}, {which})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def held(what: str, which: int) -> None:
    """Do it once and print the most memory that this process has held, in MiB."""
    torch.set_num_threads(1)
    (_selection() if what == "select" else _both(what, rounds=2)[which])()
    print(peak() / 2**20)
