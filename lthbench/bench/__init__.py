"""Ratios measured in one interleaved run against the best loop a good engineer would write by hand."""
