"""Where work is done: workers on this machine (and, later, job arrays on a cluster)."""
