"""Deep Compression (Han et al. 2016, arXiv 1510.00149): what any program ends with becomes a small file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings
from lthbench.stages import train as trajectory
from lthbench.stages.pack import pack
from lthbench.stages.share import share
from lthbench.stages.train import train
from lthbench.training.recipe import LrSchedule, Recipe

if TYPE_CHECKING:
    from lthbench.programs.run import Experiment, Run

INITS = ("linear", "density", "random")
BITS = ("conv_bits", "linear_bits", "index_bits")
MOST_BITS = 8


@dataclass(frozen=True)
class Compression(Settings):
    """`..._bits` of a weight's code and of an index; how k-means begins and how many rounds it has at most; how many
    `epochs` the shared values are trained, at which rate."""

    name: str
    conv_bits: int
    linear_bits: int
    index_bits: int
    init: str
    iterations: int
    epochs: float
    lr: float

    def __post_init__(self) -> None:
        for value, known, where in (
            (self.name, ("none", "deep"), "compress"),
            (self.init, INITS, "compress.init"),
        ):
            if value not in known:
                raise UserError(f"{where}: unknown choice '{value}'{near(value, known)}")
        for key in BITS:
            if not 1 <= getattr(self, key) <= MOST_BITS:
                raise UserError(f"compress.{key}: {getattr(self, key)} is not in 1 to {MOST_BITS}")
        if self.iterations < 1:
            raise UserError(f"compress.iterations: {self.iterations} is less than 1")
        for key in ("epochs", "lr"):
            if getattr(self, key) < 0:
                raise UserError(f"compress.{key}: {getattr(self, key)} is negative")

    def recipe(self, dense: Recipe) -> Recipe:
        """How shared values are trained: the dense recipe's batches and loss, Adam at a constant rate, no penalty.

        Adam, because a sum over hundreds of weights has a gradient of any size.
        """
        return replace(
            dense, optimizer="adam", lr=self.lr, schedule=LrSchedule("constant"), momentum=0.0, nesterov=False,
            betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, l1=0.0, clip=0.0,
        )  # fmt: skip

    def steps(self, dense: Recipe, samples: int) -> int:
        """How long."""
        return round(self.epochs * dense.steps_per_epoch(samples))


def compressed(run: Run, pruned: Experiment) -> Experiment:
    """Share weights, train what they share, write the file and read it back; `pruned` is the run without all that."""
    how, net = run.compression, pruned.roles["final"]
    assert how is not None
    shared = share(net, how.conv_bits, how.linear_bits, how.init, how.iterations, run.seed)
    index = (len(run.rounds) + 1, 0)  # batches of its own
    trained = train(shared, how.recipe(run.recipe), run.data, run.seed, index=index, tied=True)
    tuned = trajectory.at(trained, how.steps(run.recipe, run.data.train_samples))
    packed = pack(tuned, how.conv_bits, how.linear_bits, how.index_bits)
    done = replace(pruned, run=run)
    del done.roles["result"]
    done.add("pruned", net).add("shared", shared).add("tuned", tuned)
    return done.evaluate([packed], before=pruned.result)


def check_compression(run: Run) -> None:
    """Raise a UserError where there is not one network to compress."""
    if run.soup.name in ("mean", "ensemble", "instability"):
        raise UserError(f"compress=deep makes a file of one network; soup={run.soup.name} ends with several")
