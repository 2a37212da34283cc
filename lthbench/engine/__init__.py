"""The graph of stages, the store that keeps their results, the plan of what is missing, and the runner."""
