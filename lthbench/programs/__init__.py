"""The papers' procedures, as graphs of stages: each a screen long, reading like the paper."""

from lthbench.programs.after_training import prune_after_training
from lthbench.programs.at_init import prune_at_init
from lthbench.programs.run import Experiment, Run

PROGRAMS = {"after_training": prune_after_training, "at_init": prune_at_init}


def experiment(run: Run) -> Experiment:
    """The graph of a run, whatever its program."""
    return PROGRAMS[run.pruner.program](run)


__all__ = ["PROGRAMS", "Experiment", "Run", "experiment"]
