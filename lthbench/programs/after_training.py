"""Pruning after training, once or in rounds, with whatever rewinding and retraining (Han et al. 2015, arXiv
1506.02626; Frankle and Carbin 2019, arXiv 1803.03635; Renda et al. 2020, arXiv 2003.02389)."""

from __future__ import annotations

from lthbench.programs.controls import ANEW
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
    if run.rounds and run.control == "longer":
        return done.finish(run.longer(start))

    for number, density in enumerate(run.rounds, 1):
        last = number == len(run.rounds)
        inverted = last and run.control == "invert"
        mask = prune(net, run.pruner, run.allocation, run.prunable, density, run.rates_applied, start, inverted)
        done.add(f"mask {number}", mask)
        net = run.anew(start, mask, net) if last and run.control in ANEW else run.retrain(dense, net, mask, number)
        if last and run.control not in ("none", "invert"):
            done.add(run.control, net.stage.inputs["start"])
        done.add(f"net {number}", net)
    return done.finish(net)
