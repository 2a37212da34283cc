"""`lthbench trace`: the course of training of the runs of a grid, beside each other."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from lthbench.base.errors import UserError
from lthbench.cli.execute import begin, jobs_of, say, terminal
from lthbench.cli.grid import Cell
from lthbench.cli.results import Results
from lthbench.cli.subcommands import overrides_of, parser
from lthbench.engine.graph import Ref, Stage, State
from lthbench.engine.store import Output
from lthbench.programs import Experiment
from lthbench.report import traces
from lthbench.report.board import made_with
from lthbench.stages import train as trajectory
from lthbench.stages.trace import trace
from lthbench.stages.train import Train

WHAT = """The course of training of the runs of a grid: loss and gradient, distance from where training began, how
masks and tangent kernels change; of each run's last training (of a ticket: under its mask). What is missing is
computed, states on the way are made again to the same bits.

  lthbench trace pruner=magnitude,random sparsity=0,0.9 seed=0,1,2 -m
  lthbench trace table=dynamics_lenet"""


def run(words: Sequence[str]) -> int:
    """Compute the traces of a grid, and write them as page, CSV and picture; returns the exit code."""
    arguments = parser("trace", WHAT)
    arguments.add_argument("--points", type=int, default=10, help="states looked at besides the first")
    arguments.add_argument("--images", type=int, default=512, help="training images that gradients are taken on")
    arguments.add_argument("--kernel", type=int, default=20, help="of these, images of the tangent kernel")
    parsed, rest = arguments.parse_known_args(words)  # the rest is a command line like a run's
    if parsed.points < 1:
        raise UserError(f"trace: --points {parsed.points} is less than 1")
    if not 2 <= parsed.kernel <= parsed.images:
        raise UserError(f"trace: --kernel {parsed.kernel} is not between 2 and --images {parsed.images}")
    overrides, multirun, extra_dir = overrides_of(rest)
    from lthbench.launch import local
    from lthbench.tracking.progress import ProgressBar

    grid, out, store = begin(overrides, multirun, extra_dir)
    config, runs = grid.config, grid.experiments
    if config["launcher"]["name"] != "local":
        raise UserError(
            f"trace: it computes here, not with launcher={config['launcher']['name']}; run the grid there first"
        )
    made: dict[str, tuple[Stage, list[int]]] = {}
    for each in runs:
        if parsed.images > each.run.data.train_samples:
            raise UserError(f"trace: --images {parsed.images} of {each.run.data.train_samples} training images")
        states, steps = _states(each, parsed.points)
        made[each.id] = trace(states, each.run.data, parsed.images, parsed.kernel, each.run.seed), steps
    local.check(runs, store, config["device"], config["threads"])
    for each in runs:
        each.goals.append((made[each.id][0], Output()))
    outcome = local.run(runs, store, out, [ProgressBar()], config["device"], config["threads"], jobs_of(config))
    lines: dict[str, traces.Line] = {}
    for cell in grid.cells:
        stage, steps = made[cell.experiment.id]
        if stage not in outcome.failed:
            name = _name(cell, grid.cells)
            lines.setdefault(name, traces.Line(name)).seeds[cell.seed] = steps, store.output(stage)
    for failed, reason in outcome.causes.items():
        say(f"failed: {failed!r}: {reason}")
    if lines:
        about = f"On {parsed.images} training images (kernels: {parsed.kernel}), the same for runs of one seed."
        said = [w for w in words if not w.startswith(("out=", "store=", "data=", "jobs="))]
        page = _Page(grid.name, grid.title, shlex.join(["python", "-m", "lthbench", "trace", *said]), about)
        here = Results([out])
        page.write(list(lines.values()), out, made_with(r for e in runs if (r := here.get(e.id)) is not None))
    print(outcome)
    return 1 if outcome.failed else 0


def _states(experiment: Experiment, points: int) -> tuple[list[Ref], list[int]]:
    """States of a run's last training, at equal distances, the first and the last among them."""
    run, last = experiment.trajectory, experiment.roles.get("last", experiment.roles["final"])
    if run is None or not isinstance(last, State):
        raise UserError("trace: a run that ends in an average, or trains nothing, has no last training (soup=none)")
    assert isinstance(run.settings, Train) and isinstance(last.step, int)
    first = run.settings.first
    steps = sorted({first + round((last.step - first) * i / points) for i in range(points + 1)})
    return [trajectory.at(run, step) for step in steps], steps


def _name(cell: Cell, cells: Sequence[Cell]) -> str:
    """What a line is called: by its label, and by its sparsity where lines of one label differ in it."""
    if cell.asked == "0" and len({c.experiment.id for c in cells if (c.asked, c.seed) == ("0", cell.seed)}) == 1:
        return "dense"  # the same for all
    several = len({c.asked for c in cells if c.label == cell.label and c.asked != "0"}) > 1
    return f"{cell.label}, {100 * float(cell.asked):.3g} % pruned" if several and cell.asked != "0" else cell.label


@dataclass(frozen=True)
class _Page:
    name: str
    title: str
    command: str
    about: str

    def write(self, lines: list[traces.Line], out: Path, made: list[str]) -> None:
        """To the terminal, and as Markdown, CSV and PNG beside the leaderboards."""
        title = f"The course of training: {self.title}" if self.title != "Grid" else "The course of training"
        head, cells = traces.table(lines)
        shown = Table(*head, title=title)
        for row in cells:
            shown.add_row(*row)
        terminal().print(shown)
        base = out / "leaderboards" / f"{self.name}.trace"
        base.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(traces.rows(lines))
        page = traces.markdown(title, lines, self.command, f"{base.name}.png", self.about, made)
        for ending, content in {
            ".md": page.encode(),
            ".csv": text.getvalue().encode(),
            ".png": traces.plot(title, lines),
        }.items():
            path = base.with_name(base.name + ending)
            path.write_bytes(content)
            print(path)
