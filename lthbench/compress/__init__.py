"""What is taken away: the small dense network of a pruned one, its compressed file, and tickets that need nothing of
this package."""

from lthbench.compress.packed import read, write
from lthbench.compress.shrink import shrink

__all__ = ["read", "shrink", "write"]
