"""`lthbench critical`: each method's largest compression without an empty layer, without training."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lthbench.base.errors import UserError
from lthbench.base.settings import canonical
from lthbench.cli.compose import composer
from lthbench.cli.execute import folders, say, supported, terminal
from lthbench.cli.grid import Grid, expand
from lthbench.cli.subcommands import overrides_of, parser
from lthbench.engine.graph import name_of
from lthbench.programs import Run

COLUMNS = ("method", "seed", "critical compression", "weights kept", "most possible", "empty at the next candidate")


def run(words: Sequence[str]) -> int:
    """Search for every method of a grid, print the table, write `<out>/critical/<grid>.{md,json}`."""
    arguments = parser(
        "critical",
        "Each method's largest compression without an empty layer, found by bisection over 50 candidates a factor of\n"
        "ten, on the network as it is initialised (or given by model.weights); nothing is trained. Exact where masks\n"
        "are nested (one look, allocation=global), else a lower bound, marked ≥.",
    )
    arguments.add_argument("overrides", nargs="*", help="as for a run: pruner=snip,synflow model=vgg_16 seed=0,1 -m")
    if {"-h", "--help"} & set(words):
        arguments.print_help()
        return 0
    overrides, multirun, extra_dir = overrides_of(words)
    with composer(extra_dir) as compose:
        grid = expand(compose, overrides, multirun)
    supported(grid.config)
    cells = list({(cell.label, cell.seed): cell for cell in grid.cells if cell.experiment.run.rounds}.values())
    for cell in cells:
        _check(cell.experiment.run)
    from lthbench.launch import local

    out, _ = folders(grid.config)
    local.writable(out, "out")
    local.prepare(grid.config["device"], grid.config["threads"])
    command = f"python -m lthbench critical {shlex.join([*overrides, *['-m'] * multirun])}"
    folder = out / "critical"
    known = _known(folder / f"{grid.name}.json")
    marked = "" if (scale := grid.config["scale"]["name"]) == "paper" else f" (scale {scale})"
    rows: list[dict[str, Any]] = []
    for cell in cells:
        what = _name(cell.experiment.run)
        found = known.get(what)
        if found is None:
            begun = time.monotonic()
            found = {"of": what, **_search(cell.experiment.run), "seconds": round(time.monotonic() - begun, 1)}
            say(
                f"{cell.label}, seed {cell.seed}: 10^{found['log10']:.2f}, {found['masks']} masks, {found['seconds']} s"
            )
        nested = _nested(cell.experiment.run)
        rows.append({**found, "nested": nested, "method": cell.label + marked, "seed": cell.seed})
        paths = _write(folder, rows, grid, command)
    terminal().print(_table(rows))
    for path in paths:
        print(path)
    return 0


def _known(path: Path) -> dict[str, Any]:
    """What earlier searches found, by what was searched: a search that is interrupted goes on where it stopped."""
    return {row["of"]: row for row in json.loads(path.read_text())["rows"]} if path.is_file() else {}


def _name(run: Run) -> str:
    """What determines the result: network, criterion and how it is run, allocation, which weights count."""
    text = canonical([run.start().id, run.pruner, run.allocation, run.prunable])
    return name_of(text)


def _check(run: Run) -> None:
    if run.method is not None:
        raise UserError(f"critical: pruner={run.method.name} finds its mask in training; this looks at new networks")
    if (structure := run.pruner.structure) is not None:
        raise UserError(f"critical looks at single weights: it needs structure=weight, not {structure.name}")
    if run.allocation.name not in ("global", "uniform"):
        raise UserError(f"critical: allocation={run.allocation.name} leaves no compression to look for")


def _nested(run: Run) -> bool:
    """Whether the masks of different compressions are nested, so that the search is exact."""
    scoring = run.pruner.scoring
    return (scoring is None or scoring.rounds == 1) and run.allocation.name == "global"


def _search(run: Run) -> dict[str, Any]:
    """The critical compression of a run's criterion on its initial network."""
    from dataclasses import asdict

    from lthbench import models
    from lthbench.data.read import verify
    from lthbench.evaluation.critical import search
    from lthbench.evaluation.paths import effective
    from lthbench.pruning.prunable import prunable
    from lthbench.pruning.prune import prune
    from lthbench.stages.init import Init, network
    from lthbench.training.checkpoint import Checkpoint

    models.check(run.model)
    pruner, scoring = run.pruner, run.pruner.scoring
    if scoring is not None and scoring.data is not None:
        verify(scoring.data)
    settings = run.start().settings
    assert isinstance(settings, Init)
    start = Checkpoint.of(run.model, network(settings), {})
    weights = prunable(start.network(), run.prunable)

    def take(density: Any) -> Any:
        mask = prune(
            start, pruner.criterion, run.allocation, run.prunable, density,
            scoring=scoring, initial=start.weights,
        )  # fmt: skip
        return {name: mask[name] for name in weights}

    def connected(mask: Any) -> bool | None:
        found = effective(start.network(), mask, run.model.shape)
        return None if isinstance(found, str) else any(bool(m.any()) for m in found.values())

    return asdict(search(take, sum(w.parameter.numel() for w in weights.values()), len(weights), connected))


def _lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The table's cells."""
    lines = []
    for row in rows:
        empty = ", ".join(row["empty"][:2]) + (f" and {n} more" if (n := len(row["empty"]) - 2) > 0 else "")
        empty = (empty or "(fewer weights than layers)") + (" (still connected)" if row["connected"] else "")
        bound = "" if row["nested"] or not row["empty"] else "≥ "
        reached = f"{bound}10^{row['log10']:.2f} ({row['total'] / row['kept']:,.0f})"
        kept, most = f"{row['kept']:,} of {row['total']:,}", f"{row['total'] / row['layers']:,.0f}"
        lines.append([row["method"], str(row["seed"]), reached, kept, most, empty])
    return lines


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(*COLUMNS, box=None)
    for line in _lines(rows):
        table.add_row(*line)
    return table


def _write(folder: Path, rows: list[dict[str, Any]], grid: Grid, command: str) -> list[Path]:
    from lthbench.programs.record import environment

    config, scale = grid.config, grid.config["scale"]["name"]
    e = environment(config["device"], config["threads"])
    data = grid.cells[0].experiment.run.data
    page = [
        f"# {grid.title if grid.table else 'Critical compression'}", "",
        *([f"**Scale {scale}: not the networks and data that are named.**", ""] if scale != "paper" else []),
        "The largest compression (prunable weights over those kept) at which every layer keeps a weight, among the "
        "candidates 10^(i/50), by bisection; networks as they are initialised, nothing trained. That is exact where "
        "the masks of different compressions are nested, as those of one look are; of methods of many rounds (≥) it "
        "is a lower bound: a mask without an empty layer, the next candidate's with one. `most possible` leaves one "
        "weight a layer; an empty layer beside a shortcut leaves input and output connected. Data, where a criterion "
        f"looks at images: {data.name}, version {data.version}.", "",
        *("| " + " | ".join(line) + " |" for line in [list(COLUMNS), ["---"] * len(COLUMNS), *_lines(rows)]), "",
        f"lthbench {e['lthbench']}, torch {e['torch']}, Python {e['python']}; {e['processor']}.", "",
        f"    {command}", "",
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{grid.name}.md", folder / f"{grid.name}.json"]
    paths[0].write_text("\n".join(page))
    value = {"command": command, "rows": rows, "data": data.spelled_out(), "environment": e}
    paths[1].write_text(json.dumps(value, indent=1) + "\n")
    return paths
