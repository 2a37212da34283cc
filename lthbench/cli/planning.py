"""`lthbench plan`: what a command would cost, without computing it."""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from lthbench.base.errors import UserError
from lthbench.base.units import duration, readable
from lthbench.cli.compose import Config, composer
from lthbench.cli.costs import Empty, Timing, alone, kept_bytes, total_epochs, wall
from lthbench.cli.execute import HELD_OUT, folders, jobs_of, supported
from lthbench.cli.grid import Grid, comparison, expand
from lthbench.cli.subcommands import overrides_of, parser
from lthbench.engine.graph import ancestors
from lthbench.engine.plan import Work, plan
from lthbench.report.compare import beside
from lthbench.report.verdicts import attainable
from lthbench.stages.train import Train

START_SECONDS = 4.0  # torch, the data, the leaderboard


def run(words: Sequence[str]) -> int:
    """Print runs, distinct stages, epochs asked for and after sharing, bytes, hours; and what is left to compute."""
    arguments = parser("plan", "What a command would cost: the overrides are those of the command itself.")
    arguments.add_argument("overrides", nargs="*", help="as for a run, with -m or table=NAME for a grid")
    arguments.add_argument("--no-timing", action="store_true", help="leave out the hours: no step is timed")
    if {"-h", "--help"} & set(words):
        arguments.print_help()
        return 0
    gc.disable()  # a graph is all references and no garbage
    overrides, multirun, extra_dir = overrides_of([word for word in words if word != "--no-timing"])
    with composer(extra_dir) as compose:
        grid = expand(compose, overrides, multirun)
    supported(grid.config)
    runs = grid.experiments
    goals = [goal for e in runs for goal in e.goals]
    stages = list(ancestors(e.result for e in runs))
    whole = plan(goals, Empty())
    naive, trained = sum(map(alone, runs)), total_epochs(whole)
    _, store = folders(grid.config)
    left = plan(goals, store) if store.root.is_dir() else whole
    print(f"{grid.title}: {len(grid.cells)} cells")
    if grid.held_out:
        print(HELD_OUT)
    share = f" ({trained / naive:.0%})" if naive else ""
    print(f"epochs asked for, each run alone: {naive:.1f}; after sharing: {trained:.1f}{share}")
    everything, needed = kept_bytes(whole, [e.roles["final"] for e in runs])
    print(f"states in the store: {readable(everything)}, with keep=needed {readable(needed)}")
    print(f"left to compute: {len(left)} stages, {total_epochs(left):.1f} epochs")
    for line in _attainable(grid, extra_dir):
        print(line)
    if "--no-timing" not in words:
        for line in _hours(whole, left, grid.config):
            print(line)
    print(f"plan: {len(runs)} runs, {len(stages)} distinct stages, {trained:.1f} epochs ({naive:.1f} naive)")
    return 0


def _attainable(grid: Grid, extra_dir: str | None) -> Iterator[str]:
    """The best verdicts that the planned runs can reach, were there no difference to the paper."""
    theirs = comparison(grid, extra_dir)
    if theirs is None or theirs.margin is None:
        return
    if grid.config["scale"]["name"] != "paper":
        yield "verdicts: none on cells, the scale is not the published one"
        return
    planned = Counter((cell.label, cell.asked) for cell in grid.cells)
    words: Counter[str] = Counter()
    for cell, n in planned.items():
        published = beside(theirs.tables, theirs.places[cell])
        if published is not None:
            words[
                re.sub(r" \(interval.*", " (too few runs for the margin)", attainable(n, published, theirs.margin))
            ] += 1
    if words:
        yield "verdicts to be had at best: " + ", ".join(f"{n} {word}" for word, n in words.most_common())


def _hours(whole: Sequence[Work], left: Sequence[Work], config: Config) -> Iterator[str]:
    """How long it all takes on this device, and how long what is left."""
    from lthbench.launch.local import prepare

    device, threads, jobs = config["device"], config["threads"], jobs_of(config)
    try:
        prepare(device, threads)
    except UserError as error:
        yield f"time: unknown, {error}"
        return
    timing = Timing(whole, device)
    takes = [timing.seconds(work) for work in whole]
    rest = takes if left is whole else [timing.seconds(work) for work in left]
    yield from (f"timed here: {line}" for line in timing.lines)
    if any(work.stage.settings.data.streamed for work in whole if isinstance(work.stage.settings, Train)):
        yield "not timed: reading and decoding image files"
    all_of_it = wall(whole, takes, jobs) + START_SECONDS
    what_is_left = wall(left, rest, jobs) + START_SECONDS if left else 0.0
    with_ = f"{jobs} worker{'s' if jobs > 1 else ''} of {threads} thread{'s' if threads > 1 else ''} on {device}"
    yield (
        f"time with {with_}: {duration(all_of_it)} in all ({duration(sum(takes))} of work), "
        f"{duration(what_is_left)} for what is left"
    )
