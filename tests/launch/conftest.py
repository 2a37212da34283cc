"""A real Slurm of one node with fake GPUs, and the command line on it, for the tests marked slow."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "slurm" / "local_cluster"
LARGEST_ARRAY = 6  # so small that ordinary grids need several arrays
ABSENT = "needs root and Slurm: apt-get install slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins"
PRESENT = os.geteuid() == 0 and shutil.which("slurmctld", path=os.environ["PATH"] + ":/usr/sbin") is not None


class Cluster:
    """What tests ask of Slurm."""

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

    def until(self, condition: Callable[[], object], seconds: float = 240.0, hurry: bool = True) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s; {self.queue()}"
            if hurry:
                self.hurry()
            time.sleep(0.2)

    def node_is_back(self) -> bool:
        """Whether the node takes jobs again; asks for it where Slurm has not noticed."""
        words = ["scontrol", "update", f"NodeName={os.uname().nodename}", "State=RESUME"]
        subprocess.run(words, capture_output=True)
        said = self.say("sinfo", "-h", "-o", "%t")
        return "down" not in said and "drain" not in said

    def idle(self) -> bool:
        return set(self.queue().values()) <= {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if not PRESENT:
        pytest.skip(ABSENT)
    folder = Path(tempfile.mkdtemp(prefix="lthbench-slurm-"))  # pytest clears its own folders away under other sessions
    up = subprocess.run(
        [sys.executable, PROGRAM, "up", folder, f"--array={LARGEST_ARRAY}", "--cpus=32", "--gpus=16"],
        capture_output=True,
        text=True,
    )
    assert up.returncode == 0, up.stderr
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    assert up.stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
    yield Cluster()
    subprocess.run([sys.executable, PROGRAM, "down", folder], check=True)
    shutil.rmtree(folder)
    del os.environ["SLURM_CONF"]
    if before is not None:
        os.environ["SLURM_CONF"] = before


@pytest.fixture
def clean(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with nothing running before and after."""
    yield cluster
    for line in cluster.say("squeue", "-h", "-o", "%A").split():
        subprocess.run(["scancel", line], capture_output=True)
    cluster.until(cluster.idle, hurry=False)


class Said:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    @property
    def jobs(self) -> list[str]:
        """The ids that a submission printed."""
        found = re.search(r"^slurm: .* jobs ([\d ]+)$", self.out, re.MULTILINE)
        assert found is not None, self.out + self.err
        return found[1].split()


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., Said]:
    """A real command line in an empty folder, without the cluster's variables that a job would have."""

    def call(command: str, **variables: str) -> Said:
        words = [sys.executable, "-m", "lthbench", *shlex.split(command)]
        environment = {"OMP_NUM_THREADS": "1"} | os.environ | variables
        return Said(subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300))

    return call


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
