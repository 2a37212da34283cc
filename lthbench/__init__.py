"""Lottery tickets and pruning, reproduced: a benchmark suite."""

__version__ = "0.1.0"
