"""The rows of the bench. Each is measured in this process, or in processes started for it, one after the other."""

from __future__ import annotations

import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lthbench.bench import reference
from lthbench.bench.command_rows import commands, graphs
from lthbench.bench.compress_rows import packed, shrunk
from lthbench.bench.measure import Row, ratio, row, seconds
from lthbench.bench.scoring_rows import scores
from lthbench.bench.soup_rows import averaged
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import Split, TrainingStream
from lthbench.engine.graph import Stage
from lthbench.engine.plan import Goal, plan
from lthbench.engine.store import At, Store
from lthbench.evaluation.counts import multiply_adds
from lthbench.launch.workers import run as run_workers
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.dynamics import METHODS, Sparsify
from lthbench.pruning.dynamics.trained import dynamics
from lthbench.stages.init import init
from lthbench.stages.train import train
from lthbench.training.checkpoint import Checkpoint, Tensors
from lthbench.training.loop import Trajectory
from lthbench.training.recipe import LrSchedule, Recipe


@dataclass(frozen=True)
class Setup:
    """One training row: network, data shape, recipe, and how many steps make a block."""

    name: str
    model: str
    shape: tuple[int, int, int]
    samples: int
    recipe: Recipe
    augment: Augment
    block: int
    normalise: Normalise = field(default_factory=lambda: Normalise("channel", (0.3,), (0.3,)))

    def network(self) -> Checkpoint:
        settings = ModelSettings.of(self.model, {}, self.shape, 10)
        return Checkpoint.of(settings, fresh(settings, "kaiming_normal", 0, 0), {})

    def masks(self, share: float = 0.5) -> Tensors:
        """A random half of every weight matrix."""
        draws = torch.Generator().manual_seed(0)
        weights = self.network().network().named_parameters()
        return {name: torch.rand(p.shape, generator=draws) < share for name, p in weights if p.dim() > 1}

    def data(self) -> tuple[Tensor, Tensor]:
        """Random images uint8 (N, H, W, C) and labels: throughput does not depend on what they show."""
        draws = torch.Generator().manual_seed(0)
        channels, height, width = self.shape
        x = torch.randint(0, 256, (self.samples, height, width, channels), generator=draws, dtype=torch.uint8)
        return x, torch.randint(0, 10, (self.samples,), generator=draws)

    def ours(self, masked: bool = True, device: str = "cpu", sparsify: Sparsify | None = None) -> Trajectory:
        x, y = (t.to(device) for t in self.data())
        split = Split(x, y, torch.arange(len(y), device=device), self.normalise)
        steps = self.recipe.steps_per_epoch(len(y))
        stream = TrainingStream(split, self.augment, self.recipe.batch, steps, 0, (0, 0))
        start = self.network().masked(self.masks()) if masked else self.network()
        moving = partial(dynamics, sparsify, 0, (0, 0), None) if sparsify else None
        return Trajectory(start, {}, self.recipe, stream, 0, device=device, dynamics=moving)

    def by_hand(self) -> Callable[[int, int], None]:
        x, y = self.data()
        net = self.network().masked(self.masks()).network()
        make = reference.adam if self.recipe.optimizer == "adam" else reference.sgd
        images = x.permute(0, 3, 1, 2).contiguous()
        run: Callable[[int, int], None] = reference.trainer(
            net, images, y, self.normalise.mean, self.normalise.std, self.masks(), make, self.recipe.batch,
            self.augment.pad, self.augment.flip, self.recipe.precision == "bf16",
        )  # fmt: skip
        return run

    def by_loader(self, device: str = "cpu", workers: int = 0) -> Callable[[], None]:
        """A block of the plain loop: a DataLoader over float images, an ordinary optimiser, no masks."""
        x, y = self.data()
        images = x.permute(0, 3, 1, 2).float() / 255
        batches = DataLoader(TensorDataset(images, y), self.recipe.batch, shuffle=True, num_workers=workers)
        net = self.network().network().to(device).train()
        optimizer = (torch.optim.Adam if self.recipe.optimizer == "adam" else torch.optim.SGD)(net.parameters(), 1e-3)
        endless = itertools.chain.from_iterable(iter(batches) for _ in itertools.count())

        def run() -> None:
            for xb, yb in itertools.islice(endless, self.block):
                optimizer.zero_grad()
                cross_entropy(net(xb.to(device)), yb.to(device)).backward()
                optimizer.step()

        return run


_ADAM = Recipe("adam", 1.2e-3, 60, LrSchedule("constant"))
_SGD = Recipe("sgd", 0.1, 128, LrSchedule("constant"), momentum=0.9, weight_decay=1e-4)
_CROP = Augment(4, True)
LENET = Setup("LeNet-300-100, MNIST, batch 60", "lenet_300_100", (1, 28, 28), 60000, _ADAM, Augment(), 200)
RESNET = Setup("ResNet-20, CIFAR-10, batch 128, float32", "resnet_20", (3, 32, 32), 50000, _SGD, _CROP, 2)
SETUPS = [
    LENET,
    replace(LENET, name="LeNet-300-100, MNIST, batch 128", recipe=replace(_ADAM, batch=128), block=150),
    replace(
        LENET, name="LeNet-5-Caffe, MNIST, batch 100", model="lenet_5_caffe", recipe=replace(_ADAM, batch=100), block=15
    ),
    RESNET,
    replace(RESNET, name="ResNet-20, CIFAR-10, batch 128, bf16", recipe=replace(_SGD, precision="bf16"), block=1),
]


