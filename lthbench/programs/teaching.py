"""Distillation: a pruned network learns from a teacher too (Hinton et al. 2015, arXiv 1503.02531; as in Sanh et al.
2020, arXiv 2005.07683, table 3)."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.base.settings import Settings, aside
from lthbench.training.recipe import Distill

DENSE = "dense"


@dataclass(frozen=True)
class Teacher(Settings):
    """`who`: `dense`, the trained dense network of the run, or the sha256 of a file with weights of the same network.

    Only what is pruned learns from it; the dense network is one and the same with and without.
    """

    who: str
    how: Distill
    path: str | None = aside()
