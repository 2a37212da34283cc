"""Instability analysis (Frankle et al. 2020, arXiv 1912.05671): does it matter in which order a network sees its data?

Two copies of one state, that of step k, trained to the end on batches of their own; then the line between them.
"""

from __future__ import annotations

from lthbench.programs.run import Experiment, Run
from lthbench.stages import train as trajectory
from lthbench.stages.connect import connect
from lthbench.stages.prune import prune
from lthbench.stages.train import train


def instability(run: Run) -> Experiment:
    """Of the dense network, or under the mask that iterative pruning with rewinding to k ends with."""
    start = run.start()
    dense = train(start, run.recipe, run.data, run.seed)
    net = trajectory.at(dense, run.dense_steps)
    done = Experiment(run).add("init", start).add("dense", net)
    mask = None
    for number, density in enumerate(run.rounds, 1):
        if mask is not None:
            net = run.retrain(dense, net, mask, number - 1)
            done.add(f"net {number - 1}", net)
        mask = prune(net, run.pruner, run.allocation, run.prunable, density, run.rates_applied, start)
        done.add(f"mask {number}", mask)
    last = max(1, len(run.rounds))
    nets = [run.retrain(dense, net, mask, last, copy) for copy in range(2)]
    line = connect(nets[0], nets[1], run.data, run.soup.splits, run.soup.points, run.recalibrate)
    for copy, each in enumerate(nets):
        done.add(f"net {last}.{copy}", each)
    return done.add("line", line).evaluate([run.settled(each) for each in nets], "mean", line)
