"""Write a submission's folder, and hand it to Slurm."""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from lthbench import __version__
from lthbench.base.errors import UserError
from lthbench.launch.slurm import SCHEMA, SLURM_SECONDS, SlurmSettings, Submission, demand_text
from lthbench.launch.tasks import Task, pack
from lthbench.models import FILES
from lthbench.programs import Experiment

MAX_ARRAY = 1001  # Slurm's default, where it cannot be asked
OWN_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "f2fs"}
SUBMIT = """\
#!/bin/bash
# Submits the arrays of this folder, and notes each in the file `jobs`: its id, its first element, how many.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
submit() {  # FIRST COUNT [OPTION...]
  local first=$1 count=$2
  shift 2
  id=$(sbatch --parsable --array="0-$((count - 1)){{throttle}}" "$@" array.sh "$first")
  id=${id%%;*}
  echo "$id $first $count" >> jobs
}"""


def prepare(
    out: Path,
    name: str,
    config: Mapping[str, Any],
    command: Mapping[str, Any],
    runs: Sequence[Experiment],
    tasks: Sequence[Task],
    array_limit: int,
    room: int | None,
) -> Submission:
    """Write a submission's folder. `room` is how many elements may be queued."""
    settings = SlurmSettings.of(config["launcher"])
    elements = _elements(tasks, settings.pack_steps, room)
    script = _template(settings)
    folder = _new_folder(out / "slurm", name)
    (folder / "state").mkdir()
    (out / "runs").mkdir(exist_ok=True)
    Path(settings.logs or folder / "logs").mkdir(parents=True, exist_ok=True)
    job = {
        "schema": SCHEMA,
        "lthbench": __version__,
        "token": uuid.uuid4().hex,
        "user": getpass.getuser(),
        "grid": name,
        "config": config,
        "command": command,
        "files": FILES,
        "runs": [e.id for e in runs],
    }
    with open(folder / "runs.jsonl", "w") as file:
        file.writelines(json.dumps(e.run.whole()) + "\n" for e in runs)
    with open(folder / "elements.jsonl", "w") as file:
        file.writelines(json.dumps({"tasks": list(map(_described, element))}) + "\n" for element in elements)
    (folder / "array.sh").write_text(_filled(script, options(settings, folder, config["device"]), settings, folder))
    (folder / "submit.sh").write_text(_submit(elements, settings, array_limit))
    (folder / "job.json").write_text(json.dumps(job, indent=1) + "\n")  # last: with it the folder is whole
    return Submission(folder, job)


def _elements(tasks: Sequence[Task], steps: int, room: int | None) -> list[list[Task]]:
    """Tasks packed into elements: as few steps each as the room in the queue allows."""
    fewest = len(pack(tasks, sum(task.steps for task in tasks)))
    if room is not None and fewest > room:
        raise UserError(f"launcher.max_submit: there is room for {room} elements, and this needs {fewest}")
    while room is not None and len(pack(tasks, steps)) > room:
        steps = 2 * steps + 1
    return pack(tasks, steps)


