"""200 runs of the demo's kind while 30 elements are preempted, requeued, cancelled or killed (slow: some minutes)."""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections import Counter

import pytest
from engine.small_runs import contents
from launch.conftest import costs, results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

GRID = "rewind=init,early,lr,finetune rewind.k=0.1 schedule.rate=0.5 train.epochs=2 seed=range(10) "
GRID += "sparsity=level:1,level:2,level:3,level:4,level:5 -m"
SLURM = "launcher=slurm launcher.gpus=1 launcher.cpus=1 launcher.pack_steps=1000 launcher.patience=5"
BLOWS = 30
CERTAIN = ["scontrol requeue {}", "scancel {}", "scancel --signal=KILL --batch {}", "scancel --signal=USR2 --batch {}"]
PREEMPT = "sbatch --partition=urgent --exclusive --time=1 --output=/dev/null --wrap true"


def done(out):
    """How many stages are computed."""
    return sum(1 for _ in out.glob("store/*/*/cost.json"))


def stages(out):
    """The folders of a store's stages."""
    return list(out.glob("store/[0-9a-f][0-9a-f]/*"))


def test_nothing_is_lost_or_done_twice(clean, shell, tmp_path):
    """The blows are spread over the work, not over the time: one whenever so many more stages are done."""
    draws, struck, submitted = random.Random(0), [], 0
    local = shell(f"{GRID} out=local")
    assert local.code == 0
    total = int(re.search(r"stages: (\d+) asked", local.out)[1])
    due = sorted(draws.sample(range(total * 9 // 10), BLOWS))
    there = tmp_path / "there"
    while True:
        said = shell(f"{GRID} {SLURM} out=there")
        assert said.code == 0, said.err
        if "stages:" in said.out:
            break
        submitted += 1
        while not clean.idle():
            running = [job for job, state in clean.queue().items() if state == "RUNNING" and "N/A" not in job]
            if running and due and done(there) >= due[0]:
                blow = draws.choice([*CERTAIN, PREEMPT])
                subprocess.run(blow.format(draws.choice(running)).split(), capture_output=True)
                struck.append(blow.split(" {")[0].split(" --output")[0])
                due.pop(0)
            time.sleep(0.1)
            clean.hurry()
    print(f"{submitted} submissions, {dict(Counter(struck))}")
    assert len(struck) == BLOWS
    assert len(results(there)) == 200
    assert results(there) == results(tmp_path / "local")
    csv = (there / "leaderboards" / "grid.csv").read_bytes()
    assert csv == (tmp_path / "local" / "leaderboards" / "grid.csv").read_bytes()
    assert contents(there / "store") == contents(tmp_path / "local" / "store")
    assert {len(cost) for cost in costs(there)} == {1}, "no stage was finished twice"
    unpriced = [folder for folder in stages(there) if not (folder / "cost.json").exists()]
    assert len(stages(there)) == total
    assert all(list(folder.glob("claim.*")) for folder in unpriced), (
        "killed between the last file and the note of its cost"
    )
    assert len(unpriced) <= sum("KILL" in blow for blow in struck)
