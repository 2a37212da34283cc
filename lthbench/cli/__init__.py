"""The command line: Hydra at the edge, typed settings below it."""
