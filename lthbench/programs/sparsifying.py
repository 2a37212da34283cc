"""What a mask that changes during training asks of a run."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError
from lthbench.training.recipe import Recipe

if TYPE_CHECKING:
    from lthbench.programs.run import Run


def check_sparsifying(run: Run) -> None:
    """Raise a UserError for what means nothing while the mask changes."""
    assert run.method is not None and run.sparsify is not None
    name = f"pruner={run.method.name}"
    if run.control not in ("none", "longer"):
        raise UserError(
            f"control={run.control} alters a finished mask before it is trained; {name} finds it in training"
        )
    if run.select != "last":
        raise UserError(f"select={run.select} may choose a state that is not pruned yet: {name} needs select=last")
    if run.pruner.structure is not None:
        raise UserError(f"{name} prunes single weights: it needs structure=weight")
    if run.recipe.precision == "fp16":
        raise UserError(f"{name} needs train.precision=float32 or bf16: it looks at gradients, which fp16 scales")
    if run.allocation.by_round and not run.method.outcome:
        raise UserError(f"allocation={run.allocation.name} counts rounds of pruning; {name} has none")
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


def frozen(recipe: Recipe) -> Recipe:
    """A recipe without what means nothing to weights that are not trained; its schedule is that of the scores."""
    return replace(
        recipe, optimizer="sgd", lr=0.0, momentum=0.0, nesterov=False, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0,
        decay="all", clip=0.0,
    )  # fmt: skip
