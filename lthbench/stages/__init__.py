"""The operations that every paper here is made of. KINDS is what the runner needs of them.

A kind is one file: its settings, its version (raise it when its numbers change), a constructor that gives the
stage's name, and `compute`, which makes the result. Constructors are pure and import no torch.
"""

from lthbench.stages import (
    average,
    connect,
    control,
    evaluate,
    examples,
    init,
    pack,
    prune,
    share,
    ticket,
    trace,
    train,
)  # fmt: skip

_MODULES = (init, train, prune, control, average, connect, share, pack, evaluate, ticket, trace, examples)
KINDS = {module.KIND: module.compute for module in _MODULES}