def _new_folder(parent: Path, name: str) -> Path:
    """`<parent>/<number>-<name>` with the next number."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        number = max((int(p.name[:4]) for p in parent.glob("[0-9][0-9][0-9][0-9]-*")), default=0) + 1
        try:
            (parent / f"{number:04d}-{name}").mkdir()
        except FileExistsError:  # another command's
            continue
        return (parent / f"{number:04d}-{name}").absolute()


def _described(task: Task) -> dict[str, Any]:
    chain = [[work.stage.id, sorted(map(demand_text, work.missing))] for work in task.chain]
    return {"chain": chain, "names": sorted(task.names), "runs": task.runs, "shared": task.shared}


def options(settings: SlurmSettings, folder: Path, device: str) -> list[str]:
    """The options of sbatch, but for array and dependency."""
    gpus = settings.gpus if settings.gpus is not None else int(device.startswith("cuda"))
    said = {
        "job-name": f"lthbench-{folder.name}",
        "output": f"{settings.logs or folder / 'logs'}/%A_%a.log",
        "chdir": str(Path.cwd()),
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "gres": settings.gres or (f"gpu:{gpus}" if gpus else None),
        "cpus-per-task": settings.cpus,
        "mem": settings.mem,
        "time": settings.time,
        "signal": f"B:USR2@{settings.signal}",
    }
    fixed = ["--ntasks=1", "--requeue", "--open-mode=append"]
    return [*(f"--{key}={value}" for key, value in said.items() if value is not None), *fixed, *settings.options]


def _template(settings: SlurmSettings) -> str:
    if settings.template is not None:
        return Path(settings.template).read_text()
    package = Path(__file__).resolve().parents[1]
    places = (package / "slurm" / "template.sh", package.parent / "slurm" / "template.sh")
    return next(path for path in places if path.is_file()).read_text()


def _filled(template: str, words: Sequence[str], settings: SlurmSettings, folder: Path) -> str:
    parts = {
        "options": "\n".join(f"#SBATCH {shlex.quote(word)}" for word in words),
        "setup": "\n".join(settings.setup),
        "python": settings.python or shlex.quote(sys.executable),
        "folder": shlex.quote(str(folder)),
    }
    for key, text in parts.items():
        template = template.replace("{{" + key + "}}", text)
    return template


def _submit(elements: Sequence[Sequence[Task]], settings: SlurmSettings, array_limit: int) -> str:
    """The script that submits the arrays: each begins when those of lesser depth have ended."""
    lines = [SUBMIT.replace("{{throttle}}", f"%{settings.throttle}" if settings.throttle else "")]
    first = 0
    for (depth, after), group in groupby(elements, key=lambda e: (e[0].depth, sorted(e[0].after))):
        waits = (f"$depth{depth - 1}" if depth > 1 else "") + "".join(f":{job}" for job in after)
        how = f' --kill-on-invalid-dep=yes "--dependency=afterany{waits}"' if waits else ""
        count = len(list(group))
        for begin in range(0, count, array_limit):
            size = min(array_limit, count - begin)
            lines.append(f"submit {first + begin} {size}{how}; depth{depth}+=:$id")
        first += count
    return "\n".join(lines) + "\n"


def slurm(words: Sequence[str], text: str | None = None) -> str:
    """What one of Slurm's programs prints. Raises UserError with its own words."""
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=SLURM_SECONDS)
    except FileNotFoundError:
        raise UserError(
            f"launcher=slurm: no {words[0]} here; launcher.dry_run=true writes the jobs without submitting them, "
            "and slurm/local_cluster brings up a Slurm to try"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]}: no answer from Slurm in {SLURM_SECONDS:.0f} s") from None
    if done.returncode:
        raise UserError(f"launcher=slurm: {_own_words(done.stderr) or f'{words[0]} failed'}")
    return done.stdout


def _own_words(stderr: str) -> str:
    """Slurm's message without the name of its program."""
    lines = [line.partition("error: ")[2] or line for line in stderr.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))


def limits(settings: SlurmSettings) -> tuple[int, int | None]:
    """The most elements of an array, and how many more may be queued (None: as many as one likes)."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", slurm(["scontrol", "show", "config"]), re.MULTILINE)
    except UserError:
        if settings.dry_run:  # there need be no Slurm
            return MAX_ARRAY, settings.max_submit
        raise
    size = int(found[1]) if found else MAX_ARRAY
    if settings.max_submit is None:
        return size, None
    return size, settings.max_submit - len(slurm(["squeue", "-h", "-r", "-o", "%i", "-u", getpass.getuser()]).split())


def submit(submission: Submission) -> list[str]:
    """Submit a prepared folder; returns the job ids. If Slurm refuses, nothing is left in its queue, nor the folder."""
    try:
        slurm(["bash", str(submission.folder / "submit.sh")])
    except UserError as error:
        for job, _, _ in submission.jobs():
            subprocess.run(["scancel", job], capture_output=True, timeout=SLURM_SECONDS)
        shutil.rmtree(submission.folder)
        out = Path(submission.job["config"]["out"])
        for empty in (submission.folder.parent, out / "runs", out):
            with suppress(OSError):  # it was there before, and is not empty
                empty.rmdir()
        hint = "; say launcher.max_submit=N" if "limit" in str(error).lower() else ""
        raise UserError(f"{error}{hint}") from None
    return [job for job, _, _ in submission.jobs()]


def on_this_machine_only(folder: Path) -> str | None:
    """The kind of a folder's file system if only this machine sees it, and the cluster has others; else None."""
    hosts = set(slurm(["sinfo", "-h", "-N", "-o", "%N"]).split())
    if hosts <= {os.uname().nodename.split(".")[0]}:
        return None
    place, kind = "", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        if Path(mount) in (folder.resolve(), *folder.resolve().parents) and len(mount) >= len(place):
            place, kind = mount, found
    return kind if kind in OWN_DISKS else None
