"""Results of earlier commands, named again: by their ids, as states, as tickets."""

from __future__ import annotations

from typing import Any

from lthbench.base.errors import UserError
from lthbench.cli.showing import found
from lthbench.engine.graph import Ref, recalled
from lthbench.engine.store import Store, demand_of
from lthbench.models import digest
from lthbench.programs.run import Found
from lthbench.programs.transfer import parts


def stored(ref: str, store: Store, what: str) -> Ref:
    """A state or mask by the name a result gives it. Raises UserError if the store does not hold it."""
    ident, _, step = ref.partition("@")
    try:
        stage = recalled((store.folder(ident) / "stage.json").read_text())
    except FileNotFoundError:
        raise UserError(f"{what} is not in '{store.root}'") from None
    named: Ref = stage.at(int(step)) if step.isdigit() else stage
    if (step and not step.isdigit()) or not store.has(stage, demand_of(named)):
        raise UserError(f"{what} has been dropped, or is no single state")
    return named


def by_result(ident: str, output: str, config: Any) -> Found:
    """The ticket of a result: its last mask, and the state that its last training began from."""
    from lthbench.cli.execute import folders

    out, store = folders(config)
    result = found(ident, [out])
    name, stages = f"ticket: result {result['id'][:8]}", result["stages"]
    role, step, last = parts(name, stages, result["config"])
    start = f"{stages[role].partition('@')[0]}@{step}" if step else stages[role]
    mask = stages[last]
    texts = [stored(ref, store, f"{name}: '{ref}'").stage.text for ref in (start, mask)]
    return Found(output, start, mask, texts=tuple(texts))


def by_file(path: str, output: str) -> Found:
    """The ticket in the file of a pruned network."""
    return Found(output, file=digest(path, "ticket"), path=path)
