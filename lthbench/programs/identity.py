"""What makes a run what it is: its settings spelled out, as its result states them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lthbench.base.settings import canonical
from lthbench.data.sets import Augment
from lthbench.programs.controls import ANEW, DRAWN
from lthbench.programs.retraining import Retrain

if TYPE_CHECKING:
    from lthbench.programs.compressing import Compression
    from lthbench.programs.run import Run


def identity(run: Run) -> dict[str, Any]:
    """The settings that make this run what it is, spelled out; what means nothing here is left out."""
    if run.compression:
        return identity(replace(run, compression=None)) | _said_of_compression(run, run.compression)
    after, anew = run.pruner.program == "after_training", run.control in ANEW
    drawn = run.weights is None or run.fresh_output
    said: dict[str, Any] = {
        "model": run.model,
        "initialiser": run.initialiser if drawn or (run.rounds and run.control in DRAWN) else None,
        "weights": _given(run, run.weights_as if after else "init"),
        "data": run.data,
        "prunable": run.prunable,
        "select": run.select if run.select == "last" else {"by": run.select, "every": run.every},
    }
    if run.recalibrate:
        said["recalibrate"] = run.recalibrate
    if run.corruptions:
        said["corruptions"] = run.corruptions
    if run.ticket:
        fresh = run.ticket.output == "fresh"
        said |= {"initialiser": run.initialiser if fresh else None, "weights": None, "seed": run.seed}
        return said | {"train": run.recipe, "steps": run.steps, "ticket": run.ticket} | _taught(run)
    if not run.dense_steps and not run.rounds:  # a network as it is
        said |= {"weights": _given(run), "seed": run.seed if drawn else None}
        return said | {"data": replace(run.data, augment=Augment()), "select": "last"}
    said["seed"] = run.seed
    longer = run.control == "longer" and bool(run.rounds)
    if longer:
        said |= {"train": run.recipe.stretched(run.steps, run.whole_steps), "steps": run.whole_steps}
    elif not run.given_dense or not after or anew:
        said |= {"train": run.trained_by if run.sparsify else run.recipe, "steps": run.steps}
    pair = run.soup.name == "instability"
    if longer or not (run.rounds or pair):
        return said | {"weights": _given(run, "init")}
    if run.rounds:
        said |= _taught(run)
        said |= {
            "pruner": run.pruner,
            "allocation": run.sparsify.allocation if run.sparsify else run.allocation,
            "rounds": [d and str(d) for d in run.rounds],
            "control": run.control,
        }
    if run.allocation.name == "by_kind":
        said["rates_applied"] = run.rates_applied
    if anew and run.fresh_steps != run.steps:
        said["control_steps"] = run.fresh_steps
    if run.sparsify and len(run.copies) > 1:
        said["soup"] = _said_of_soup(run) | {"m": run.soup.m}
    if after and (pair or len(run.rounds) > anew):
        copies = [_said_of(run, how, max(1, len(run.rounds) - anew)) for how in run.copies]
        said["retrain"] = copies[0]
        if len(copies) > 1:
            said |= {"retrain": sorted(copies, key=canonical), "soup": _said_of_soup(run)}
    return said


def _said_of_compression(run: Run, how: Compression) -> dict[str, Any]:
    """Its settings; its training needs data, and that or a random beginning the seed."""
    steps = how.steps(run.recipe, run.data.train_samples)
    said = {key: value for key, value in how.spelled_out().items() if key not in ("epochs", "lr")} | {"steps": steps}
    if steps:
        said["recipe"] = how.recipe(run.recipe)
    made: dict[str, Any] = {"compress": said}
    if steps or how.init == "random":
        made["seed"] = run.seed
    return made | ({"data": run.data} if steps else {})


def _given(run: Run, used: str | None = None) -> dict[str, Any] | None:
    """Given weights, and what they are used as."""
    if run.weights is None:
        return None
    said = {"sha256": run.weights} | ({"as": used} if used else {})
    return said | ({"output": "fresh"} if run.fresh_output else {})


def _taught(run: Run) -> dict[str, Any]:
    return {"distill": run.teacher} if run.teacher else {}


def _said_of(run: Run, how: Retrain, rounds: int) -> Any:
    """A copy's retraining, round by round where rounds differ."""
    end = run.rewind.to == "none" or (run.rewind_step == run.steps and rounds == 1)
    each = []
    for number in range(1, rounds + 1) if how.total is not None else (1,):
        plan = run.retrained(how, number)
        said: dict[str, Any] = {
            "from": "end" if end else run.rewind_step,
            "first": plan.first,
            "steps": plan.steps,
            "recipe": plan.recipe,
            "moments": "keep" if end and plan.moments == "restore" else plan.moments,
            "batches": "its own" if plan.own else "of the dense run",
        }
        each.append(said | ({"adapt": plan.adapt} if plan.adapt else {}))
    return each[0] if all(canonical(one) == canonical(each[0]) for one in each) else each


def _said_of_soup(run: Run) -> dict[str, Any]:
    name = "uniform" if run.soup.name == "reprune" and len(run.rounds) == 1 else run.soup.name
    said: dict[str, Any] = {"name": name, "batches": "of each copy" if run.soup.vary == "seed" else "alike"}
    if name == "instability":
        said |= {"points": run.soup.points, "splits": run.soup.splits}
    return said | ({"accept": run.soup.accept} if name == "greedy" else {})
