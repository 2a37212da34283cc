"""Pruning at initialisation: score new weights, then train what is left once, with the dense recipe."""

from __future__ import annotations

from lthbench.programs.run import Experiment, Run
from lthbench.stages import train as trajectory
from lthbench.stages.prune import prune
from lthbench.stages.train import train


def prune_at_init(run: Run) -> Experiment:
    """Initialise, prune, train."""
    start = run.start()
    done = Experiment(run).add("init", start)
    if not run.rounds:
        net = trajectory.at(train(start, run.recipe, run.data, run.seed), run.dense_steps)
        return done.add("dense", net).finish(net)
    if run.control == "longer":
        return done.finish(run.longer(start))
    inverted = run.control == "invert"
    mask = prune(start, run.pruner, run.allocation, run.prunable, run.rounds[0], run.rates_applied, start, inverted)
    net = run.anew(start, mask, start)
    if run.control not in ("none", "invert"):
        done.add(run.control, net.stage.inputs["start"])
    return done.add("mask 1", mask).add("net 1", net).finish(net)