def _advance(trajectory: Trajectory, steps: int) -> None:
    trajectory.run(trajectory.step + steps)


def training(blocks: int) -> Iterator[Row]:
    """Our loop against the reference loop: same masks, precision and augmentation."""
    for setup in SETUPS:
        ours, by_hand, n = setup.ours(), setup.by_hand(), setup.block
        starts = itertools.count(0, n)
        yield ratio(
            f"training: {setup.name}",
            partial(_advance, ours, n),
            lambda run=by_hand, at=starts, n=n: run(k := next(at), k + n),  # type: ignore[misc]
            blocks,
            f"{n} steps",
        )


def loader(blocks: int) -> Iterator[Row]:
    """The reference itself against a plain loop with a DataLoader: what makes it worth comparing with."""
    by_hand, n = LENET.by_hand(), LENET.block
    starts = itertools.count(0, n)
    plain = LENET.by_loader()
    yield ratio(
        f"plain loop with a DataLoader against the reference: {LENET.name}",
        plain,
        lambda: by_hand(k := next(starts), k + n),
        blocks,
        "no masks in the plain loop",
    )


def compiled(blocks: int) -> Iterator[Row]:
    """What torch.compile gains on a ResNet-20 step, and after how many steps it has paid for itself."""
    fast = replace(RESNET, recipe=replace(RESNET.recipe, compile=True)).ours()
    first = seconds(partial(_advance, fast, 1))
    gain = ratio("", partial(_advance, RESNET.ours(), 1), partial(_advance, fast, 1), blocks)
    step = seconds(partial(_advance, fast, 1))
    saved = step * (gain.value - 1)
    note = f"first step {first:.0f} s; pays for itself after {first / saved:.0f} steps" if saved > 0 else "never pays"
    yield replace(gain, name=f"a step against a compiled step: {RESNET.name}", note=note)


def gpu(blocks: int) -> Iterator[Row]:
    """On a GPU: our bf16 loop against a plain eager float32 loop with a DataLoader, and four workers against one."""
    setup = replace(RESNET, name="ResNet-20, CIFAR-10, batch 128, bf16, GPU", block=100)
    setup = replace(setup, recipe=replace(_SGD, precision="bf16"))
    ours, plain = setup.ours(device="cuda"), setup.by_loader("cuda", workers=2)

    def both(run: Callable[[], object]) -> None:
        run()
        torch.cuda.synchronize()

    advance = partial(_advance, ours, setup.block)
    yield ratio(f"plain loop against ours: {setup.name}", lambda: both(plain), lambda: both(advance), blocks)
    yield from _throughput(4, blocks, "cuda")


def peak(blocks: int) -> Iterator[Row]:
    """Share of the machine's matrix-product rate (2048 x 2048, float32) that training reaches."""
    a = torch.rand(2048, 2048)
    for setup in SETUPS[:-1]:  # bf16 has a rate of its own
        ours = setup.ours()
        macs = sum(multiply_adds(setup.network().network(), setup.shape).values())
        work = 3 * 2 * macs * setup.recipe.batch * setup.block  # forward, and two products backward
        shares = []
        for _ in range(blocks + 1):
            rate = 2 * 2048**3 / seconds(lambda: a @ a)
            shares.append(100 * work / seconds(partial(_advance, ours, setup.block)) / rate)
        yield row(f"share of matrix-product peak: {setup.name}", shares[1:], "%")


def masks(blocks: int) -> Iterator[Row]:
    """What masks cost: a masked step against a dense one."""
    for setup in (LENET, RESNET):
        masked, dense = (partial(_advance, setup.ours(masked=m), setup.block) for m in (True, False))
        yield ratio(f"masked step against dense step: {setup.name}", masked, dense, blocks, f"{setup.block} steps")


def movement(blocks: int) -> Iterator[Row]:
    """What a mask costs that is made of trained scores in every step: movement pruning against a masked step."""
    said = {"unit": "iteration", "begin": 0, "end": 0, "initial": "0", "score_optimizer": "adam", "score_lr": 1e-2}
    how = Sparsify(METHODS["movement"].settings(said, 1, 1), "weights", Allocation("uniform", {}), "1/2")
    for setup in (LENET, RESNET):
        scored = partial(_advance, setup.ours(masked=False, sparsify=how), setup.block)
        masked = partial(_advance, setup.ours(), setup.block)
        yield ratio(f"movement step against masked step: {setup.name}", scored, masked, blocks, f"{setup.block} steps")


def data(blocks: int) -> Iterator[Row]:
    """What batches cost: their share of training the same steps."""
    for setup in (LENET, RESNET):
        ours, n = setup.ours(), setup.block
        shares = []
        for i in range(blocks + 1):
            batches = seconds(lambda t=ours, begin=i * n, n=n: [t.stream.batch(begin + j) for j in range(n)])  # type: ignore[misc]
            shares.append(100 * batches / seconds(partial(_advance, ours, n)))
        yield row(f"batches, share of a step: {setup.name}", shares[1:], "%")


