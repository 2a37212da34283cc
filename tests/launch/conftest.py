"""A real Slurm of one node with fake GPUs, and the command line on it, for the tests marked slow."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from runpy import run_path

import pytest

PROGRAM = Path(__file__).parents[2] / "slurm" / "local_cluster"
LARGEST_ARRAY = 6  # so small that ordinary grids need several arrays
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
ABSENT = "needs root and Slurm: apt-get install slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins"
PRESENT = os.geteuid() == 0 and shutil.which("slurmctld", path=os.environ["PATH"] + ":/usr/sbin") is not None


class Cluster:
    """A Slurm of one node, and what tests ask of it."""

    def __init__(self) -> None:
        self.up()

    def up(self) -> None:
        # pytest clears its own folders away under other sessions
        self.folder = Path(tempfile.mkdtemp(prefix="lthbench-slurm-"))
        words = [sys.executable, PROGRAM, "up", self.folder, f"--array={LARGEST_ARRAY}", "--cpus=8", "--gpus=4"]
        up = subprocess.run(words, capture_output=True, text=True)
        assert up.returncode == 0, up.stderr
        assert up.stdout == f"export SLURM_CONF={self.folder}/slurm.conf\n"
        os.environ["SLURM_CONF"] = str(self.folder / "slurm.conf")

    def down(self) -> None:
        subprocess.run([sys.executable, PROGRAM, "down", self.folder], check=True)
        shutil.rmtree(self.folder)
        del os.environ["SLURM_CONF"]

    def at_rest(self) -> bool:
        """Whether nothing runs or waits, and the node takes jobs."""
        return self.idle() and self.say("sinfo", "-h", "-o", "%t").split() == ["idle"]

    def lose_the_node(self) -> None:
        """All that runs on it dies at once, and it comes up again."""
        os.kill(int((self.folder / "slurmd.pid").read_text()), signal.SIGKILL)
        run_path(str(PROGRAM))["kill_jobs"](self.folder)
        path = os.environ["PATH"] + ":/usr/sbin"
        subprocess.run(["slurmd"], env=os.environ | {"PATH": path}, stderr=subprocess.DEVNULL, check=True)
        # Slurm would notice by itself after some minutes
        self.say("scontrol", "update", f"NodeName={os.uname().nodename.split('.')[0]}", "State=DOWN", "Reason=test")
        self.until(lambda: self.say("sinfo", "-h", "-o", "%t").strip() in ("idle", "mix"), hurry=False)

    def say(self, *words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout

    def queue(self) -> dict[str, str]:
        """State of every array element, by `<job>_<index>`."""
        lines = self.say("squeue", "-h", "-r", "-t", "all", "-o", "%F_%K %T").splitlines()
        return dict(line.split() for line in lines)

    def shown(self, job: str, field: str) -> str:
        """A field of `scontrol show job`."""
        found = re.search(rf"\b{field}=(\S+)", self.say("scontrol", "show", "job", "-o", job))
        assert found is not None
        return found[1]

    def hurry(self) -> None:
        """Start what was requeued now: Slurm would hold it for two minutes."""
        for line in self.say("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %r").splitlines():
            job, reason = line.split(maxsplit=1)
            if reason == "BeginTime":
                subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True)

    def until(self, condition: Callable[[], object], seconds: float = 500.0, hurry: bool = True) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s; {self.queue()}"
            if hurry:
                self.hurry()
            time.sleep(0.2)

    def idle(self) -> bool:
        return set(self.queue().values()) <= ENDED


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if not PRESENT:
        pytest.skip(ABSENT)
    before = os.environ.get("SLURM_CONF")
    cluster = Cluster()
    yield cluster
    cluster.down()
    if before is not None:
        os.environ["SLURM_CONF"] = before


@pytest.fixture
def clean(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with nothing running. A test that leaves it broken fails, and the next one has a fresh cluster."""
    yield cluster
    try:
        for line in cluster.say("squeue", "-h", "-o", "%A").split():
            subprocess.run(["scancel", line], capture_output=True)
        cluster.until(cluster.at_rest, seconds=60, hurry=False)
    except (AssertionError, subprocess.SubprocessError):
        cluster.down()
        cluster.up()
        raise


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def jobs(self) -> list[str]:
        """The ids that a submission printed."""
        found = re.search(r"^slurm: .* jobs ([\d ]+)$", self.out, re.MULTILINE)
        assert found is not None, self.out + self.err
        return found[1].split()


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., Said]:
    """A command line in an empty folder, in a process of its own: a fork of this one, that need not load torch again.

    With `fresh` it is a Python of its own, as at a prompt.
    """

    def call(command: str, fresh: bool = False, **variables: str) -> Said:
        words, environment = shlex.split(command), {"OMP_NUM_THREADS": "1"} | os.environ | variables
        if fresh:
            python = [sys.executable, "-m", "lthbench"]
            how = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment, "timeout": 300}
            done = subprocess.run([*python, *words], **how)
            return Said(done.returncode, done.stdout, done.stderr)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            streams = out.fileno(), err.fileno()
            child = get_context("fork").Process(target=_command, args=(words, tmp_path, environment, *streams))
            child.start()
            child.join(300)
            assert child.exitcode is not None, f"{command}: not within 300 s"
            out.seek(0), err.seek(0)
            return Said(child.exitcode, out.read(), err.read())

    return call


def _command(words: list[str], folder: Path, environment: dict[str, str], out: int, err: int) -> None:
    """What a fork does."""
    from lthbench.cli.main import main

    os.chdir(folder)
    os.environ.update(environment)
    for stream, number in ((out, 1), (err, 2)):
        os.dup2(stream, number)
    with open(1, "w") as sys.stdout, open(2, "w") as sys.stderr:
        code = main(words)
    os._exit(code)


def states(out: Path) -> dict[int, dict[str, object]]:
    """The elements' own accounts of a folder's only submission."""
    return {int(path.stem): json.loads(path.read_text()) for path in out.glob("slurm/*/state/[0-9]*.json")}


def results(out: Path) -> dict[str, tuple[str, object]]:
    """Digest of the weights and metrics by run."""
    found = {path.stem: json.loads(path.read_text()) for path in (out / "runs").glob("*.json")}
    return {ident: (run["final_weights_sha256"], run["metrics"]) for ident, run in found.items()}


def costs(out: Path) -> list[list[dict[str, object]]]:
    """What was spent on each stage of a folder's store, an entry a computation."""
    return [json.loads(path.read_text())["value"] for path in out.glob("store/*/*/cost.json")]
