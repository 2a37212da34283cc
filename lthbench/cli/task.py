"""`lthbench task`: what an element of a job array runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lthbench.launch.signals import Signals

if TYPE_CHECKING:
    from lthbench.launch.slurm import Submission


def run(words: Sequence[str]) -> int:
    """Compute one array element. Returns its exit code: see lthbench.launch.slurm_task."""
    signals = Signals()  # first of all: what follows takes seconds to load

    from lthbench.cli.subcommands import parser
    from lthbench.engine.store import Store
    from lthbench.launch import slurm_task
    from lthbench.launch.slurm import Submission
    from lthbench.tracking import trackers

    arguments = parser(
        "task", f"What an element of a job array runs; by hand, to see why one failed.\n\n{slurm_task.__doc__}"
    )
    arguments.add_argument("folder", type=Path, help="<out>/slurm/<number>-<grid>")
    arguments.add_argument("number", type=int, help="the element, counted from 0")
    parsed = arguments.parse_args(words)
    element = slurm_task.Element(Submission.read(parsed.folder), parsed.number)
    config, grid = element.submission.job["config"], element.submission.job["grid"]
    tracking = trackers(config["tracking"], element.ending, Store(config["store"]), Path(config["out"]), grid)
    code = slurm_task.run(element, tracking, signals)
    print(f"element {parsed.number}: {slurm_task.ENDINGS[code]}")
    if code == 0 and slurm_task.finish(element):
        _leaderboard(element.submission)
    return code


def _leaderboard(submission: Submission) -> None:
    """Write the leaderboard of a submission that is complete."""
    from lthbench.cli.compose import composer
    from lthbench.cli.execute import leaderboard, tell_leaderboard
    from lthbench.cli.grid import expand
    from lthbench.cli.results import Results
    from lthbench.engine.store import Store
    from lthbench.report import write
    from lthbench.tracking import trackers

    said, config = submission.job["command"], submission.job["config"]
    out, store = Path(config["out"]), Store(config["store"])
    with composer(said["config_dir"]) as compose:
        grid = expand(compose, said["overrides"], said["multirun"])
    made = leaderboard(grid, said["overrides"], said["multirun"], said["config_dir"], Results([out]))
    tell_leaderboard(made, trackers(config["tracking"], grid.experiments, store, out, grid.name))
    for path in write.write(made, out / "leaderboards"):
        print(path)
