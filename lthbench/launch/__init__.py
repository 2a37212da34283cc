"""Where work is done: workers on this machine, job arrays on a cluster."""