def states(blocks: int) -> Iterator[Row]:
    """What a state with its optimiser state and a logged epoch cost, as a share of an epoch of training."""
    ours = LENET.ours()
    steps = ours.stream.steps_per_epoch
    with tempfile.TemporaryDirectory() as folder:
        store, stage = Store(folder), Stage()
        stage.id, stage.text = "0" * 32, "{}"
        shares = []
        for _ in range(blocks + 1):
            epoch = seconds(lambda: ours.run(ours.step + 100)) * steps / 100

            def save() -> None:
                store.write(stage, "o.safetensors", ours.moments(copy=False), {})
                store.write(stage, "s.safetensors", *ours.checkpoint(copy=False).pack())
                store.extend_curve(stage, {"train": {ours.step: {"loss": ours.epoch_loss()}}})

            shares.append(100 * seconds(save) / epoch)
    yield row("a state and a logged epoch, share of an epoch: LeNet-300-100", shares[1:], "%", "one state an epoch")


def workers(blocks: int) -> Iterator[Row]:
    """Throughput of two one-thread workers over one, and that of two bare processes: what the machine has to give."""
    yield from _throughput(2, blocks, "cpu")
    yield from _bare(2, blocks)


def _throughput(count: int, blocks: int, device: str) -> Iterator[Row]:
    """One grid of `2 * count` dense networks, computed by one worker and by several, each time into an empty store."""
    data = DataSettings("standin_mnist", "official", LENET.normalise, Augment())
    model = ModelSettings.of(LENET.model, {}, data.shape, data.classes)
    steps = 10 * LENET.block
    starts = [init(model, "kaiming_normal", seed) for seed in range(2 * count)]
    goals: list[Goal] = [(train(s, _ADAM, data, seed), At(steps)) for seed, s in enumerate(starts)]

    def work(jobs: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            outcome = run_workers(jobs, goals, plan(goals, store), store, [], device, "bench")
        if outcome.failed or len(outcome.computed) != 4 * count:
            raise RuntimeError(f"bench: {outcome}; {'; '.join(outcome.failed.values())}")

    yield ratio(
        f"{count} workers on {device}: throughput over one", partial(work, 1), partial(work, count), blocks,
        f"{LENET.name}: {2 * count} networks of {steps} steps, through claims and store",
    )  # fmt: skip


def _bare(count: int, blocks: int) -> Iterator[Row]:
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(count):
        here, there = context.Pipe()
        context.Process(target=_train_on_request, args=(there,), daemon=True).start()
        pipes.append(here)

    def work(side_by_side: int) -> None:
        for pipe in pipes[:side_by_side]:
            pipe.send(10 * LENET.block)
        for pipe in pipes[:side_by_side]:
            pipe.recv()

    work(count)  # they have begun
    gains = [count * seconds(partial(work, 1)) / seconds(partial(work, count)) for _ in range(blocks)]
    for pipe in pipes:
        pipe.send(0)
    yield row(f"{count} bare processes on cpu: throughput over one", gains, "x", "the same steps, with nothing shared")


def _train_on_request(pipe: Connection) -> None:
    torch.set_num_threads(1)
    ours = LENET.ours()
    while steps := pipe.recv():
        _advance(ours, steps)
        pipe.send(None)


ROWS: dict[str, Callable[[int], Iterator[Row]]] = {
    "training": training,
    "loader": loader,
    "peak": peak,
    "masks": masks,
    "movement": movement,
    "data": data,
    "states": states,
    "scores": scores,
    "workers": workers,
    "compile": compiled,
    "shrink": shrunk,
    "compress": packed,
    "soups": averaged,
    "commands": commands,
    "graphs": graphs,
}
AIMS = {  # how a row's name begins, and what it should be
    "training": "at most 1.05",
    "masked step against dense step: LeNet": "at most 1.06",
    "masked step against dense step: ResNet": "at most 1.02",
    "a state and a logged epoch": "under 2 %",
    "SNIP": "at most 1.2",
    "GraSP": "at most 1.1",
    "SynFlow": "at most 1.15",
    "exactly 5 % of 25 million": "under 1 s",
    "2 workers": "at least 1.9",
    "averaging and recalibrating five": "under 1",
    "movement step": "at most 1.3",
    "speed-up of shrinking": "0.75 to 1.25",
    "--help": "under 1 s",
    "the demo from nothing": "under 60 s",
    "the demo again": "under 8 s",
    "report over 10,000": "under 5 s",
    "plan of 100,000": "at most 12",
    "claim of 100,000": "at most 12",
    "list of 100,000": "at most 12",
    "100,000 stages listed": "under 5 s",
    "compressed LeNet": "under 2 s",
    "plain loop against ours": "at least 3",
    "4 workers on cuda": "at least 2",
}
GPU_ROWS: dict[str, Callable[[int], Iterator[Row]]] = {"gpu": gpu}
