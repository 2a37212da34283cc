"""On a real Slurm (slow: starting Python on a node takes seconds, and every test runs several jobs).

What a local run of the same command gives is what everything here must give.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from launch.conftest import LARGEST_ARRAY, costs, results, states
from tracking.offline_files import kept, table

from lthbench.engine.claims import Claims

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]  # on a machine that has other work, too

GRID = "rewind=init,lr sparsity=0.5,0.8 seed=0,1 train.epochs=1 -m"
SLURM = "launcher=slurm launcher.gpus=1 launcher.cpus=1 launcher.pack_steps=0"
PACKED = SLURM.replace("pack_steps=0", "pack_steps=150")
# one training of some seconds, to be interrupted
LONG = "sparsity=0.2 schedule=oneshot rewind=early rewind.k=0.02 train.epochs=100 train.evaluate.every=50"


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """The undisturbed result of LONG."""
    from lthbench.cli.main import main

    out = tmp_path_factory.mktemp("long")
    assert main([*LONG.split(), f"out={out}", "jobs=1"]) == 0
    return results(out)


def at_work(cluster, out, job):
    """Wait until the element of a job is training: then the rewinding point is there."""
    cluster.until(lambda: cluster.queue().get(job) == "RUNNING" and list(out.glob("store/*/*/s0*.safetensors")))


def test_a_grid_as_arrays(clean, shell, tmp_path):
    assert shell(f"{GRID} out=local").code == 0
    first = shell(f"{GRID} {PACKED} out=there", fresh=True)
    assert first.code == 0, first.err
    assert len(first.jobs) == 3  # three depths: dense, the common rounds, the last ones
    again = shell(f"{GRID} {PACKED} out=there")
    assert again.code == 0
    assert "slurm: all that is missing is queued or running" in again.out
    clean.until(clean.idle)
    there = tmp_path / "there"
    assert 3 < len(states(there)) < 14, "short tasks share elements"
    assert {s["state"] for s in states(there).values()} == {"done"}
    csv = (there / "leaderboards" / "grid.csv").read_bytes()  # written by the last element
    assert csv == (tmp_path / "local" / "leaderboards" / "grid.csv").read_bytes()
    assert results(there) == results(tmp_path / "local")
    done = shell(f"{GRID} {PACKED} out=there")
    assert done.out.splitlines()[-1] == "stages: 82 asked, 0 computed, 82 reused"
    assert len(list(there.glob("slurm/*"))) == 1
    jobs = shell("jobs out=there")
    assert jobs.code == 0
    assert (
        jobs.out
        == f"0001-grid: 8 runs in {len(states(there))} elements ({' '.join(first.jobs)}): {len(states(there))} done\n"
    )


def test_only_what_is_missing_is_submitted_and_what_rests_on_what_is_underway_waits_for_it(clean, shell, tmp_path):
    words = f"{SLURM} out=o train.epochs=300 train.evaluate.every=300"
    dense = shell(f"sparsity=0 {words}").jobs
    pruned = shell(f"sparsity=0.2 {words}")
    assert pruned.out.startswith("slurm: 1 tasks in 1 elements")
    assert clean.shown(f"{pruned.jobs[0]}_0", "Dependency").startswith(f"afterany:{dense[0]}_0")
    clean.until(clean.idle)
    assert len(results(tmp_path / "o")) == 2
    assert {len(cost) for cost in costs(tmp_path / "o")} == {1}, "nothing was computed twice"


def test_gpus_are_handed_out_and_arrays_are_cut_to_the_limit(clean, shell, tmp_path):
    (tmp_path / "own.sh").write_text(
        "#!/bin/bash\n{{options}}\necho gpu $CUDA_VISIBLE_DEVICES\n{{setup}}\n"
        "exec {{python}} -m lthbench task {{folder}} $(($1 + SLURM_ARRAY_TASK_ID))\n"
    )
    count = LARGEST_ARRAY + 1
    seeds = ",".join(map(str, range(count)))
    said = shell(
        f"sparsity=0 scale=smoke seed={seeds} -m {SLURM} out=o launcher.template=own.sh launcher.throttle=3 "
        """'launcher.setup=[echo one,echo two]' 'launcher.options=["--comment=mine"]'"""
    )
    assert len(said.jobs) == 2, said.err
    most = 0

    def ended():
        nonlocal most
        states = list(clean.queue().items())
        most = max(most, sum(s == "RUNNING" for j, s in states if j.startswith(f"{said.jobs[0]}_")))
        return clean.idle()

    clean.until(ended)
    assert 1 <= most <= 3
    logs = [path.read_text() for path in tmp_path.glob("o/slurm/*/logs/*.log")]
    assert len(logs) == count
    assert all("gpu " in log and "one\ntwo\n" in log for log in logs)
    assert len({log.split("gpu ")[1].split()[0] for log in logs}) >= most
    assert len(results(tmp_path / "o")) == count


@pytest.mark.parametrize("event", ["nearly out of time", "preempted", "node lost", "killed"])
def test_comes_back_and_goes_on_to_the_same_bits(event, clean, shell, tmp_path, long):
    job = shell(f"{LONG} {SLURM} out=o").jobs[0] + "_0"
    at_work(clean, tmp_path / "o", job)
    if event == "nearly out of time":
        clean.say("scancel", "--signal=USR2", "--batch", job)
    elif event == "preempted":
        clean.say("sbatch", "--partition=urgent", "--exclusive", "--wrap", "sleep 2", "--output=/dev/null")
    elif event == "node lost":
        clean.lose_the_node()
    else:
        clean.say("scontrol", "requeue", job)  # TERM, then KILL
    clean.until(lambda: clean.shown(job, "Restarts") == "1" and clean.idle())
    assert clean.queue()[job] == "COMPLETED"
    assert results(tmp_path / "o") == long
    jobs = shell("jobs out=o")
    assert jobs.out.endswith("1 done; came back 1 times\n"), jobs.out
    resumed = [part["from"] for cost in costs(tmp_path / "o") for part in cost if part["from"] is not None]
    if event != "node lost":  # then nobody was asked to save
        assert resumed and resumed[0] > 0


def test_the_real_limit_of_time(clean, shell, tmp_path):
    """Slurm signals by itself, some seconds before the limit of a minute: the element comes back by itself."""
    command = "sparsity=0 train.epochs=3000 train.evaluate.every=1000 train.schedule.kind=constant"
    job = shell(f"{command} {SLURM} out=o launcher.time=1 launcher.signal=20").jobs[0] + "_0"
    clean.until(lambda: clean.shown(job, "Restarts") != "0", hurry=False)
    clean.until(lambda: states(tmp_path / "o")[0]["state"] == "saved", hurry=False)
    assert states(tmp_path / "o")[0]["code"] == 85
    clean.until(lambda: clean.queue()[job] == "PENDING", hurry=False)
    assert "1 requeued" in shell("jobs out=o").out


def test_cancelled_ones_are_lost_and_the_same_command_takes_them_up(clean, shell, tmp_path, long):
    command = f"{LONG} {SLURM} out=o"
    job = shell(command).jobs[0] + "_0"
    at_work(clean, tmp_path / "o", job)
    clean.say("scancel", job)
    clean.until(clean.idle)
    assert states(tmp_path / "o")[0]["state"] == "saved"
    jobs = shell("jobs out=o")
    assert jobs.code == 1
    assert "1 lost" in jobs.out
    assert "cancelled; the same command goes on from here" in jobs.out
    assert shell(command).code == 0
    clean.until(clean.idle)
    assert results(tmp_path / "o") == long
    assert max(part["from"] or 0 for cost in costs(tmp_path / "o") for part in cost) > 0


def test_requeues_are_bounded(clean, shell, tmp_path):
    job = shell(f"{LONG} {SLURM} out=o launcher.requeues=0").jobs[0] + "_0"
    at_work(clean, tmp_path / "o", job)
    clean.say("scancel", "--signal=USR2", "--batch", job)
    clean.until(clean.idle)
    assert clean.queue()[job] == "FAILED"
    assert clean.shown(job, "ExitCode") == "85:0"
    assert "came back 0 times (launcher.requeues); the same command goes on from here" in shell("jobs out=o").out


BREAKS = """
import os
from pathlib import Path
from torch import nn
def model(shape, classes, n):
    if n == 13 and "SLURM_JOB_ID" in os.environ:
        raise RuntimeError("no luck today")
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n), nn.ReLU(), nn.Linear(n, classes))
"""


def test_a_failing_task_takes_no_sibling_along_and_its_dependants_say_why(clean, shell, tmp_path):
    (tmp_path / "net.py").write_text(BREAKS)
    command = f"model=net.py model.args.n=12,13 sparsity=0,0.5,0.8 train.epochs=1 schedule=oneshot -m {SLURM} out=o"
    said = shell(command)
    assert said.code == 0, said.err
    clean.until(clean.idle)
    codes = sorted(str(s.get("code")) for s in states(tmp_path / "o").values())
    assert codes == ["0", "0", "0", "1", "4", "4"]
    assert len(results(tmp_path / "o")) == 3
    jobs = shell("jobs out=o")
    assert jobs.code == 1
    assert "3 done, 3 failed" in jobs.out
    assert jobs.out.count("RuntimeError: no luck today") == 3
    (tmp_path / "net.py").write_text(BREAKS)
    again = shell(command)
    assert again.out.startswith("slurm: 3 tasks"), "only what is missing, and failures are tried again"


def test_waits_for_anothers_work_and_makes_room(clean, shell, tmp_path):
    job = shell(f"{LONG} {SLURM} out=dry launcher.dry_run=true")
    assert job.code == 0
    element = json.loads(next(tmp_path.glob("dry/slurm/*/elements.jsonl")).read_text())
    stage = element["tasks"][0]["chain"][0][0]
    claims = Claims()
    assert claims.take(tmp_path / "o" / "store" / stage[:2] / stage)
    try:
        job = shell(f"{LONG} {SLURM} out=o launcher.patience=3").jobs[0] + "_0"
        clean.until(lambda: states(tmp_path / "o").get(0, {}).get("state") == "waiting", hurry=False)
        clean.until(lambda: clean.queue()[job] == "PENDING", hurry=False)
        jobs = shell("jobs out=o")
        assert "1 requeued" in jobs.out
        assert f"others compute train {stage[:8]}" in jobs.out
        assert states(tmp_path / "o")[0]["code"] == 75
        clean.until(lambda: clean.shown(job, "Restarts") == "1")
    finally:
        claims.close()
    clean.until(clean.idle)
    assert len(results(tmp_path / "o")) == 1


def test_side_by_side_on_one_gpu(clean, shell, tmp_path):
    words = (
        f"sparsity=0 train.epochs=100 seed=0,1,2 -m {SLURM} launcher.side_by_side=3 launcher.pack_steps=100000 out=o"
    )
    said = shell(words)
    assert said.out.startswith("slurm: 3 tasks in 1 elements")
    clean.until(clean.idle)
    assert len(results(tmp_path / "o")) == 3
    assert {len(cost) for cost in costs(tmp_path / "o")} == {1}


def test_stopped_side_by_side(clean, shell, tmp_path):
    words = f"{LONG} seed=0,1 -m {SLURM} launcher.side_by_side=2 launcher.pack_steps=10000000 out=o"
    job = shell(words).jobs[0] + "_0"
    clean.until(lambda: len(list(tmp_path.glob("o/store/*/*/s0*.safetensors"))) >= 2)
    clean.say("scancel", "--signal=USR2", "--batch", job)
    clean.until(lambda: clean.shown(job, "Restarts") == "1", hurry=False)
    assert len(list(tmp_path.glob("o/store/*/*/r*.safetensors"))) == 2, "both saved what they had"
    clean.until(clean.idle)
    assert len(results(tmp_path / "o")) == 2


def test_as_few_elements_as_the_queue_has_room_for(clean, shell, tmp_path):
    words = f"sparsity=0 scale=smoke seed=0,1,2,3,4,5,6,7 -m {SLURM} out=o"
    said = shell(f"{words} launcher.max_submit=3")
    assert said.out.startswith("slurm: 8 tasks in 3 elements"), said.out + said.err
    clean.until(clean.idle)
    assert len(results(tmp_path / "o")) == 8


def test_keep_needed_drops_at_the_very_end(clean, shell, tmp_path):
    said = shell(f"{GRID} {PACKED} out=o keep=needed launcher.wait=true")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == "stages: 82 asked, 0 computed, 82 reused"
    assert len(results(tmp_path / "o")) == 8
    states_kept = list(tmp_path.glob("o/store/*/*/s*.safetensors"))
    assert len(states_kept) == 8, "the runs' final states"
    assert not list(tmp_path.glob("o/store/*/*/o*.safetensors"))


def test_bad_input_in_slurms_own_words(clean, shell, tmp_path):
    for setting, words in (("partition=nosuch", "invalid partition specified: nosuch"),
                           ("gres=gpu:99", "Requested node configuration is not available")):  # fmt: skip
        said = shell(f"{LONG} {SLURM} out=o launcher.{setting}")
        assert said.code == 2
        assert said.err.splitlines()[-1].startswith("lthbench: launcher=slurm: ")
        assert words in said.err
        assert not (tmp_path / "o").exists()


def test_a_folder_of_another_version(clean, shell, tmp_path):
    assert shell(f"sparsity=0 {SLURM} out=o launcher.dry_run=true").code == 0
    (path,) = tmp_path.glob("o/slurm/*/job.json")
    job = json.loads(path.read_text())
    path.write_text(json.dumps(job | {"runs": ["0" * 32]}))
    said = shell(f"task {path.parent} 0")
    assert said.code == 2
    assert "was written by another lthbench" in said.err
    path.write_text(json.dumps(job | {"schema": 0, "lthbench": "0.0.1"}))
    for command in (f"task {path.parent} 0", "jobs out=o", f"sparsity=0 {SLURM} out=o"):
        said = shell(command)
        assert (said.code, said.err.count("\n")) == (2, 1) or "Grid:" in said.err
        assert "was written by lthbench 0.0.1; submit the command again" in said.err


def test_a_run_preempted_twice_is_one_whole_run_in_wandb(clean, shell, tmp_path):
    out = tmp_path / "o"
    said = shell(f"{LONG} train.epochs=1000 {SLURM} out=o tracking=wandb", WANDB_MODE="offline")
    job, parts = said.jobs[0] + "_0", 0

    def kept_parts():
        return len(list(out.glob("wandb/offline-run-*/*.wandb")))

    for times in (0, 1):
        clean.until(lambda t=times, p=parts: states(out).get(0, {}).get("restarts") == t and kept_parts() > p)
        time.sleep(1.0)
        clean.say("scontrol", "requeue", job)  # as a preemption does
        clean.until(lambda: states(out)[0]["state"] == "saved", hurry=False)
        parts = kept_parts()
    clean.until(clean.idle)
    (ident,) = results(out)
    parts = kept(out, ident)
    assert [(part.exit_code, part.preempting) for part in parts] == [(85, True), (85, True), (0, False)]
    assert {(part.run.run_id, part.run.run_group) for part in parts} == {(ident, "grid")}
    assert all(part.config["id"] == ident for part in parts)
    steps = [row["step"] for part in parts for row in part.rows]
    curves = json.loads((out / "runs" / f"{ident}.json").read_text())["curves"]
    assert steps == sorted({int(step) for points in curves.values() for step in points}), "each once, and none left out"
    assert table(out, parts[-1], "layers")[0] == ["layer", "kept", "total"]
    assert parts[-1].summary["test/accuracy"] == results(out)[ident][1]["test"]["accuracy"]
    boards = [p for p in out.glob("wandb/offline-run-*") if ident not in p.name]
    assert len(boards) == 1, "the leaderboard"


def test_the_readmes_commands(clean, shell, tmp_path):
    """As they stand there, with fake GPUs."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    commands = [
        line.split("lthbench ", 1)[1]
        for line in readme.splitlines()
        if "lthbench" in line and "launcher=slurm -m" in line
    ]
    assert len(commands) == 2
    for command in commands:
        said = shell(f"{command} launcher.gpus=1", fresh=True)
        assert said.code == 0, said.err
    clean.until(clean.idle, seconds=1400)
    assert len(results(tmp_path / "results" / "out")) == 1 + 27
    assert "done" in shell("jobs").out
