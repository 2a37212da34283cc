"""`lthbench sync`: upload what Weights & Biases kept offline."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from lthbench.base.errors import UserError
from lthbench.cli.compose import composer
from lthbench.cli.execute import folders
from lthbench.cli.grid import expand
from lthbench.cli.subcommands import overrides_of, parser
from lthbench.tracking.wandb import leaderboard_id

PLACES = ("out=", "store=")


def run(words: Sequence[str]) -> int:
    """Hand the offline runs of a command, or all below `out`, to `wandb sync`, in the order they were made."""
    arguments = parser(
        "sync",
        "Upload the W&B runs that were kept offline: those of the command that is named (table=NAME, ... -m), or all\n"
        "below out=DIR. What is uploaded is passed over the next time. `wandb login` first.",
    )
    arguments.add_argument("overrides", nargs="*", help="a command's overrides; none: everything below out=DIR")
    arguments.add_argument("--dry-run", action="store_true", help="only say what would be uploaded")
    if {"-h", "--help"} & set(words):
        arguments.print_help()
        return 0
    overrides, multirun, extra_dir = overrides_of([word for word in words if word != "--dry-run"])
    with composer(extra_dir) as compose:
        out, _ = folders(compose.compose(c for o in overrides if o.startswith(PLACES) for c in compose.values(o)))
        named = [o for o in overrides if not o.startswith(PLACES)]
        ids = None
        if named:
            grid = expand(compose, overrides, multirun)
            runs = [e.id for e in grid.experiments]
            ids = {*runs, leaderboard_id(grid.name, runs)}
    kept = sorted((out / "wandb").glob("offline-run-*"))
    kept = [path for path in kept if ids is None or path.name.rpartition("-")[2] in ids]
    if not kept:
        raise UserError(f"no offline W&B runs of this in '{out / 'wandb'}'; say out=DIR")
    if "--dry-run" in words:
        print("\n".join(map(str, kept)))
        return 0
    return subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, kept)]).returncode
