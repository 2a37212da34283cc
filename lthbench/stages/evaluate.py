"""What a state is worth: accuracy and loss on the held-out splits, sparsities, diagnosis, multiply-adds, digest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lthbench.base.settings import Settings
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job

KIND, VERSION = "evaluate", 2  # 2: diagnosis, nonzero parameters, filters


@dataclass(frozen=True)
class Evaluate(Settings):
    """`prunable` is the preset over which the first of the three sparsities is counted."""

    data: DataSettings
    prunable: str


def evaluate(net: Ref, data: DataSettings, prunable: str) -> Stage:
    """The evaluation of a state, without augmentation; its id names a run."""
    return stage(KIND, VERSION, Evaluate(replace(data, augment=Augment()), prunable), {"net": net})


def compute(job: Job) -> None:
    """Write the record: metrics by split, sparsity, layers, flops, final_weights_sha256, selected step."""
    from lthbench.data.stream import split
    from lthbench.evaluation.counts import describe
    from lthbench.evaluation.metrics import measure
    from lthbench.training.checkpoint import Checkpoint

    s = job.stage.settings
    packed = job.input("net")
    assert isinstance(s, Evaluate) and packed is not None
    checkpoint = Checkpoint.unpack(packed)
    net = checkpoint.network().to(job.device)
    record = describe(checkpoint, s.prunable)
    record["metrics"] = {name: measure(net, split(s.data, name, job.device), per_class=True) for name in s.data.splits}
    record["final_weights_sha256"] = checkpoint.digest()
    record["diverged_at"] = checkpoint.diverged_at
    if checkpoint.diverged_at is None and not checkpoint.finite:
        record["diverged_at"] = getattr(job.stage.inputs["net"], "step", 0)
    record["selected_step"] = packed[1].get("step")
    job.store.write_json(job.stage, "out.json", record)
