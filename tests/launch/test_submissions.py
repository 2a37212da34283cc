"""What is written for Slurm, and what its elements do with it: played through on this machine, without Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine.small_runs import contents, small
from hypothesis import given
from launch.conftest import results, states
from launch.test_tasks import RUNS

from lthbench.base.errors import UserError
from lthbench.base.settings import build
from lthbench.cli.main import main
from lthbench.launch import slurm_submit
from lthbench.launch.slurm import seconds
from lthbench.launch.slurm_state import states as seen
from lthbench.launch.slurm_state import underway
from lthbench.programs import Run, experiment

GRID = ["rewind=init,lr", "sparsity=0.5,0.8", "seed=0", "scale=smoke", "scale.steps=4", "-m"]
DRY = ["launcher=slurm", "launcher.dry_run=true", "launcher.pack_steps=24"]


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch, tmp_path):
    """No program of Slurm's, wherever the tests run, and this process as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + ":/bin")
    for name in ("sbatch", "scontrol", "squeue", "sinfo"):  # /bin may have them
        fake(tmp_path, name, "echo $0: error: no Slurm here >&2; exit 1")
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fake(folder: Path, name: str, script: str) -> None:
    """A program of our own under a name of Slurm's."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def written(*words: str) -> Path:
    """The folder that a dry run writes."""
    assert main([*GRID, *DRY, *words]) == 0
    return max(Path("results/out/slurm").iterdir())


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dry_run_writes_all_and_submits_nothing(capsys):
    folder = written("launcher.partition=gpu", "launcher.time=2:00:00", "launcher.gpus=1", "launcher.setup=[one,two]")
    assert capsys.readouterr().out.startswith("slurm: 7 tasks in 4 elements, written and not submitted: ")
    assert sorted(path.name for path in folder.iterdir()) == [
        "array.sh", "elements.jsonl", "job.json", "logs", "runs.jsonl", "state", "submit.sh"
    ]  # fmt: skip
    script = (folder / "array.sh").read_text()
    for option in ("--partition=gpu", "--time=2:00:00", "--gres=gpu:1", "--requeue", "--signal=B:USR2@180",
                   f"--output={folder.absolute()}/logs/%A_%a.log", f"--chdir={Path.cwd()}"):  # fmt: skip
        assert f"#SBATCH {option}\n" in script
    assert "--account" not in script
    assert "\none\ntwo\nexec " in script
    for name in ("array.sh", "submit.sh"):
        subprocess.run(["/bin/bash", "-n", folder / name], check=True)
    assert written().name == "0002-grid.smoke"


def test_arrays_wait_for_those_of_lesser_depth(tmp_path):
    folder = written()
    fake(tmp_path, "sbatch", f'echo "$@" >> {tmp_path}/said; echo "$(($(wc -l < {tmp_path}/said) + 70));local"')
    subprocess.run(["/bin/bash", folder / "submit.sh"], check=True)
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [
        "--parsable --array=0-0 array.sh 0",
        "--parsable --array=0-0 --kill-on-invalid-dep=yes --dependency=afterany:71 array.sh 1",
        "--parsable --array=0-1 --kill-on-invalid-dep=yes --dependency=afterany:72 array.sh 2",
    ]
    assert (folder / "jobs").read_text() == "71 0 1\n72 1 1\n73 2 2\n"


def test_arrays_are_cut_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm_submit, "MAX_ARRAY", 2)
    assert main(["sparsity=0", "seed=0,1,2,3,4", "-m", *DRY, "launcher.throttle=7"]) == 0
    submit = next(Path("results/out/slurm").glob("*/submit.sh")).read_text()
    assert submit.splitlines()[-3:] == [
        f"submit {first} {size}; depth1+=:$id" for first, size in ((0, 2), (2, 2), (4, 1))
    ]
    assert "%7" in submit


def test_elements_take_more_tasks_where_the_queue_is_short(capsys):
    assert main(["sparsity=0", "seed=range(10)", "-m", *DRY, "launcher.max_submit=3"]) == 0
    folder = next(Path("results/out/slurm").iterdir())
    elements = lines(folder / "elements.jsonl")
    assert len(elements) <= 3
    assert sum(len(element["tasks"]) for element in elements) == 10
    assert main([*GRID, *DRY, "launcher.max_submit=2"]) == 2
    assert "there is room for 2 elements, and this needs 3" in capsys.readouterr().err


def test_elements_in_an_order_that_slurm_may_choose_give_what_a_local_run_gives(capsys):
    assert main([*GRID, "out=local", "jobs=1"]) == 0
    folder = written()
    elements = lines(folder / "elements.jsonl")
    out = Path("results/out")
    csv = out / "leaderboards" / "grid.smoke.csv"
    for number in (0, 1, 3, 2):
        assert not csv.exists()
        assert main(["task", str(folder), str(number)]) == 0
    assert csv.read_bytes() == Path("local/leaderboards/grid.smoke.csv").read_bytes()  # by the last of them
    assert len(elements) == 4
    assert results(out) == results(Path("local"))
    assert contents(out / "store") == contents(Path("local/store"))
    assert {state["state"] for state in states(out).values()} == {"done"}
    capsys.readouterr()
    assert main([*GRID, *DRY]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "stages: 41 asked, 0 computed, 41 reused"


def test_the_last_of_those_a_run_ends_in_computes_its_result():
    """An element that comes too early computes what it needs, and leaves alone what another has to end."""
    folder = written()
    assert main(["task", str(folder), "3"]) == 0  # before all others: nobody else is at what it needs
    done = json.loads((folder / "state" / "3.json").read_text())
    assert (done["state"], done["code"]) == ("done", 0)
    assert len(results(Path("results/out"))) == len(lines(folder / "elements.jsonl")[3]["tasks"])


def test_what_the_queue_says_and_what_the_elements_say(tmp_path):
    from lthbench.launch.slurm import submissions

    folder = written()
    (folder / "jobs").write_text("71 0 1\n72 1 1\n73 2 2\n")
    (submission,) = submissions(Path("results/out"))
    known = {("71", 0): ("COMPLETED", "None"), ("72", 0): ("RUNNING", "None"), ("73", 0): ("PENDING", "BeginTime"),
             ("73", 1): ("CANCELLED", "None")}  # fmt: skip

    def said():
        return [(each.state, each.reason) for each in seen(submission, known)]

    lost = "; the same command goes on from here"
    assert said() == [
        ("lost", "completed" + lost),
        ("running", ""),
        ("queued", "BeginTime"),
        ("lost", "cancelled" + lost),
    ]
    for number, state in ((0, "done"), (1, "running"), (2, "waiting"), (3, "saved")):
        value = {"state": state, "restarts": number, "reason": f"because {number}"}
        (folder / "state" / f"{number}.json").write_text(json.dumps(value))
    assert said() == [("done", ""), ("running", ""), ("requeued", "because 2"), ("lost", "cancelled" + lost)]
    assert [other.job for other in underway([submission], known)] == ["72_0", "73_0"]
    known["73", 1] = ("FAILED", "NonZeroExitCode")
    assert said()[3] == ("lost", "because 3")
    unknown = [each.state for each in seen(submission, None)]
    assert unknown == ["done", "lost", "failed", "lost"]


@given(RUNS)
def test_a_run_is_made_again_from_what_is_written(run):
    again = build(Run, json.loads(json.dumps(run.whole())), "run")
    assert again == run
    assert experiment(again).result is experiment(run).result


def test_what_is_no_part_of_the_identity_is_written_too():
    from dataclasses import replace

    run = small()
    run = replace(run, data=replace(run.data, root="/elsewhere", workers=7), weights_path=None)
    again = build(Run, run.whole(), "run")
    assert (again.data.root, again.data.workers) == ("/elsewhere", 7)


@pytest.mark.parametrize(
    ("time", "expected"),
    [("30", 1800), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86400), ("1-2:3", 93780), ("1-2:3:4", 93784)],
)
def test_times_as_sbatch_reads_them(time, expected):
    assert seconds(time) == expected


@pytest.mark.parametrize("time", ["soon", "1h", "1:2:3:4", "-1", "1-", ""])
def test_no_times(time):
    with pytest.raises(UserError, match="is no time; say minutes, H:M:S or D-H:M:S"):
        seconds(time)


BAD = [
    (
        "launcher.time=14400",
        "launcher.time: 14400 may be minutes, or an H:M:S that YAML has read as a number; say D-H:M:S, or H:M:S "
        "(in a file within quotes)",
    ),
    ("launcher.time=soon", "launcher.time: 'soon' is no time; say minutes, H:M:S or D-H:M:S"),
    ("launcher.time=2", "launcher.signal: 180 s before the end of launcher.time=2 is no time"),
    ("launcher.cpus=0", "launcher.cpus: 0 is less than 1"),
    ("launcher.throttle=many", "launcher.throttle: 'many' is not a whole number"),
    ("launcher.template=nosuch.sh", "launcher.template: no file 'nosuch.sh'"),
    ("launcher.partitoin=gpu", "unknown key 'launcher.partitoin'; did you mean 'launcher.partition'?"),
]


@pytest.mark.parametrize(("word", "line"), BAD, ids=[word for word, _ in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(word, line, capsys):
    assert main(["launcher=slurm", word]) == 2
    assert capsys.readouterr().err == f"lthbench: {line}\n"
    assert not Path("results").exists()


def test_no_slurm_here(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert main(["launcher=slurm"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "lthbench: launcher=slurm: no scontrol here; launcher.dry_run=true writes the jobs without submitting them, "
        "and slurm/local_cluster brings up a Slurm to try"
    )
    assert not Path("results").exists()


def test_slurms_own_words_and_nothing_left(capsys, tmp_path):
    for name in ("scontrol", "sinfo"):
        fake(tmp_path, name, "echo")
    fake(tmp_path, "sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid qos' >&2; exit 1")
    assert main(["launcher=slurm"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "lthbench: launcher=slurm: Batch job submission failed: Invalid qos"
    assert not (tmp_path / "results" / "out").exists()


def test_a_folder_that_other_hosts_may_not_see(capsys, tmp_path):
    fake(tmp_path, "scontrol", "echo")
    fake(tmp_path, "sinfo", "echo node1; echo node2")
    fake(tmp_path, "sbatch", "echo 7")
    fake(tmp_path, "squeue", "echo")
    on_disk = slurm_submit.on_this_machine_only(tmp_path)
    assert main(["launcher=slurm"]) == 0
    warned = "is on this machine's own disk" in capsys.readouterr().err
    assert warned == (on_disk is not None)


STRIKES = """
import os, signal, sys
class Strikes:
    def find_spec(self, name, *_):
        if name == "lthbench.launch.slurm_task":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGUSR2)
