"""Pruning after training, once or in rounds, with whatever rewinding and retraining (Han et al. 2015, arXiv
1506.02626; Frankle and Carbin 2019, arXiv 1803.03635; Renda et al. 2020, arXiv 2003.02389)."""

from __future__ import annotations

from lthbench.programs.run import Experiment, Run
from lthbench.stages import train as trajectory
from lthbench.stages.prune import prune
from lthbench.stages.train import train


def prune_after_training(run: Run) -> Experiment:
    """Train; then, round after round: prune what is left, go back where `rewind` says, retrain."""
    start = run.start()
    dense = train(start, run.recipe, run.data, run.seed)
    net = trajectory.at(dense, run.dense_steps)
    done = Experiment(run).add("init", start).add("dense", net)
    if not run.rounds:
        return done.finish(net)

    for number, density in enumerate(run.rounds, 1):
        mask = prune(net, run.pruner, run.allocation, run.prunable, density, run.rates_applied, start)
        done.add(f"mask {number}", mask)
        if number == len(run.rounds) and run.control == "reinit":
            fresh = run.reinitialised()
            done.add("reinit", fresh)
            net = train(fresh, run.recipe, run.data, run.seed, mask=mask).at(run.fresh_steps)
        else:
            net = run.retrain(dense, net, mask, number)
        done.add(f"net {number}", net)
    return done.finish(net)
