"""`lthbench connect`: the line between two networks, and instability analysis as a picture."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lthbench.base.errors import UserError, near
from lthbench.base.settings import build
from lthbench.cli.compose import composer
from lthbench.cli.execute import folders, say, terminal
from lthbench.cli.grid import expand
from lthbench.cli.results import Results
from lthbench.cli.showing import found as one_result
from lthbench.cli.subcommands import overrides_of, parser
from lthbench.cli.tickets import stored
from lthbench.data.sets import Augment, DataSettings
from lthbench.engine.graph import Ref
from lthbench.engine.runner import Runner
from lthbench.engine.store import Gone, Output, Store
from lthbench.report import lines
from lthbench.report.board import made_with
from lthbench.soups.settings import RECALIBRATIONS, Recalibrate
from lthbench.stages import KINDS
from lthbench.stages.connect import POINTS, connect

PLACES = ("out=", "store=", "data=", "device=", "threads=")
WHAT = """The line between two networks: distance, error and loss on the way, and how high it rises.

  lthbench connect RUN RUN                        two results, by their ids or first letters
  lthbench connect RUN 'RUN:net 1.0'              a state of a run, by its role as 'show' lists them
  lthbench connect soup=instability ... -m        of a grid that has been run: barriers against k"""


def run(words: Sequence[str]) -> int:
    """Compute the line between two states, or gather those of a grid; returns the exit code."""
    arguments = parser("connect", WHAT)
    arguments.add_argument("states", nargs="*", help="RUN or RUN:ROLE, twice; or the overrides of a grid")
    arguments.add_argument("--points", type=int, default=POINTS, help="on the line, its ends included")
    arguments.add_argument("--splits", default="test", help="where it is measured: train,val,test")
    arguments.add_argument("--recalibrate", choices=[r for r in RECALIBRATIONS if r != "none"], help="a second line")
    if any("=" in word and not word.startswith((*PLACES, "-")) for word in words):
        return _grid(words)
    parsed = arguments.parse_intermixed_args(words)
    places = [word for word in parsed.states if word.startswith(PLACES)]
    states = [word for word in parsed.states if word not in places]
    if len(states) != 2:
        raise UserError(f"connect: two states make a line, not {len(states)}; see lthbench connect --help")
    if parsed.points < 2:
        raise UserError(f"connect: --points {parsed.points} is less than 2, the ends of the line")
    with composer(None) as compose:
        config = compose.compose(choice for place in places for choice in compose.values(place))
    out, store = folders(config)
    (one, first), (other, second) = (_state(word, out, store) for word in states)
    if first["config"]["model"] != second["config"]["model"]:
        raise UserError("connect: the two runs have different networks")
    from lthbench.cli.resolve import data_root

    data = build(DataSettings, first["config"]["data"] | {"root": data_root(config)}, "data")
    splits = tuple(parsed.splits.split(","))
    for split in splits:
        if split not in ("train", *data.splits):
            raise UserError(f"connect: --splits: {data.name} has no '{split}' here")
    how = None
    if parsed.recalibrate:
        batch = first["config"].get("train", {}).get("batch", 128)
        plain = build(DataSettings, data.spelled_out() | {"root": data.root, "augment": Augment()}, "data")
        exact = parsed.recalibrate == "cumulative"
        how = Recalibrate(parsed.recalibrate, 1.0, batch, plain if exact else data, None if exact else first["seed"])
    found = _computed(connect(one, other, data, splits, parsed.points, how), store, data, config)
    _tell(found, " and ".join(states), out / "leaderboards" / f"line-{_short(one)}-{_short(other)}.png")
    return 0


def _state(word: str, out: Path, store: Store) -> tuple[Ref, dict[str, Any]]:
    """A state by `RUN` or `RUN:ROLE`, and its run's result."""
    result = one_result(word.partition(":")[0], [out])
    role = word.partition(":")[2] or "final"
    if role not in result["stages"]:
        raise UserError(f"result {result['id'][:8]} has no '{role}'{near(role, result['stages'])}")
    return stored(result["stages"][role], store, f"'{role}' of result {result['id'][:8]}"), result


def _short(ref: Ref) -> str:
    return ref.ref[:8]


def _computed(line: Any, store: Store, data: DataSettings, config: dict[str, Any]) -> dict[str, Any]:
    """The line's result, computed unless the store has it."""
    from lthbench.data.read import verify
    from lthbench.launch import local

    try:
        found: dict[str, Any] = store.output(line)
        return found
    except Gone:
        local.prepare(config["device"], config["threads"])
        verify(data)
    outcome = Runner(store, KINDS, device=config["device"]).run([(line, Output())])
    if outcome.failed:
        raise UserError(f"connect: {next(iter(outcome.failed.values()))}")
    made: dict[str, Any] = store.output(line)
    return made


def _tell(found: dict[str, Any], title: str, picture: Path) -> None:
    """The line in the terminal and as a picture."""
    splits = lines.splits(found)
    table = Table("position", *(f"{s} {what}" for s in splits for what in ("error, %", "loss")), title=title)
    for i, alpha in enumerate(found["alphas"]):
        cells = [(100 * (1 - found[s]["accuracy"][i]), found[s]["loss"][i]) for s in splits]
        table.add_row(f"{alpha:.3f}", *(lines.finite(value) for pair in cells for value in pair))
    terminal().print(table)
    print(f"distance {lines.finite(found['distance'])}, relative {lines.finite(found['relative'])}, "
          f"angle {lines.finite(found['angle'])} degrees")  # fmt: skip
    for name, part in (("", found), (" with statistics anew", found.get("recalibrated", {}))):
        for split in lines.splits(part):
            error, loss = part[split]["barrier"], part[split]["loss_barrier"]
            print(f"{split} barrier{name}: {lines.finite(100 * error)} points of error, {lines.finite(loss)} in loss")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(lines.plot_line(title, found))
    print(picture)


def _grid(words: Sequence[str]) -> int:
    """Barriers against k of the instability analyses of a grid that has been run."""
    overrides, multirun, extra_dir = overrides_of(words)
    with composer(extra_dir) as compose:
        grid = expand(compose, overrides, multirun)
    out, _ = folders(grid.config)
    here = Results([out])
    found = [result for cell in grid.cells if (result := here.get(cell.experiment.id)) is not None]
    rows = lines.barriers(result for result in found if "line" in result)
    if not rows:
        raise UserError("connect: no result of this grid has a line; run soup=instability first")
    if len(found) < len(grid.cells):
        say(f"{len(grid.cells) - len(found)} of {len(grid.cells)} runs are not here yet")
    title = "Instability analysis" if grid.title == "Grid" else grid.title
    base = out / "leaderboards" / f"{grid.name}.barriers"
    base.parent.mkdir(parents=True, exist_ok=True)
    said = [o for o in overrides if not o.startswith(("out=", "store=", "data="))]
    command = shlex.join(["python", "-m", "lthbench", *said, *(["-m"] if multirun else [])])
    head, cells = lines.table(rows)
    table = Table(*head, title=title)
    for row in cells:
        table.add_row(*row)
    terminal().print(table)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *cells])
    page = lines.markdown(title, rows, command, f"{base.name}.png", made_with(found))
    made = {".md": page.encode(), ".csv": text.getvalue().encode()}
    for ending, content in (made | {".png": lines.plot_barriers(title, rows)}).items():
        path = base.with_name(base.name + ending)
        path.write_bytes(content)
        print(path)
    return 0