sys.meta_path.insert(0, Strikes())
from lthbench.cli.main import main
sys.exit(main())
"""


def test_an_element_listens_before_it_has_loaded_what_takes_long():
    folder = written()
    done = subprocess.run([sys.executable, "-c", STRIKES, "task", str(folder), "0"], capture_output=True, text=True)
    assert done.returncode == 85, done.stderr
    assert states(Path("results/out"))[0]["state"] == "saved"


def test_elements_that_are_none(capsys, tmp_path):
    folder = written()
    job = json.loads((folder / "job.json").read_text())
    cases = [
        ([str(tmp_path), "0"], f"'{tmp_path}' is no submission: its job.json cannot be read"),
        ([str(folder), "9"], f"'{folder}' has 4 elements, no number 9"),
        ([str(folder), "x"], "task: argument number: invalid int value: 'x'; see lthbench task --help"),
    ]
    for words, line in cases:
        capsys.readouterr()
        assert main(["task", *words]) == 2
        assert capsys.readouterr().err == f"lthbench: {line}\n"
    (folder / "job.json").write_text(json.dumps(job | {"runs": ["0" * 32] * len(job["runs"])}))
    assert main(["task", str(folder), "0"]) == 2
    assert "was written by another lthbench" in capsys.readouterr().err
    (folder / "job.json").write_text(json.dumps(job | {"schema": 0, "lthbench": "0.0.1"}))
    for words in (["task", str(folder), "0"], ["jobs"], [*GRID, *DRY]):
        assert main(words) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.endswith("was written by lthbench 0.0.1; submit the command again")


def test_jobs_of_nothing(capsys):
    assert main(["jobs"]) == 2
    assert capsys.readouterr().err == "lthbench: nothing was submitted from 'results/out'; say out=DIR\n"


@pytest.mark.parametrize("name", ["a100_modules", "preemptible_container"])
def test_the_profiles_are_whole(name):
    profiles = Path(__file__).parents[2] / "slurm" / "profiles"
    assert main(["--config-dir", str(profiles), f"launcher={name}", "launcher.dry_run=true"]) == 0
    assert os.listdir("results/out/slurm") == ["0001-grid"]
