"""A run's JSON: what was asked, what came out, and where every number comes from.

`<out>/runs/<id>.json`. The same id gives the same JSON but for `curves` (which only grow), `cost` and
`environment`. Reading checks the schema, so that a file of another kind or age is refused, not misread.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lthbench import __version__
from lthbench.base.errors import UserError
from lthbench.base.settings import canonical
from lthbench.engine.graph import Stage, ancestors
from lthbench.engine.store import Gone, Store
from lthbench.programs.identity import identity
from lthbench.programs.run import Experiment
from lthbench.programs.versions import versions
from lthbench.pruning.dynamics import METHODS
from lthbench.stages.train import Train

SCHEMA = 1
_NEEDED: dict[str, type] = {
    "id": str,
    "config": dict,
    "metrics": dict,
    "sparsity": dict,
    "layers": dict,
    "flops": dict,
    "curves": dict,
    "stages": dict,
    "final_weights_sha256": str,
    "cost": dict,
    "environment": dict,
}


def record(experiment: Experiment, store: Store, device: str, threads: int) -> dict[str, Any]:
    """The JSON of a finished run. Raises Gone if its result is not in the store."""
    found = store.output(experiment.result)
    trajectory = experiment.trajectory
    graph = list(ancestors([experiment.result]))
    trained = [s for s in graph if isinstance(s.settings, Train)]
    config = json.loads(canonical(identity(experiment.run)))
    return {
        "schema": SCHEMA,
        "id": experiment.id,
        "config": config,
        "seed": config.get("seed"),
        **found,
        "curves": store.curve(trajectory.id) if trajectory else {},
        "stages": {role: ref.ref for role, ref in experiment.roles.items()},
        "versions": versions(graph),
        **({"early": early} if (early := _early(store, trained)) else {}),
        "cost": _cost(store, trained),
        "environment": environment(device, threads),
    }


def _cost(store: Store, trained: list[Stage]) -> dict[str, Any]:
    """Seconds of training and peak memory in bytes, over all trajectories that the run rests on."""
    parts = []
    for stage in trained:
        with suppress(Gone):
            parts += store.read_json(stage.id, "cost.json")
    return {
        "train_seconds": round(sum(float(part["seconds"]) for part in parts), 3),
        "peak_memory": max((part.get("peak_memory", 0) for part in parts), default=0),
        "trajectories": len(trained),
    }


def _early(store: Store, trained: list[Stage]) -> dict[str, Any] | None:
    """Where tickets were drawn that were looked for, search by search. `unspent` are the epochs, of all images, that
    looking might have taken, and did not. None: nothing was looked for, or training diverged before."""
    searches, unspent = [], 0.0
    for stage in sorted(trained, key=lambda stage: stage.serial):
        s = stage.settings
        assert isinstance(s, Train)
        if s.sparsify is None or not METHODS[s.sparsify.method.name].early:
            continue
        points = {int(step): point for step, point in store.curve(stage.id).get("search", {}).items()}
        step = next((step for step, point in sorted(points.items()) if "drawn" in point), None)
        if step is None:
            continue
        args, per_epoch = s.sparsify.method.args, s.recipe.steps_per_epoch(s.data.train_samples)
        limit = s.of_steps or (int(args["end"]) if args["restart"] else step)
        unspent += (limit - step) / per_epoch
        seen = {str(t): point["distance"] for t, point in sorted(points.items()) if "distance" in point}
        searches.append({"step": step, "epoch": step / per_epoch, **points[step], "distances": seen})
    return {"searches": searches, "unspent": unspent} if searches else None


def environment(device: str, threads: int) -> dict[str, Any]:
    """What the numbers were computed with."""
    return {
        "device": device,
        "machine": platform.machine(),
        "processor": _processor(),
        "python": platform.python_version(),
        "threads": threads,
        "lthbench": __version__,
        **{package: version(package) for package in ("torch", "numpy")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def write(folder: Path, value: dict[str, Any]) -> Path:
    """Write a run's JSON: all or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{value['id']}.json"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    os.replace(part, path)
    return path


def read(path: Path) -> dict[str, Any]:
    """A run's JSON. Raises UserError if it is something else, or of another schema."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is no JSON: {error}") from None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UserError(f"'{path}' is no result of schema {SCHEMA}")
    for key, kind in _NEEDED.items():
        if not isinstance(value.get(key), kind):
            raise UserError(f"'{path}': '{key}' is missing or no {kind.__name__}")
    if path.stem != value["id"]:
        raise UserError(f"'{path}' holds the result of {value['id']}")
    return value
