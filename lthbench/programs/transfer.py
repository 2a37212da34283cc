"""One ticket to win them all (Morcos et al. 2019, arXiv 1906.02773): found on one task, trained on another."""

from __future__ import annotations

from lthbench.programs.run import Experiment, Run
from lthbench.stages.train import train


def transfer(run: Run) -> Experiment:
    """The ticket's mask and initial weights, trained once with this run's recipe and data."""
    start = run.found_ticket()
    net = train(start, run.recipe, run.data, run.seed).at(run.steps)
    return Experiment(run).add("ticket", start).add("net 1", net).finish(net)
