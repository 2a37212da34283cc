"""Choosing among networks by their validation accuracy: the best one, and greedy soups (Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lthbench.soups.average import mean
from lthbench.training.checkpoint import Checkpoint

Ready = Callable[[Checkpoint], Checkpoint]
Accuracy = Callable[[Checkpoint], float]


def best(members: Sequence[Checkpoint], ready: Ready, accuracy: Accuracy) -> tuple[Checkpoint, dict[str, Any]]:
    """The member of best accuracy (the first of equals), made `ready`; and what was seen."""
    prepared = [ready(member) for member in members]
    seen = [accuracy(member) for member in prepared]
    chosen = max(range(len(members)), key=lambda i: (seen[i], -i))
    return prepared[chosen], {"accuracies": seen, "chosen": [chosen]}


def greedy(
    members: Sequence[Checkpoint], ready: Ready, accuracy: Accuracy, accept: str = "ge"
) -> tuple[Checkpoint, dict[str, Any]]:
    """Begin with the best; add each further member, best first, if that is no worse (`ge`) or better (`gt`).

    Every trial is made `ready` before it is judged, so the result is never below the best member. Returns the soup
    and what was seen: members by number, in the order they were tried.
    """
    seen = [accuracy(ready(member)) for member in members]
    order = sorted(range(len(members)), key=lambda i: (-seen[i], i))
    chosen, made, reached = order[:1], ready(members[order[0]]), seen[order[0]]
    trials = []
    for candidate in order[1:]:
        trial = ready(mean([members[i] for i in sorted([*chosen, candidate])]))
        found = accuracy(trial)
        taken = found >= reached if accept == "ge" else found > reached
        trials.append({"added": candidate, "accuracy": found, "taken": taken})
        if taken:
            chosen, made, reached = [*chosen, candidate], trial, found
    return made, {"accuracies": seen, "order": order, "trials": trials, "chosen": sorted(chosen)}
