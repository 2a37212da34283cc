"""Run what a command line describes: expand, plan, compute, report."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lthbench.base.errors import UserError, near
from lthbench.cli.compose import composer
from lthbench.cli.costs import alone
from lthbench.cli.grid import Grid, comparison, expand
from lthbench.cli.own import borrowing, own_cells
from lthbench.cli.results import Results
from lthbench.cli.tuning import Trial, chosen
from lthbench.engine.keep import KEEPS
from lthbench.engine.runner import Listener, Teller
from lthbench.engine.store import Store
from lthbench.launch.slurm import SlurmSettings
from lthbench.report.board import Board, board
from lthbench.report.compare import compare, deviations

LAUNCHERS = ("local", "slurm")
HELD_OUT = "soups choose by validation images: a tenth of the training images is held out (dataset.validation=N)"
DEVICES = r"cpu|mps|cuda(:\d+)?"


def execute(overrides: Sequence[str], multirun: bool, extra_dir: str | None) -> int:
    """Compute a grid and write its leaderboard; returns the exit code."""
    from lthbench.launch import local
    from lthbench.report import write
    from lthbench.tracking import trackers
    from lthbench.tracking.progress import ProgressBar

    grid, out, store = begin(overrides, multirun, extra_dir)
    config, runs = grid.config, grid.experiments
    on_slurm = config["launcher"]["name"] == "slurm"
    tracking = trackers(config["tracking"], runs, store, out, grid.name)
    local.check(runs, store, "cpu" if on_slurm else config["device"], config["threads"])
    seeds = len({cell.seed for cell in grid.cells})
    say(f"{grid.title}: {_count(len(runs), 'run')}, {_count(seeds, 'seed')}, results in {out}")
    if grid.held_out:
        say(HELD_OUT)
    if grid.collapsed:
        say(f"{grid.collapsed} points of the grid say the same as others and run once")
    if extra := len(grid.cells) - len(runs):
        say(
            f"{_count(extra, 'cell')} mean the same run as another: a setting that tells them apart has no effect there"
        )
    if on_slurm and (code := _submit(grid, store, out, overrides, multirun, extra_dir)) is not None:
        return code
    listeners: list[Listener] = [ProgressBar(), *tracking]
    outcome = local.run(
        runs, store, out, listeners, config["device"], config["threads"], jobs_of(config), config["keep"]
    )
    found = Results([out])
    made = leaderboard(grid, overrides, multirun, extra_dir, found)
    paths = write.write(made, out / "leaderboards")
    tell_leaderboard(made, tracking)
    write.terminal(made, terminal())
    for path in paths:
        print(path)
    if len(runs) == 1 and runs[0].result not in outcome.failed:
        print(out / "runs" / f"{runs[0].id}.json")
    for line in found.remarks:
        say(line)
    for stage, reason in outcome.causes.items():
        say(f"failed: {stage!r}: {reason}")
    if outcome.failed:
        if waiting := len(outcome.failed) - len(outcome.causes):
            say(f"{_count(waiting, 'stage')} that need these could not be computed")
        say("where it happened: lthbench store explain ID")
    print(outcome)
    return 1 if outcome.failed else 0


def begin(overrides: Sequence[str], multirun: bool, extra_dir: str | None) -> tuple[Grid, Path, Store]:
    """The grid that a command asks for, and where it goes. Raises UserError for what can be known before that."""
    from lthbench.launch import local

    with composer(extra_dir) as compose:
        grid = expand(compose, overrides, multirun)
    supported(grid.config)
    out, store = folders(grid.config)
    local.writable(out, "out")
    local.writable(store.root, "store")
    return grid, out, store


def _submit(
    grid: Grid, store: Store, out: Path, overrides: Sequence[str], multirun: bool, extra_dir: str | None
) -> int | None:
    """Send what is missing to Slurm; the exit code, or None where nothing is left to do."""
    from lthbench.cli import submitting

    command = {"overrides": list(overrides), "multirun": multirun, "config_dir": extra_dir}
    return submitting.submit(grid, store, out, command)


def execute_composed(config: Any) -> None:
    """One run of Hydra's own multirun (`hydra/launcher=...`), from its composed configuration."""
    from omegaconf import OmegaConf

    from lthbench.cli.resolve import resolve
    from lthbench.launch import local
    from lthbench.programs import experiment
    from lthbench.tracking import trackers

    plain: Any = OmegaConf.to_container(config, resolve=True)
    supported(plain)
    out, store = folders(plain)
    runs = [experiment(resolve(plain, set()))]
    tracking = trackers(plain["tracking"], runs, store, out, "grid")
    local.check(runs, store, plain["device"], plain["threads"])
    outcome = local.run(runs, store, out, tracking, plain["device"], plain["threads"])
    print(outcome)
    if outcome.failed:
        raise RuntimeError("; ".join(outcome.failed.values()))


