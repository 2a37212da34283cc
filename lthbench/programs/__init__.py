"""The papers' procedures, as graphs of stages: each a screen long, reading like the paper."""

from dataclasses import replace

from lthbench.programs.after_training import prune_after_training
from lthbench.programs.at_init import prune_at_init
from lthbench.programs.compressing import compressed
from lthbench.programs.during_training import prune_during_training
from lthbench.programs.instability import instability
from lthbench.programs.run import Experiment, Run
from lthbench.programs.soup import reprune, soup
from lthbench.programs.transfer import transfer

PROGRAMS = {
    "after_training": prune_after_training,
    "at_init": prune_at_init,
    "during_training": prune_during_training,
}


def experiment(run: Run) -> Experiment:
    """The graph of a run, whatever its program."""
    if run.compression:
        return compressed(run, experiment(replace(run, compression=None)))
    if run.ticket:
        return transfer(run, experiment(run.ticket.source) if run.ticket.source else None)
    if run.soup.name == "instability":
        return instability(run)
    if len(run.copies) > 1 and run.rounds and run.pruner.program == "after_training":
        return reprune(run) if run.soup.name == "reprune" else soup(run)
    return PROGRAMS[run.pruner.program](run)


__all__ = ["PROGRAMS", "Experiment", "Run", "experiment"]
