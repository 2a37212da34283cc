"""What is taken away: the small dense network of a pruned one, and tickets that need nothing of this package."""

from lthbench.compress.shrink import shrink

__all__ = ["shrink"]
