"""Controls: what is done to a finished ticket, which is then trained once at the same budget.

The mask always comes from the uncontrolled chain, but for `invert`, whose last round is turned round. How weights and
masks are altered is `lthbench/pruning/controls.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lthbench.base.errors import UserError

if TYPE_CHECKING:
    from lthbench.programs.run import Run

CONTROLS = {
    "none": "the ticket itself",
    "reinit": "the mask on new random weights, trained once with the dense recipe",
    "reinit_signed": "reinit, with the signs of the initial weights",
    "reshuffle": "kept initial weights in another order within their layer, trained once with the dense recipe",
    "reshuffle_signed": "reshuffle, with each position's own sign",
    "constant": "the layer's standard deviation in place of each kept initial weight, signs in another order",
    "constant_signed": "constant, with each position's own sign",
    "freeze": "what is pruned stays at its initial value, untrained",
    "freeze_zero": "freeze, but what training had moved towards zero is zero",
    "shuffle": "the mask's entries in another order within their layer",
    "random": "as many random weights in each layer",
    "invert": "the last round keeps what scores least",
    "small_dense": "a dense network narrowed to as many parameters, trained once with the dense recipe",
    "small_dense_flops": "a dense network narrowed to as many multiply-adds, trained once with the dense recipe",
    "longer": "the dense network, trained as long as the whole pipeline, its schedule stretched",
}
ANEW = {  # trained from initial weights with the dense recipe; the others as the ticket itself
    "reinit", "reinit_signed", "reshuffle", "reshuffle_signed", "constant", "constant_signed", "small_dense",
    "small_dense_flops",
}  # fmt: skip
DRAWN = {"reinit", "reinit_signed", "small_dense", "small_dense_flops"}  # from new random weights


def check(run: Run) -> None:
    """Raise a UserError for a control that means nothing for a run."""
    name, after = f"control={run.control}", run.pruner.program == "after_training"
    if run.control in ANEW - DRAWN and run.given_dense and after:
        raise UserError(f"{name} needs the initial weights, which model.weights does not hold")
    if run.control.startswith("freeze") and run.recipe.weight_decay:
        raise UserError(f"{name} needs train.weight_decay=0: the optimiser would shrink what is frozen")
    if run.control == "freeze_zero" and (run.rewind.to == "none" or not after):
        raise UserError(f"{name} needs training before pruning, and rewind=init or early")
    if run.control.startswith("small_dense") and "width" not in run.model.args:
        raise UserError(f"{name} needs a network with model.width; {run.model.name} has none")
    if run.control == "longer" and run.given_dense and after:
        raise UserError(f"{name} needs the training that made the weights; use model.weights_as=init")
    if run.control in ("shuffle", "random") and run.pruner.structure is not None:
        raise UserError(f"{name} moves single weights: it needs structure=weight")
