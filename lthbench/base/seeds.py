"""Separate random streams from one root seed.

Each use of chance (initial weights, batch order, augmentation, dropout, random scores, scoring batches, the
validation split) has a stream of its own, named by (seed, purpose, index...). A change in one moves no other,
and nothing is ever saved to resume one: a draw is a function of its name.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit number that depends on all arguments and on nothing else."""
    name = f"{seed}/{purpose}/{'/'.join(map(str, index))}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """A CPU generator at the start of the stream (seed, purpose, index...)."""
    import torch

    return torch.Generator().manual_seed(derive(seed, purpose, *index))
