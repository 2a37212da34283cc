"""One state made of several: their mean, the best of them, or a greedy soup; and BatchNorm's statistics made anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lthbench.base.settings import Settings
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job
from lthbench.soups.settings import Recalibrate

KIND, VERSION = "average", 1
RULES = {
    "uniform": "the mean; all masks are equal",
    "union": "the mean; what any mask keeps is kept",
    "best": "the member of best validation accuracy",
    "greedy": "the mean of members added in the order of validation accuracy, where that does not harm it",
}


@dataclass(frozen=True)
class Average(Settings):
    """`validation`: the data whose validation split `best` and `greedy` look at; `accept` is greedy's rule."""

    rule: str
    recalibrate: Recalibrate | None = None
    validation: DataSettings | None = None
    accept: str | None = None


def average(
    members: Sequence[Ref],
    rule: str = "uniform",
    recalibrate: Recalibrate | None = None,
    data: DataSettings | None = None,
    accept: str = "ge",
    mask: Stage | None = None,
) -> Ref:
    """The state that a rule makes of others, in whatever order they are named; `mask` is applied to it.

    One member alone is itself, or its recalibrated state.
    """
    if len(members) == 1:
        rule = "uniform"
        if recalibrate is None and mask is None:
            return members[0]
    chooses = rule in ("best", "greedy")
    validation = replace(data, augment=Augment()) if chooses and data is not None else None
    settings = Average(rule, recalibrate, validation, accept if rule == "greedy" else None)
    width = len(str(len(members) - 1))
    inputs: dict[str, Ref] = {
        f"net {i:0{width}}": ref for i, ref in enumerate(sorted(members, key=lambda ref: ref.ref))
    }
    if mask is not None:
        inputs["mask"] = mask
    made = stage(KIND, VERSION, settings, inputs)
    if rule == "greedy":  # that keeps all
        made.may_be = stage(KIND, VERSION, Average("uniform", recalibrate), inputs)
    return made


def compute(job: Job) -> None:
    """Write the checkpoint; its `soup` tells members, and for a choice their order, the trials and who was chosen."""
    from lthbench.data.stream import split
    from lthbench.evaluation.metrics import measure
    from lthbench.soups.average import mean
    from lthbench.soups.choose import best, greedy
    from lthbench.soups.recalibrate import recalibrated
    from lthbench.training.checkpoint import Checkpoint

    s = job.stage.settings
    assert isinstance(s, Average)
    roles = [role for role in sorted(job.stage.inputs) if role != "mask"]
    packed = [job.input(role) for role in roles]
    members = [Checkpoint.unpack(one) for one in packed if one is not None]

    def ready(made: Checkpoint) -> Checkpoint:
        return recalibrated(made, s.recalibrate, job.device) if s.recalibrate else made

    told: dict[str, object] = {"members": [job.stage.inputs[role].ref for role in roles]}
    if s.validation is not None:
        images = split(s.validation, "val", job.device)

        def accuracy(made: Checkpoint) -> float:
            value: float = measure(made.network().to(job.device), images)["accuracy"]
            return value

        if s.rule == "best":
            made, trials = best(members, ready, accuracy)
        else:
            made, trials = greedy(members, ready, accuracy, s.accept or "ge")
        told |= {"rule": s.rule, **trials}
    else:
        made = mean(members, union=s.rule == "union")
        if (given := job.input("mask")) is not None:
            made = made.masked(given[0])
        made = ready(made)
    tensors, meta = made.pack()
    if len(members) > 1:
        meta["soup"] = told
    elif packed[0] is not None and "step" in packed[0][1]:
        meta["step"] = packed[0][1]["step"]  # of a best point
    job.store.write(job.stage, "out.safetensors", tensors, meta)
