"""What a run's settings ask of each other, checked before anything is planned."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError, near
from lthbench.programs.candidates import CHOOSING
from lthbench.programs.compressing import check_compression
from lthbench.programs.controls import CONTROLS
from lthbench.programs.controls import check as check_control
from lthbench.programs.retraining import UNITS
from lthbench.programs.sparsifying import check_copies, check_sparsifying
from lthbench.pruning.density import parse_sparsity
from lthbench.pruning.structure import Structure

if TYPE_CHECKING:
    from lthbench.programs.run import Run

MOST_ROUNDS = 1000
SELECTS = {
    "last": "the state at the end of training",
    "best_val_loss": "the state of smallest validation loss (early stopping)",
    "best_test": "the state of best test accuracy, for papers that report it; never a fair estimate",
}


def check(run: Run) -> None:
    """Raise a UserError for the first thing in a run that means nothing or contradicts another."""
    for value, known, where in (
        (run.rewind.to, ("init", "early", "none"), "rewind.to"),
        (run.rewind.unit, UNITS, "rewind.unit"),
        (run.control, tuple(CONTROLS), "control"),
        (run.select, tuple(SELECTS), "select"),
        (run.weights_as, ("dense", "init"), "model.weights_as"),
        (run.weights_output, ("kept", "fresh"), "model.weights_output"),
        (run.pruner.program, ("after_training", "at_init", "during_training"), "pruner.program"),
    ):
        if value not in known:
            raise UserError(f"{where}: unknown choice '{value}'{near(value, known)}")
    if run.seed < 0:
        raise UserError(f"seed: {run.seed} is negative")
    _check_rounds(run)
    if run.pruner.structure is not None and run.rounds:
        _check_structure(run, run.pruner.structure)
    if run.allocation.by_round and run.pruner.scoring is not None and run.pruner.scoring.rounds > 1:
        raise UserError(f"allocation={run.allocation.name} takes a round at once: it needs pruner.rounds=1")
    if run.corruptions and run.data.shape != (3, 32, 32):
        raise UserError(f"robustness={run.corruptions.name} is for colour images of 32x32, not {run.data.name}'s")
    if run.select == "best_val_loss" and not run.data.validation:
        raise UserError("select=best_val_loss needs dataset.validation > 0")
    if run.select != "last" and not run.every:
        raise UserError(f"select={run.select} needs train.evaluate.every")
    pair = run.soup.name == "instability"
    if pair and run.pruner.program != "after_training":
        raise UserError(f"soup=instability needs pruner.program=after_training, not {run.pruner.program}")
    if run.rounds:
        check_control(run)
    if run.sparsify is not None:
        check_sparsifying(run)
        if len(run.copies) > 1:
            _check_soup(run)
            check_copies(run)
    if run.compression is not None:
        check_compression(run)
    if (run.rounds or pair) and run.pruner.program == "after_training":
        _check_retraining(run)


def _check_rounds(run: Run) -> None:
    target = parse_sparsity(run.sparsity)
    if run.allocation.by_round:
        name = run.allocation.name
        what, verb = ("rates", "removes rates") if name == "by_kind" else ("thresholds", "sets a threshold")
        if not isinstance(target, int):
            raise UserError(f"allocation={name} {verb} a round: say sparsity=level:n, not a sparsity")
        if run.schedule.name in ("geometric", "linear"):
            raise UserError(f"allocation={name} needs schedule=iterative or oneshot: its {what} count the rounds")
    rate = run.schedule.rate
    if isinstance(target, int):
        too_many = target > MOST_ROUNDS
    else:
        too_many = run.schedule.name == "linear" and target > MOST_ROUNDS * Fraction(rate)
        too_many |= run.schedule.name == "iterative" and float(1 - target) < (1 - Fraction(rate)) ** MOST_ROUNDS
    if too_many:
        raise UserError(f"sparsity: {run.sparsity} takes more than {MOST_ROUNDS} rounds of schedule.rate={rate}")


def _check_structure(run: Run, structure: Structure) -> None:
    name, allocation = structure.name, run.allocation.name
    if allocation not in ("global", "uniform") or (name == "nm" and allocation != "global"):
        allowed = "global" if name == "nm" else "global or uniform"
        raise UserError(f"structure={name} needs allocation={allowed}, not {allocation}")
    once = len(run.rounds) == 1 and (run.pruner.scoring is None or run.pruner.scoring.rounds == 1)
    if name == "nm" and (not once or parse_sparsity(run.sparsity) != structure.sparsity):
        needs = f"sparsity={structure.sparsity} schedule=oneshot pruner.rounds=1"
        raise UserError(f"structure=nm keeps {structure.n} of every {structure.m} at once: it needs {needs}")


def _check_retraining(run: Run) -> None:
    unit = f"{run.rewind.k} {run.rewind.unit}"
    if not 0 <= run.rewind_step <= run.steps:
        raise UserError(f"rewind.k: {unit} is step {run.rewind_step}; training ends at {run.steps}")
    if run.rewind.to != "none" and run.given_dense:
        raise UserError(
            f"rewind={run.rewind.to} needs the training that made the weights; "
            "use rewind=finetune, or model.weights_as=init"
        )
    for how in run.copies:
        for number in {1, len(run.rounds) or 1}:  # only the last one may differ
            plan = run.retrained(how, number)
            begin = 0 if run.rewind.to == "none" else run.rewind_step
            if begin + plan.steps > run.steps and not plan.own:
                raise UserError(f"retrain={how.name} cannot run longer than the dense training it replays")
    if run.retraining.moments == "restore" and run.rewind.to == "none":
        raise UserError("retrain.moments=restore needs rewind=init or early")
    if run.given_dense and run.retraining.moments == "keep":
        raise UserError("retrain.moments=keep needs the optimiser state, which model.weights does not hold")
    if run.soup.name != "none":
        _check_soup(run)


def _check_soup(run: Run) -> None:
    name = run.soup.name
    if name in CHOOSING and not run.data.validation:
        raise UserError(f"soup={name} chooses by validation images: it needs dataset.validation > 0")
    if run.control != "none":
        raise UserError(f"soup={name}, control={run.control}: one of them, the other none")
    if run.select != "last":
        raise UserError(f"select={run.select} chooses among the points of one training; soup={name} has several")
    if name == "reprune" and len(run.rounds) > 1 and run.allocation.name == "by_kind":
        raise UserError("soup=reprune prunes an average to an exact density: it needs another allocation than by_kind")
    for split in run.soup.splits if name == "instability" else ():
        if split not in ("train", *run.data.splits):
            raise UserError(f"soup.splits: unknown '{split}'{near(split, ('train', *run.data.splits))}")
    if run.soup.vary == "lr" and not run.retraining.own:
        raise UserError(f"soup.vary=lr: retrain={run.retraining.name} has no learning rate of its own")
