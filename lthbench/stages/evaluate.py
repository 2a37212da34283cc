"""What a state is worth: accuracy and loss on the held-out splits, sparsities, diagnosis, multiply-adds, digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lthbench.base.settings import Settings, later
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job
from lthbench.evaluation.settings import Corruptions

if TYPE_CHECKING:
    from lthbench.training.checkpoint import Checkpoint

KIND, VERSION = "evaluate", 2  # 2: diagnosis, nonzero parameters, filters, calibration, the worst class


@dataclass(frozen=True)
class Evaluate(Settings):
    """`prunable` is the preset over which the first of the three sparsities is counted.

    Of several networks, `over` says what is evaluated: the `mean` of their results, or their `ensemble`, which
    predicts the mean of their softmax outputs. `corruptions` adds accuracies on corrupted test images.
    """

    data: DataSettings
    prunable: str
    over: str | None = later(None)
    corruptions: Corruptions | None = later(None)


def evaluate(
    nets: Sequence[Ref],
    data: DataSettings,
    prunable: str,
    over: str | None = None,
    corruptions: Corruptions | None = None,
    line: Stage | None = None,
    before: Stage | None = None,
) -> Stage:
    """The evaluation of a state, or of several, without augmentation; its id names a run.

    Beside the results are told `line` (a connect stage) and, of a compressed network, what was `before` (evaluated).
    """
    several = len(nets) > 1
    ordered = sorted(nets, key=lambda ref: ref.ref)
    inputs = {f"net {i:03d}": ref for i, ref in enumerate(ordered)} if several else {"net": nets[0]}
    if line is not None:
        inputs["line"] = line
    if before is not None:
        inputs["before"] = before
    settings = Evaluate(replace(data, augment=Augment()), prunable, over if several else None, corruptions)
    return stage(KIND, VERSION, settings, inputs)


def compute(job: Job) -> None:
    """Write the record: metrics by split, sparsity, layers, flops, final_weights_sha256, selected step."""
    from lthbench.training.checkpoint import Checkpoint

    s = job.stage.settings
    assert isinstance(s, Evaluate)
    members, records = [], []
    for role in sorted(role for role in job.stage.inputs if role.startswith("net")):
        packed = job.input(role)
        assert packed is not None
        members.append(Checkpoint.unpack(packed))
        if s.over != "ensemble":
            records.append(_record(job, s, role, members[-1], packed[1]))
    if s.over is None:
        record = records[0]
    elif s.over == "mean":
        record = _of_all(records)
    else:
        record = _of_ensemble(job, s, members)
    if "line" in job.stage.inputs:
        record["line"] = job.store.output(job.stage.inputs["line"].stage)
    if "before" in job.stage.inputs:
        before = job.store.output(job.stage.inputs["before"].stage)["metrics"]["test"]
        record["compression"]["before"] = {key: before[key] for key in ("accuracy", "loss")}
    job.store.write_json(job.stage, "out.json", record)


def _record(job: Job, s: Evaluate, role: str, checkpoint: Checkpoint, meta: dict[str, Any]) -> dict[str, Any]:
    """The record of one network."""
    from lthbench.evaluation.counts import describe

    record = describe(checkpoint, s.prunable)
    record["metrics"] = _metrics(job, s, checkpoint.network())
    record["final_weights_sha256"] = checkpoint.digest()
    record["diverged_at"] = checkpoint.diverged_at
    if checkpoint.diverged_at is None and not checkpoint.finite:
        record["diverged_at"] = getattr(job.stage.inputs[role], "step", 0)
    record["selected_step"] = meta.get("step")
    return record | {key: meta[key] for key in ("soup", "compression") if key in meta}


def _metrics(job: Job, s: Evaluate, net: Any) -> dict[str, Any]:
    from lthbench.data.stream import split
    from lthbench.evaluation.metrics import measure

    net = net.to(job.device)
    found = {name: measure(net, split(s.data, name, job.device), per_class=True) for name in s.data.splits}
    if s.corruptions is not None:
        from lthbench.evaluation.robustness import robustness

        found[s.corruptions.name] = robustness(net, s.data, s.corruptions, job.device)
    return found


def _of_all(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of networks' results; what they have in common is told once."""
    from lthbench.evaluation.metrics import mean

    first = records[0]
    diverged = [r["diverged_at"] for r in records if r["diverged_at"] is not None]
    return first | {
        "metrics": mean([r["metrics"] for r in records]),
        "members": [r["metrics"] for r in records],
        "final_weights_sha256": _together([r["final_weights_sha256"] for r in records]),
        "diverged_at": min(diverged, default=None),
    }


def _of_ensemble(job: Job, s: Evaluate, members: list[Checkpoint]) -> dict[str, Any]:
    """The results of networks that predict together: their multiply-adds add up."""
    from lthbench.evaluation.counts import describe
    from lthbench.evaluation.metrics import ensemble

    record = describe(members[0], s.prunable)
    flops = record["flops"]
    nonzero = sum(describe(member, s.prunable)["flops"]["nonzero"] for member in members)
    diverged = [m.diverged_at for m in members if m.diverged_at is not None]
    return record | {
        "flops": flops | {"nonzero": nonzero, "speedup": flops["dense"] / nonzero if nonzero else None},
        "metrics": _metrics(job, s, ensemble([member.network() for member in members])),
        "final_weights_sha256": _together([member.digest() for member in members]),
        "diverged_at": min(diverged, default=None),
        "selected_step": None,
    }


def _together(digests: list[str]) -> str:
    """One digest for several networks."""
    import hashlib

    return hashlib.sha256("".join(digests).encode()).hexdigest()
