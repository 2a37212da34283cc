"""The versions of the parts that a result rests on, and whether they are still those of this installation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from lthbench.engine.graph import Stage
from lthbench.models import MODELS
from lthbench.pruning.criteria import CRITERIA
from lthbench.pruning.dynamics import METHODS
from lthbench.stages import KINDS

NOW: dict[str, int] = {kind: import_module(f"lthbench.stages.{kind}").VERSION for kind in KINDS}


def versions(stages: Iterable[Stage]) -> dict[str, int]:
    """The version of each kind of stage."""
    return dict(sorted({(s.kind, json.loads(s.text)["version"]) for s in stages}))


def outdated(result: Mapping[str, Any]) -> list[str]:
    """The parts that have another version by now than a result was computed with, in words; none: it is up to date.

    Of results that were written before the versions of stages were recorded those are not known, and not looked at.
    """
    config = result["config"]
    parts = [(kind, then, NOW[kind]) for kind, then in result.get("versions", {}).items() if kind in NOW]
    model = config["model"]
    if model["name"] in MODELS:
        parts.append((model["name"], model["version"], MODELS[model["name"]].version))
    criterion = config.get("pruner", {}).get("criterion", {})
    known = CRITERIA.get(criterion.get("name")) or METHODS.get(criterion.get("name"))
    if known is not None and "source" not in criterion:
        parts.append((known.name, criterion["version"], known.version))
    return [f"{part} {then} (now {now})" for part, then, now in parts if then != now]