def folders(config: dict[str, Any]) -> tuple[Path, Store]:
    """Where results go, and the store."""
    for word in ("out", "store"):
        if config[word] == "" or (config[word] is None and word == "out"):
            raise UserError(f"{word}: name a folder")
    out = Path(str(config["out"]))
    return out, Store(out / "store" if config["store"] is None else Path(str(config["store"])))


def leaderboard(grid: Grid, overrides: Sequence[str], multirun: bool, extra_dir: str | None, found: Results) -> Board:
    """The leaderboard of a grid from the results that are there."""
    words = [o for o in overrides if not o.startswith(("out=", "store=", "data=", "launcher"))]
    words += ["-m"] * multirun + (["--config-dir", extra_dir] if extra_dir else [])
    command = f"python -m lthbench {shlex.join(words)}"
    commands = {cell.label: _command_of(cell.row.label, command) for cell in grid.cells} if grid.table else {}
    lent = own_cells(grid, found.own) if grid.lent else []
    results = [found.get(cell.experiment.id) for cell in grid.cells] + [result for _, result in lent]
    grid = replace(grid, cells=[*grid.cells, *(cell for cell, _ in lent)])
    commands |= {cell.label: _command_of(cell.label, " ".join([command, *borrowing(r)])) for cell, r in lent}
    cells = [(cell.label, cell.asked, result) for cell, result in zip(grid.cells, results)]
    tuned: list[str] = []
    if grid.tune is not None:
        trials = [Trial(c.label, c.asked, c.trial, c.experiment.id, r) for c, r in zip(grid.cells, results)]
        cells, tuned = chosen(grid.tune, trials)
    made = board(grid.name, grid.title, cells, command, grid.config["scale"]["name"])
    made.tuned, made.commands = tuned, commands
    made.assumptions = list(grid.table.assumptions) if grid.table else []
    entries = {(entry.label, entry.asked): entry for entry in made.entries}
    for cell, result in zip(grid.cells, results):
        entry = entries[cell.label, cell.asked]
        if result is None:
            entry.stale += found.older(cell.experiment)
        ran = {run["id"] for run in entry.runs}
        if entry.epochs is None and (not ran or cell.experiment.id in ran):
            unspent = (result or {}).get("early", {}).get("unspent", 0)
            entry.epochs = alone(cell.experiment) - unspent
    theirs = comparison(grid, extra_dir)
    if theirs is not None:
        compare(made, theirs)
    made.deviations = deviations(made)
    return made


def _command_of(row: str, command: str) -> str:
    """The command of one row of a table."""
    quoted = "'" + row.replace("\\", "\\\\").replace("'", "\\'") + "'"
    plain = not re.search(r'[$`"\\!]', quoted)
    return f'{command} "only={quoted}"' if plain else f"{command} {shlex.quote('only=' + quoted)}"


def tell_leaderboard(made: Board, listeners: Iterable[Listener]) -> None:
    """Let trackers have a leaderboard's table."""
    from lthbench.report import write

    head, rows = write.grid(made)
    Teller(listeners)("leaderboard", name=made.name, title=made.title, head=head, rows=rows)


def supported(config: dict[str, Any]) -> None:
    """Raise a UserError for what no run's identity holds, so that nothing below would look at it."""
    launcher = config["launcher"]["name"]
    if launcher not in LAUNCHERS:
        raise UserError(f"launcher: unknown '{launcher}'{near(launcher, LAUNCHERS)}")
    if launcher == "slurm":
        SlurmSettings.of(config["launcher"])
    if config["keep"] not in KEEPS:
        raise UserError(f"keep: unknown '{config['keep']}'{near(config['keep'], KEEPS)}")
    if not re.fullmatch(DEVICES, str(config["device"])):
        raise UserError(f"device: '{config['device']}' is not cpu, cuda, cuda:0, cuda:1, ... or mps")
    for word in ("threads", "jobs"):
        number = config[word]
        if not (number is None and word == "jobs") and (type(number) is not int or number < 1):
            raise UserError(f"{word}: {number!r} is not a whole number of at least 1")


def jobs_of(config: dict[str, Any]) -> int:
    """How many workers: as many as asked for, or one a core."""
    from lthbench.launch.workers import default_jobs

    return config["jobs"] or default_jobs(config["device"])


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


class _Terminal(Console):
    """A console that leaves a broken pipe to `main`, where rich would end the program."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def terminal() -> Console:
    """Where tables are printed: as wide as the terminal, or 120 columns in a pipe."""
    return _Terminal(width=None if sys.stdout.isatty() else 120, highlight=False)


def say(text: str) -> None:
    """A line for the person, not for the pipe."""
    print(text, file=sys.stderr, flush=True)
