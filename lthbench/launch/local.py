"""Run experiments on this machine.

Before the first stage, whatever needs the model or the data is checked; then workers compute what the store
lacks, and each run's JSON is written as soon as its result is there.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lthbench.base.errors import UserError
from lthbench.engine.graph import Stage, ancestors
from lthbench.engine.keep import drop, living_plan, register
from lthbench.engine.plan import Work, plan
from lthbench.engine.runner import Listener, Outcome, Runner
from lthbench.engine.store import Gone, Store
from lthbench.launch import workers
from lthbench.models import ModelSettings
from lthbench.programs import Experiment, record
from lthbench.pruning.allocation import Allocation, Layer, groups
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable
from lthbench.pruning.structure import Structure, countable
from lthbench.stages import KINDS, ticket
from lthbench.stages.control import Control
from lthbench.stages.evaluate import Evaluate
from lthbench.stages.init import Init
from lthbench.stages.prune import Prune
from lthbench.stages.share import Share
from lthbench.stages.ticket import Ticket
from lthbench.stages.train import Train


def run(
    experiments: Sequence[Experiment],
    store: Store,
    out: Path,
    listeners: Iterable[Listener] = (),
    device: str = "cpu",
    threads: int = 1,
    jobs: int = 1,
    keep: str = "all",
) -> Outcome:
    """Compute all experiments, which `check` has passed, and write their JSONs below `out`."""
    goals = [goal for e in experiments for goal in e.goals]
    todo = plan(goals, store)
    if todo:
        prepare(device, threads)
        register(store, out)
    runs = out / "runs"
    computing: dict[str, Any] = {"device": device, "threads": threads}
    write_record = recorder(experiments, store, runs, **computing)
    graph = list(ancestors(e.result for e in experiments))
    token = uuid.uuid4().hex
    jobs = max(1, min(jobs, sum(isinstance(work.stage.settings, Train) for work in todo)))
    with living_plan(store, graph, token) if todo else nullcontext():
        outcome = workers.run(jobs, goals, todo, store, [*listeners, write_record], device, token)
    for e in experiments:
        path = runs / f"{e.id}.json"
        if e.result in outcome.failed or (_recorded(path) and e.trajectory not in outcome.computed):
            continue
        try:
            found = record.record(e, store, **computing)
        except Gone:  # damaged where nobody had to read it: set aside by now, and made again
            again = Runner(store, KINDS, listeners, device, token=token).run(e.goals)
            outcome.computed |= again.computed
            outcome.failed |= again.failed
            if e.result in outcome.failed:
                continue
            found = record.record(e, store, **computing)
        record.write(runs, found)
    if keep == "needed" and not outcome.failed:
        drop(store, graph, [e.roles["final"] for e in experiments], token)
    return outcome


def recorder(experiments: Iterable[Experiment], store: Store, runs: Path, device: str, threads: int) -> Listener:
    """A listener that writes a run's JSON as soon as its result is there."""
    by_result = {e.result: e for e in experiments}

    def listen(event: str, **facts: Any) -> None:
        if event == "end" and facts["work"].stage in by_result:
            record.write(runs, record.record(by_result[facts["work"].stage], store, device, threads))

    return listen


def prepare(device: str, threads: int) -> None:
    """Set up torch in this process. Raises UserError for a device that is not there."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device={device} is not here: {str(error).splitlines()[0]}") from None
    if kind.type == "cuda":  # looked for without starting it here: the workers are forked from this process
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (kind.index or 0) >= there:
            raise UserError(f"device={device} is not here: {there} CUDA devices are")
        torch.use_deterministic_algorithms(True, warn_only=True)  # same id, same bits
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        return
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device={device} is not here: {str(error).splitlines()[0]}") from None


def _recorded(path: Path) -> bool:
    """Whether a run's JSON is there and whole."""
    try:
        return path.exists() and bool(record.read(path))
    except UserError:
        return False


def check(experiments: Sequence[Experiment], store: Store, device: str, threads: int) -> None:
    """Refuse what is only seen with torch, the model or the data at hand, before anything is computed or written.

    Where nothing is missing nothing is checked, and torch is not imported.
    """
    todo = plan([goal for e in experiments for goal in e.goals], store)
    if not todo:
        return
    prepare(device, threads)
    import torch

    from lthbench import models
    from lthbench.compress import codebook
    from lthbench.data.read import verify
    from lthbench.evaluation.corruptions import frost_folder
    from lthbench.models import initialise

    settings = [work.stage.settings for work in todo]
    for data in {s.data for s in settings if isinstance(s, (Train, Evaluate))}:
        verify(data)
    for how in {s.corruptions for s in settings if isinstance(s, Evaluate) and s.corruptions}:
        if how.version == "computed" and "frost" in how.corruptions:
            frost_folder(how.root)
    for model in {s.model for s in settings if isinstance(s, (Init, Ticket))}:
        models.check(model)
    for work in todo:
        if isinstance(work.stage.settings, Ticket):
            ticket.check(work.stage, store)
    for s in settings:
        if isinstance(s, Init) and s.weights not in (None, models.PRETRAINED):
            if s.path is None:
                raise UserError(f"model.weights: name the file of sha256 {s.weights}")
            initialise.given(s.model, s.path, s.output)
        if isinstance(s, Init) and s.weights == models.PRETRAINED:
            initialise.pretrained(s.model, s.output)
        if isinstance(s, (Init, Control)) and s.initialiser is not None:
            initialise.known(s.initialiser)
    layers: dict[tuple[ModelSettings, str, Structure | None], dict[str, Layer]] = {}
    for model, preset, structure, allocation, density in _prunings(todo):
        if (key := (model, preset, structure)) not in layers:
            with torch.device("meta"):
                net = models.create(model)
            layers[key] = countable(structure, net, model.shape, prunable(net, preset))
        what = "channels" if structure and structure.name == "filter" else "prunable weights"
        groups(allocation, layers[key], Density.parse(density) if density else None, 1, what)
    for model, share in {(_network(w.stage), w.stage.settings) for w in todo if isinstance(w.stage.settings, Share)}:
        codebook.enough(model, share.bits)


def _prunings(todo: Sequence[Work]) -> set[tuple[ModelSettings, str, Structure | None, Allocation, str | None]]:
    """Each network that is pruned, with what is counted, how that is shared out, and how much of it stays."""
    return {
        (start.model, s.prunable, s.structure, s.allocation, s.density)
        for work in todo
        if isinstance(s := work.stage.settings, Prune)
        for start in (a.settings for a in ancestors([work.stage]))
        if isinstance(start, Init)
    }


def _network(stage: Stage) -> ModelSettings:
    """The network that a stage works on: it comes down from its initialisation."""
    while not isinstance(stage.settings, (Init, Ticket)):
        stage = next(iter(stage.inputs.values())).stage
    return stage.settings.model


def writable(folder: Path, word: str) -> None:
    """Raise a UserError if results cannot be written to a folder; leaves nothing that was not there."""
    place = folder
    while not os.path.lexists(place):
        place = place.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".lthbench-", dir=place):
            pass
    except OSError as error:
        raise UserError(f"{word}: '{folder}' cannot be written ('{place}': {error.strerror})") from None
