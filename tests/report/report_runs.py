"""Made-up results, as far as pages and verdicts look into them."""

from __future__ import annotations

import itertools
from typing import Any

from lthbench.base.settings import build
from lthbench.published import Claim
from lthbench.report.board import Entry

_serial = itertools.count()


def run(accuracy: float | None, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A run's JSON; `trained` is the id of its trained stage, `removed` of 1,000 weights."""
    ident = f"{next(_serial):032x}"
    removed, total = more.pop("removed", 0), more.pop("total", 1000)
    data = {"name": "mnist", "version": "official", "classes": 10} | more.pop("data", {})
    made = {
        "id": ident,
        "seed": seed,
        "config": {"data": data},
        "metrics": {"test": {"accuracy": accuracy, "loss": 0.1}},
        "sparsity": {c: {"removed": removed, "total": total} for c in ("prunable", "weights", "parameters")},
        "layers": {},
        "curves": {},
        "stages": {"final": f"{more.pop('trained', ident)}@10", "mask": f"m{ident}"},
        "final_weights_sha256": f"w{ident}",
        "diverged_at": None,
        "cost": {"train_seconds": 1.5, "peak_memory": 7},
        "environment": {"lthbench": "1", "torch": "2", "device": "cpu", "processor": "P", "threads": 1},
    }
    return made | more


def entry(where: dict[str, Any], nominal: float, percent: list[float], **more: Any) -> Entry:
    """A cell whose runs have these accuracies, by seed."""
    removed = round(1000 * nominal)
    runs = [run(p / 100, seed, removed=removed, **more) for seed, p in enumerate(percent)]
    label = " ".join(map(str, where.values()))
    return Entry(label, str(nominal), nominal, runs, max(1, len(runs)), where=where, nominal=nominal)


def claim(left: dict[str, Any], relation: str, right: dict[str, Any], when: Any = None, **more: Any) -> Claim:
    """A verified claim."""
    said = {
        "id": f"c{next(_serial)}", "place": "here", "statement": "so it is", "left": left, "relation": relation,
        "right": right, "when": when or {}, "margin": 0.5, "evidence": {"level": "verified", "sources": ["me"]},
    }  # fmt: skip
    return build(Claim, said | more, "claim")
