"""A control: the start of a ticket's training, altered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lthbench.base.settings import Settings
from lthbench.engine.graph import Ref, Stage, stage
from lthbench.engine.runner import Job

if TYPE_CHECKING:
    from lthbench.training.checkpoint import Checkpoint, Tensors

KIND, VERSION = "control", 1
FRESH = ("reinit_signed", "small_dense", "small_dense_flops")  # draw new weights, as an initialisation does


@dataclass(frozen=True)
class Control(Settings):
    """`seed` is None for what draws nothing, `initialiser` for what draws no new weights."""

    name: str
    seed: int | None
    initialiser: str | None


def control(name: str, start: Ref, mask: Stage, seed: int, initialiser: str, net: Ref | None = None) -> Stage:
    """The altered start: weights, and the mask under which they are trained; `net` is the trained network that was
    pruned, for `freeze_zero`."""
    draws = name not in ("constant_signed", "freeze", "freeze_zero")
    settings = Control(name, seed if draws else None, initialiser if name in FRESH else None)
    inputs: dict[str, Ref] = {"start": start, "mask": mask}
    if name == "freeze_zero" and net is not None:
        inputs["net"] = net
    return stage(KIND, VERSION, settings, inputs)


def compute(job: Job) -> None:
    """Write the checkpoint."""
    from lthbench.training.checkpoint import Checkpoint

    s = job.stage.settings
    packed, packed_mask, packed_net = (job.input(role) for role in ("start", "mask", "net"))
    assert isinstance(s, Control) and packed is not None and packed_mask is not None
    mask = {name: kept for name, kept in packed_mask[0].items() if not name.startswith("weights/")}
    trained = Checkpoint.unpack(packed_net) if packed_net else None
    made = _altered(s, Checkpoint.unpack(packed), mask, trained)
    job.store.write(job.stage, "out.safetensors", *made.pack())


def _altered(s: Control, start: Checkpoint, mask: Tensors, trained: Checkpoint | None) -> Checkpoint:
    from lthbench.evaluation.width import of_equal_size
    from lthbench.models.initialise import fresh
    from lthbench.pruning.controls import frozen, other_positions, other_values
    from lthbench.training.checkpoint import Checkpoint

    if s.name.startswith("freeze"):
        return frozen(s.name, start, mask, trained)
    if s.name.startswith("small_dense"):
        assert s.initialiser is not None and s.seed is not None
        model = of_equal_size(start.model, mask, "flops" if s.name.endswith("flops") else "parameters")
        return Checkpoint.of(model, fresh(model, s.initialiser, s.seed, 1), {})
    if s.name in ("shuffle", "random"):
        assert s.seed is not None
        return start.masked(other_positions(s.name, mask, s.seed))
    new: Tensors = {}
    if s.initialiser is not None and s.seed is not None:
        new = Checkpoint.of(start.model, fresh(start.model, s.initialiser, s.seed, 1), {}).weights
    return replace(start, weights=other_values(s.name, start, mask, s.seed, new)).masked(mask)
