"""The papers' numbers, as data: one YAML a paper, with tables, claims, and where each number was read.

Sparsity is the share removed. Evidence: `verified` (read in the paper, or in its data or code), `plot` (read off a
figure), `secondary` (one other source), `unverified` (from memory or without source: shown, never judged).
A paper of one's own is one more YAML in a folder `published` of the folder that --config-dir names.
"""

from lthbench.published.load import known, load
from lthbench.published.paper import Claim, Evidence, Paper, Published, Table, alike, is_at

__all__ = ["Claim", "Evidence", "Paper", "Published", "Table", "alike", "is_at", "known", "load"]
