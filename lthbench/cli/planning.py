"""`lthbench plan`: what a command would cost, without computing it."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence

from lthbench.cli.compose import composer
from lthbench.cli.execute import folders, supported
from lthbench.cli.grid import expand
from lthbench.cli.subcommands import overrides_of, parser
from lthbench.engine.graph import Recalled, Stage, State, ancestors
from lthbench.engine.plan import Work, plan
from lthbench.engine.store import At, Demand, Store
from lthbench.models import ModelSettings
from lthbench.programs import Experiment
from lthbench.stages.control import Control
from lthbench.stages.init import Init
from lthbench.stages.ticket import Ticket
from lthbench.stages.train import Train, end, epochs, epochs_until


class _Empty(Store):
    """A store that holds nothing: plans show the whole cost."""

    def __init__(self) -> None:
        super().__init__("")

    def has(self, stage: Stage, demand: Demand) -> bool:
        return isinstance(stage.settings, Recalled)  # a result of an earlier command

    def resumable(self, stage: object, missing: set[Demand]) -> int | None:
        return None


def run(words: Sequence[str]) -> int:
    """Print runs, distinct stages, epochs asked for and after sharing, bytes; and what is left to compute."""
    arguments = parser("plan", "What a command would cost: the overrides are those of the command itself.")
    arguments.add_argument("overrides", nargs="*", help="as for a run, with -m or table=NAME for a grid")
    if {"-h", "--help"} & set(words):
        arguments.print_help()
        return 0
    gc.disable()  # a graph is all references and no garbage
    overrides, multirun, extra_dir = overrides_of(words)
    with composer(extra_dir) as compose:
        grid = expand(compose, overrides, multirun)
    supported(grid.config)
    runs = grid.experiments
    goals = [goal for e in runs for goal in e.goals]
    stages = list(ancestors(e.result for e in runs))
    whole = plan(goals, _Empty())
    naive = sum(map(_alone, runs))
    _, store = folders(grid.config)
    left = plan(goals, store) if store.root.is_dir() else whole
    print(f"{grid.title}: {len(grid.cells)} cells")
    print(f"epochs asked for, each run alone: {naive:.1f}; after sharing: {_epochs(whole):.1f}")
    print(f"states in the store: {readable(_bytes(whole))}")
    print(f"left to compute: {len(left)} stages, {_epochs(left):.1f} epochs")
    print(f"plan: {len(runs)} runs, {len(stages)} distinct stages, {_epochs(whole):.1f} epochs ({naive:.1f} naive)")
    return 0


def _alone(experiment: Experiment) -> float:
    """Epochs that a run would train if it shared nothing: each of its trajectories, to the furthest step it asks."""
    furthest: dict[Stage, int] = {}
    asked = [(ref.stage, At(ref.step)) for ref in experiment.roles.values() if isinstance(ref, State)]
    for stage, demand in [*asked, *experiment.goals]:
        if isinstance(stage.settings, Train):
            furthest[stage] = max(furthest.get(stage, 0), end(demand))
    return sum(epochs_until(stage, step) for stage, step in furthest.items())


def _epochs(works: Iterable[Work]) -> float:
    return sum(map(epochs, works))


def _bytes(works: Sequence[Work]) -> int:
    """What the states, optimiser states and masks of a whole plan take on disk."""
    sizes: dict[ModelSettings, int] = {}
    size_of: dict[Stage, int] = {}  # a network's size comes down from its initialisation
    total = 0
    for work in works:
        s = work.stage.settings
        if isinstance(s, (Init, Ticket)):
            if s.model not in sizes:
                sizes[s.model] = _size(s.model)
            size_of[work.stage] = sizes[s.model]
        else:
            size_of[work.stage] = size_of[next(iter(work.stage.inputs.values())).stage]
        total += _work_bytes(work, size_of[work.stage])
    return total


def _work_bytes(work: Work, size: int) -> int:
    s = work.stage.settings
    if isinstance(s, (Init, Ticket)):
        return size
    if isinstance(s, Control):
        return size + size // 4
    if not isinstance(s, Train):
        return size // 4 if work.stage.kind == "prune" else 0
    moments = 2 if s.recipe.optimizer != "sgd" else 1 if s.recipe.momentum else 0
    mask = size // 4 if "mask" in work.stage.inputs else 0
    return sum((size * (1 + moments) + mask) for d in _states(work.missing) if d)


def _states(missing: Iterable[Demand]) -> set[object]:
    return {d.step for d in missing if isinstance(d, At)}


def _size(model: ModelSettings) -> int:
    """Bytes of weights and buffers."""
    import torch

    from lthbench.models import create

    with torch.device("meta"):
        return sum(t.numel() * t.element_size() for t in create(model).state_dict().values())


def readable(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
