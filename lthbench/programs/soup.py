"""Sparse model soups: several retrainings of one pruned network are averaged, and the next round starts from there.

Zimmer et al. 2024 (arXiv 2306.16788); greedy soups are Wortsman et al. 2022 (arXiv 2203.05482). Copy 0 of a round is
what iterative pruning alone would run. The baselines stand on the same candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

from lthbench.engine.graph import Ref
from lthbench.programs.run import Experiment, Run
from lthbench.stages import train as trajectory
from lthbench.stages.average import average
from lthbench.stages.prune import prune
from lthbench.stages.train import train


def soup(run: Run) -> Experiment:
    """Train; then, round after round: prune, retrain m copies, and go on from what is made of them."""
    start = run.start()
    dense = train(start, run.recipe, run.data, run.seed)
    net = trajectory.at(dense, run.dense_steps)
    done = Experiment(run).add("init", start).add("dense", net)
    chosen = run.soup.name if run.soup.name == "greedy" else "uniform"
    for number, density in enumerate(run.rounds, 1):
        mask = prune(net, run.pruner, run.allocation, run.prunable, density, run.rates_applied, start)
        done.add(f"mask {number}", mask)
        nets = [run.retrain(dense, net, mask, number, copy) for copy in range(len(run.copies))]
        for copy, each in enumerate(nets):
            done.add(f"net {number}.{copy}", each)
        if number < len(run.rounds):
            net = average(nets, chosen, run.recalibrate, run.data, run.soup.accept)
            done.add(f"net {number}", net)
    return made_of(nets, run, done)


def made_of(nets: Sequence[Ref], run: Run, done: Experiment) -> Experiment:
    """Evaluate what a soup, or a baseline, makes of its last candidates."""
    if run.soup.name in ("mean", "ensemble"):
        return done.evaluate([run.settled(each) for each in nets], run.soup.name)
    final = run.soup.name if run.soup.name in ("greedy", "best") else "uniform"
    return done.evaluate([average(nets, final, run.recalibrate, run.data, run.soup.accept)])


def reprune(run: Run) -> Experiment:
    """Iterative pruning m times over, each with its own masks; their mean, pruned again to the last density."""
    start = run.start()
    dense = train(start, run.recipe, run.data, run.seed)
    done = Experiment(run).add("init", start).add("dense", trajectory.at(dense, run.dense_steps))
    nets: list[Ref] = []
    for copy in range(len(run.copies)):
        net = done.roles["dense"]
        for number, density in enumerate(run.rounds, 1):
            mask = prune(net, run.pruner, run.allocation, run.prunable, density, run.rates_applied, start)
            net = run.retrain(dense, net, mask, number, copy)
            done.add(f"mask {number}.{copy}", mask).add(f"net {number}.{copy}", net)
        nets.append(net)
    return done.evaluate([_pruned_again(run, done, nets, start)])


def _pruned_again(run: Run, done: Experiment, nets: Sequence[Ref], start: Ref) -> Ref:
    if len(run.rounds) == 1:  # one mask: nothing has come back
        return average(nets, recalibrate=run.recalibrate)
    whole = average(nets, "union")
    mask = prune(whole, run.pruner, run.allocation, run.prunable, run.rounds[-1], run.rates_applied, start)
    done.add("average", whole).add("mask", mask)
    return average([whole], recalibrate=run.recalibrate, mask=mask)
