"""Iterative pruning on fewer images, round after round (Zhang et al. 2021, arXiv 2106.03225)."""

from __future__ import annotations

from dataclasses import replace

from lthbench.engine.graph import Ref, Stage, State
from lthbench.programs.run import Experiment, Run
from lthbench.pruning.criteria import CriterionSettings
from lthbench.stages import train as trajectory
from lthbench.stages.examples import examples
from lthbench.stages.prune import Pruner, prune
from lthbench.stages.train import train

MAGNITUDE = Pruner(CriterionSettings.of("magnitude", {}, 0), "after_training")


def prac(run: Run, done: Experiment, start: Ref) -> Experiment:
    """Round after round: train on the critical images until the mask has settled, prune, go back; then train the last
    ticket on all images."""
    assert run.sparsify is not None
    args = run.sparsify.method.args
    rewound = trajectory.at(train(start, run.recipe, run.data, run.seed), args["begin"])
    begin: Ref = start
    mask: Stage | None = None
    critical: Stage | None = None
    first: State | None = None
    for number, density in enumerate(run.rounds, 1):
        how = replace(run.sparsify, density=str(density))
        net = train(
            begin, run.recipe, run.data, run.seed, mask=mask, index=(number - 1, 0), sparsify=how, examples=critical,
            of_steps=run.steps, teacher=run.taught,
        ).at(run.steps)  # fmt: skip
        mask = prune(net, MAGNITUDE, run.allocation, run.prunable, density)
        done.add(f"net {number}", net).add(f"mask {number}", mask)
        begin = rewound
        if number < len(run.rounds):
            told: State | None = first if args["differing"] else None
            critical = examples(run.data, args["forgotten"], critical, net, told)
            done.add(f"examples {number}", critical)
        first = first or net
    final = train(rewound, run.recipe, run.data, run.seed, mask=mask, teacher=run.taught).at(run.steps)
    return done.add("dense", rewound).add("ticket", final).finish(final)
