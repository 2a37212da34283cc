"""A ticket that was found elsewhere: its initial weights and its mask, in a network for another task.

Morcos et al. 2019 (arXiv 1906.02773): the output layer is no part of a ticket, it is drawn anew and not pruned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lthbench.base.settings import Settings, aside
from lthbench.engine.graph import Ref, Stage, ancestors, stage
from lthbench.engine.runner import Job
from lthbench.engine.store import Store, demand_of, state_file
from lthbench.models import ModelSettings, digest
from lthbench.stages.init import Init

KIND, VERSION = "ticket", 1
OUTPUTS = ("fresh", "kept")


@dataclass(frozen=True)
class Ticket(Settings):
    """`file`: the sha256 of a state's file, which lies at `path`; None: the inputs are the ticket.

    `output`: the output layer is `fresh`, drawn by initialiser and seed (None where it is `kept`).
    """

    model: ModelSettings
    output: str
    initialiser: str | None
    seed: int | None
    file: str | None
    path: str | None = aside()

    @property
    def fresh(self) -> tuple[str, int] | None:
        """Initialiser and seed of the output layer; None where it is kept."""
        return None if self.initialiser is None or self.seed is None else (self.initialiser, self.seed)


def ticket(
    model: ModelSettings,
    output: str,
    initialiser: str,
    seed: int,
    found: tuple[Ref, Stage] | None = None,
    file: tuple[str, str] | None = None,
) -> Stage:
    """The ticket as a state to train from: `found` is (initial state, mask), `file` (sha256, path)."""
    fresh = output == "fresh"
    sha256, path = file or (None, None)
    settings = Ticket(model, output, initialiser if fresh else None, seed if fresh else None, sha256, path)
    inputs: dict[str, Ref] = {"start": found[0], "mask": found[1]} if found else {}
    return stage(KIND, VERSION, settings, inputs)


def compute(job: Job) -> None:
    """Write the checkpoint, its mask applied."""
    job.store.write(job.stage, "out.safetensors", *made(job.stage, job.store).pack())


def check(what: Stage, store: Store) -> None:
    """Raise a UserError naming the first tensor that does not fit: of a ticket not found yet, by its network."""
    if all(store.has(ref.stage, demand_of(ref)) for ref in what.inputs.values()):
        made(what, store)
        return
    import torch

    from lthbench.models import create
    from lthbench.models.transplant import transplanted

    s = what.settings
    assert isinstance(s, Ticket)
    source = next(a.settings.model for a in ancestors([what]) if isinstance(a.settings, Init))
    with torch.device("meta"):
        weights = create(source).state_dict()
    transplanted(s.model, weights, {}, s.fresh)


def made(what: Stage, store: Store) -> Any:
    """The ticket's checkpoint. Raises UserError naming the first tensor that does not fit."""
    from lthbench.models.transplant import transplanted
    from lthbench.training.checkpoint import Checkpoint

    s = what.settings
    assert isinstance(s, Ticket)
    if s.path is not None:
        if digest(s.path, "ticket") != s.file:
            raise ValueError(f"'{s.path}' has changed since the run was planned")
        from lthbench.models.transplant import read_state

        weights, mask = read_state(s.path)
    else:
        start = what.inputs["start"]
        name = "out.safetensors" if isinstance(start, Stage) else state_file(start.step)
        weights = Checkpoint.unpack(store.read(start.stage.id, name)).weights
        mask = store.read(what.inputs["mask"].stage.id, "out.safetensors")[0]
    net, kept = transplanted(s.model, weights, mask, s.fresh)
    return Checkpoint(s.model, net).masked(kept)
