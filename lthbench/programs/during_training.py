"""Pruning during training: one training run whose mask changes on the way (Zhu and Gupta 2017, arXiv 1710.01878;
Evci et al. 2020, arXiv 1911.11134; Sanh et al. 2020, arXiv 2005.07683); or that is over when it has found a
ticket, which is then trained by itself (You et al. 2020, arXiv 1909.11957; Rachwan et al. 2022, arXiv 2206.10451)."""

from __future__ import annotations

from lthbench.engine.graph import Stage, State
from lthbench.programs.prac import prac
from lthbench.programs.run import Experiment, Run
from lthbench.programs.soup import made_of
from lthbench.stages import init as initial
from lthbench.stages import train as trajectory
from lthbench.stages.train import train


def prune_during_training(run: Run) -> Experiment:
    """Initialise, train; where nothing goes before `begin`, that part is the dense run.

    A soup averages copies that part where the mask has changed for the last time; copy 0 is the run itself.
    """
    start = run.start()
    done = Experiment(run).add("init", start)
    if run.sparsify is None:
        net = trajectory.at(train(start, run.recipe, run.data, run.seed), run.dense_steps)
        return done.add("dense", net).finish(net)
    if run.control == "longer":
        return done.finish(run.longer(start))
    if run.method and run.method.rounds:
        return prac(run, done, start)
    begin = int(run.sparsify.method.args["begin"]) if run.method and run.method.late else 0
    begun = trajectory.at(train(start, run.recipe, run.data, run.seed), begin)
    if begin:
        done.add("dense", begun)
    sparse = train(
        begun,
        run.trained_by,
        run.data,
        run.seed,
        moments=begun if isinstance(begun, State) else None,
        first=begin,
        sparsify=run.sparsify,
        teacher=run.taught,
    )
    net = sparse.at(run.steps)
    if run.search_steps:
        ticket = sparse.at(run.search_steps)
        done.add("ticket", ticket)
        if run.control == "reinit":
            again = initial.init(run.model, run.initialiser, run.seed, index=1)
            net = train(again, run.recipe, run.data, run.seed, mask=ticket, teacher=run.taught).at(run.steps)
        else:
            net = train(
                ticket, run.recipe, run.data, run.seed, moments=ticket, index=(1, 0), teacher=run.taught
            ).at(run.steps)  # fmt: skip
    if len(run.copies) == 1:
        return done.add("net 1", net).finish(net)
    nets = [net] + [_copy(run, sparse, number) for number in range(1, len(run.copies))]
    for number, each in enumerate(nets):
        done.add(f"net 1.{number}", each)
    return made_of(nets, run, done)


def _copy(run: Run, sparse: Stage, number: int) -> State:
    """The rest of the training once more, with the mask as it stays, on batches of its own."""
    first = run.settled_step
    begun = sparse.at(first)
    copy = train(
        begun, run.recipe, run.data, run.seed, moments=begun, first=first, index=(0, number), teacher=run.taught
    )
    return copy.at(run.steps)
