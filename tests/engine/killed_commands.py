"""A process that has everything imported and planned, and runs it in forked children, which may be killed.

Its arguments are the words of a command line. Each line it reads is JSON: the folder for results, and before which
of its writes the child kills itself (null: none). It answers with the child's process id, and when the child is
gone with its exit code, negative for a signal.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch._dynamo  # the first step of an optimiser would import it, in every child

import lthbench.evaluation.counts
import lthbench.models.initialise
import lthbench.pruning.prune
import lthbench.training.loop  # noqa: F401
from lthbench.cli.compose import composer
from lthbench.cli.grid import expand
from lthbench.data.read import load
from lthbench.engine.store import Store
from lthbench.launch import local


def kill_at_write(left: int) -> None:
    """Die before, in turn, flushing and renaming a file, `left` such acts from now."""
    for name in ("replace", "fsync"):
        act = getattr(os, name)

        def counted(*arguments, act=act):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*arguments)

        setattr(os, name, counted)


torch.set_num_threads(1)
with composer(None) as compose:
    experiments = expand(compose, sys.argv[1:], multirun=True).experiments
for experiment in experiments:
    load(experiment.run.data)
for line in sys.stdin:
    out, writes = json.loads(line)
    child = os.fork()
    if not child:
        if writes is not None:
            kill_at_write(writes)
        outcome = local.run(experiments, Store(Path(out) / "store"), Path(out))
        os._exit(bool(outcome.failed))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
