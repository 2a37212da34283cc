"""What a mask that changes during training asks of a run."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError
from lthbench.models import MODELS
from lthbench.pruning.density import parse_sparsity
from lthbench.training.recipe import Recipe

if TYPE_CHECKING:
    from lthbench.programs.run import Run


def check_sparsifying(run: Run) -> None:
    """Raise a UserError for what means nothing while the mask changes."""
    assert run.method is not None and run.sparsify is not None
    name = f"pruner={run.method.name}"
    args = run.pruner.criterion.args
    if run.control == "reinit" and args.get("restart") is False:
        raise UserError(f"control=reinit trains a ticket of {name} by itself: it needs pruner.restart=true")
    if run.control not in ("none", "longer", *(["reinit"] if run.search_steps else [])):
        raise UserError(
            f"control={run.control} alters a finished mask before it is trained; {name} finds it in training"
        )
    if run.select != "last" and not (run.search_steps or run.method.rounds):
        raise UserError(f"select={run.select} may choose a state that is not pruned yet: {name} needs select=last")
    structure = run.pruner.structure.name if run.pruner.structure else None
    if structure not in run.method.structures:
        what = {None: "single weights: it needs structure=weight", "filter": "channels: it needs structure=filter"}
        raise UserError(f"{name} prunes {what[run.method.structures[-1]]}")
    if run.recipe.precision == "fp16":
        raise UserError(f"{name} needs train.precision=float32 or bf16: it looks at gradients, which fp16 scales")
    if run.allocation.by_round and not run.method.outcome:
        raise UserError(f"allocation={run.allocation.name} counts rounds of pruning; {name} has none")
    if run.method.early:
        _check_search(run, name)
    initial = run.pruner.criterion.args.get("initial")
    if initial is not None and run.rounds[0] is not None and Fraction(initial) > 1 - run.rounds[0].base:
        raise UserError(f"pruner.initial: {initial} is more than sparsity={run.sparsity}, where it shall end")


def check_copies(run: Run) -> None:
    """Raise a UserError where several trainings from the last change of the mask on cannot be averaged."""
    assert run.method is not None
    name, soup = f"pruner={run.method.name}", f"soup={run.soup.name}"
    if not run.method.settles:
        raise UserError(f"{soup} averages networks of one mask; that of {name} may change until the last step")
    if run.soup.name == "reprune":
        raise UserError(f"{soup} prunes after training; {name} has one mask, and the mean of its copies has it too")
    if run.soup.vary != "seed":
        raise UserError(f"soup.vary={run.soup.vary} is about retraining; {name} has none: soup.vary=seed")
    if run.settled_step >= run.steps:
        raise UserError(f"pruner.end is step {run.settled_step}; {soup} needs training after the mask's last change")


def _check_search(run: Run, name: str) -> None:
    args, target = run.pruner.criterion.args, parse_sparsity(run.sparsity)
    if run.method is not None and run.method.rounds:
        if run.data.streamed:
            raise UserError(f"{name} trains on a part of the images: it needs a data set that is held in memory")
        return
    if args["begin"] == args["end"]:
        raise UserError(f"pruner.end: step {args['end']} is where pruner.begin is: {name} has no time to look")
    if run.model.name in MODELS and name == "pruner=early_bird" and not MODELS[run.model.name].batchnorm:
        raise UserError(f"{name} needs a network with BatchNorm; {run.model.name} has none")
    if run.rounds[0] is None or isinstance(target, int):
        raise UserError(f"{name} prunes once: say a sparsity, not {run.sparsity}")
    if args.get("tau") == 0 and run.pruner.structure and target >= Fraction(9, 10):
        raise UserError(
            f"pruner.tau: 0.9 - sparsity is not above 0 for sparsity={run.sparsity}; say it, pruner.tau=0.1"
        )


def frozen(recipe: Recipe) -> Recipe:
    """A recipe without what means nothing to weights that are not trained; its schedule is that of the scores."""
    return replace(
        recipe, optimizer="sgd", lr=0.0, momentum=0.0, nesterov=False, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0,
        decay="all", clip=0.0,
    )  # fmt: skip
