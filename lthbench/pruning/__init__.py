"""What is removed: which weights count, scores, allocations, and masks with exact counts."""
