"""The rows of the bench that are whole commands, and graphs as large as they get."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from lthbench.bench.measure import Row, row, seconds
from lthbench.engine.claims import Claims
from lthbench.engine.store import Store
from lthbench.models import ModelSettings
from lthbench.stages.init import init


def graphs(blocks: int) -> Iterator[Row]:
    """Planning, claiming and listing ten times as many stages, up to 100,000."""
    times: dict[int, dict[str, list[float]]] = {}
    for count in (10_000, 100_000):
        model = ModelSettings.of("lenet_300_100", {}, (1, 28, 28), 10)
        stages = [init(model, "kaiming_normal", seed) for seed in range(count)]
        with tempfile.TemporaryDirectory() as folder:
            store, claims = Store(folder), Claims()
            words = [f"seed=range({count // 5})", "sparsity=0.5", "schedule=oneshot", "-m"]  # five stages a run
            took = times[count] = {"plan": _times(["plan", *words, f"out={folder}"], 3)}
            folders = [store.folder(made.id) for made in stages]
            took["claim"] = [seconds(lambda: _claimed(claims, folders)) for _ in range(3)]  # noqa: B023
            for made in stages:
                store.write_json(made, "out.json", 0)
            took["list"] = _times(["store", "list", f"store={folder}"], 3)
    for what, small in times[10_000].items():
        large = times[100_000][what]
        whole = "" if what == "claim" else "whole commands; "
        note = f"{whole}{median(large):.1f} s against {median(small):.1f} s"
        yield row(f"{what} of 100,000 stages against 10,000", [a / b for a, b in zip(large, small)], "x", note)
    yield row("100,000 stages listed", times[100_000]["list"], "s")


def _claimed(claims: Claims, folders: Sequence[Path]) -> None:
    for folder in folders:
        claims.take(folder)
        claims.release(folder, done=True)


def commands(blocks: int) -> Iterator[Row]:
    """Whole commands, in seconds: start-up, refusal, planning 10,000 runs, the demo, and the demo again."""
    few = max(3, min(5, blocks))
    sparsities = ",".join(f"{0.5 + i * 0.0049:.4f}" for i in range(100))
    grid = ["rewind=init,early,lr,finetune,none", "seed=range(20)", f"sparsity={sparsities}", "-m"]
    with tempfile.TemporaryDirectory() as folder:
        place = [f"out={folder}/out"]
        yield row("--help", _times(["--help"], few), "s")
        yield row("bad input refused", _times(["sparsty=0.5"], few, 2), "s")
        geometric = ["schedule=geometric", "schedule.rounds=5", *place]
        yield row(
            "plan of 10,000 runs", _times(["plan", *grid, *geometric], 3), "s", "whole command, torch's import included"
        )
        demos = [_times(["table=demo", f"out={folder}/demo{i}"], 1)[0] for i in range(3)]
        yield row("the demo from nothing", demos, "s", "one worker a core")
        yield row("the demo again", _times(["table=demo", f"out={folder}/demo0"], few), "s", "nothing computed")
        _many_results(Path(folder) / "demo0", 10_000)
        yield row("report over 10,000 results", _times(["report", f"out={folder}/demo0"], 3), "s")


def _times(words: list[str], count: int, code: int = 0) -> list[float]:
    """Seconds of a command, run so many times; it must end with the exit code."""

    def once() -> None:
        done = subprocess.run([sys.executable, "-m", "lthbench", *words], capture_output=True, text=True)
        if done.returncode != code:
            raise RuntimeError(f"lthbench {' '.join(words)}: exit code {done.returncode}: {done.stderr.strip()[-200:]}")

    return [seconds(once) for _ in range(count)]


def _many_results(out: Path, count: int) -> None:
    """Copies of the demo's results under made-up ids, up to so many."""
    paths = sorted((out / "runs").glob("*.json"))
    found = [json.loads(path.read_text()) for path in paths]
    for i in range(count - len(found)):
        value = found[i % len(found)] | {"id": f"{i:032x}"}
        (out / "runs" / f"{i:032x}.json").write_text(json.dumps(value))
