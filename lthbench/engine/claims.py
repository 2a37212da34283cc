"""Claims: one stage, one worker, across processes and hosts on a shared file system.

Correctness never rests on a claim (stages are pure, writes are atomic): it only saves time. A claim is a file
`claim.<n>` in the stage's folder. Generations are never deleted by others, only outnumbered:

- the free slot is the highest number there is, plus one, taken by exclusive creation: exactly one winner;
- nobody deletes what somebody else wrote, so a fresh claim cannot be removed by a slow observer;
- whoever acts on an old listing finds the number taken, and looks again;
- after taking a number one looks once more, and withdraws if anybody else lives in the folder.

An owner is dead if its process is gone (same host, boot and process namespace, by process id and start time),
or if its claim's modification time has stood still for `expiry` seconds on the watcher's own monotonic clock:
clocks of different hosts are never compared. A sleeper that wakes up late writes the same bits.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

BEAT_SECONDS = 15.0
EXPIRY_SECONDS = 120.0


class Claims:
    """The claims that one process holds and watches. `host` is this machine's name, for tests of other hosts."""

    def __init__(self, expiry: float = EXPIRY_SECONDS, beat: float = BEAT_SECONDS, host: str | None = None) -> None:
        self.expiry, self.beat = expiry, beat
        self.me = {**_place(), **({"host": host} if host else {}), "pid": os.getpid(), "start": _start_of(os.getpid())}
        self.me["nonce"] = uuid.uuid4().hex
        self._held: dict[Path, Path] = {}  # folder -> own claim file
        self._seen: dict[Path, tuple[Any, float]] = {}  # claim -> (its mtime, when it was first seen so)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    def take(self, folder: Path) -> bool:
        """Claim a stage's folder; False if somebody else holds it and lives."""
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            numbers = _generations(folder)
            if any(self._lives(folder / f"claim.{number}") for number in numbers):
                return False
            path = folder / f"claim.{numbers[-1] + 1 if numbers else 1}"
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except FileExistsError:
                continue  # the listing was old: look again
            with os.fdopen(descriptor, "w") as file:
                json.dump(self.me, file)
            others = [p for n in _generations(folder) if (p := folder / f"claim.{n}") != path]
            if any(map(self._lives, others)):
                path.unlink(missing_ok=True)  # the first listing was old, and others have come since
                return False
            with self._lock:
                self._held[folder] = path
            self._keep_beating()
            return True

    def release(self, folder: Path, done: bool) -> None:
        """Give a claim back. When the stage is done, what dead owners left is swept too."""
        with self._lock:
            own = self._held.pop(folder, None)
        if own is None or (_content(own) or {}).get("nonce") != self.me["nonce"]:
            return  # overtaken while asleep, and swept: the number may be somebody else's by now
        if done:
            for number in _generations(folder):
                if folder / f"claim.{number}" != own and number < int(own.suffix[1:]):
                    (folder / f"claim.{number}").unlink(missing_ok=True)
        own.unlink(missing_ok=True)

    def owner(self, folder: Path) -> dict[str, Any] | None:
        """Who holds a folder now; None if nobody alive does."""
        alive = [p for n in _generations(folder) if self._lives(p := folder / f"claim.{n}")]
        return _content(alive[-1]) if alive else None

    def stalled(self, folder: Path) -> bool:
        """Whether a claim has stood still, while this process watched it, for longer than a living owner's would."""
        now = time.monotonic()
        seen = [self._seen.get(folder / f"claim.{n}") for n in _generations(folder)]
        return any(found is not None and now - found[1] > 2 * self.beat for found in seen)

    def close(self) -> None:
        """Give everything back and stop beating."""
        self._stop.set()
        for folder in list(self._held):
            self.release(folder, done=False)

    def _lives(self, path: Path) -> bool:
        owner = _content(path)
        if owner is None:
            return False
        here = all(owner.get(key) == self.me[key] for key in ("host", "boot", "namespace"))
        if here and owner["boot"] and owner.get("pid") and _start_of(owner["pid"]) != owner.get("start"):
            return False  # gone; while it is there its heart must beat too: it may have been stopped
        try:
            with open(path, "rb") as file:  # open and fstat: attributes of a network file system are cached
                beat = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        known, since = self._seen.get(path, (None, now))
        if known != beat:
            self._seen[path] = (beat, now)
            return True
        return now - since < self.expiry

    def _keep_beating(self) -> None:
        if self._beating is None or not self._beating.is_alive():
            self._beating = threading.Thread(target=self._beats, name="claims", daemon=True)
            self._beating.start()

    def _beats(self) -> None:
        while not self._stop.wait(self.beat):
            with self._lock:
                held = list(self._held.values())
            for path in held:
                try:
                    os.utime(path)
                except OSError:
                    pass  # overtaken and swept, or the server is away: a lost claim costs time only


def _generations(folder: Path) -> list[int]:
    """The numbers of a folder's claims, ascending."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(name[6:]) for name in names if re.fullmatch(r"claim\.\d+", name))


def _content(path: Path) -> dict[str, Any] | None:
    """Who wrote a claim: {} where it is not told yet (its heartbeat decides), None where the file is gone."""
    try:
        value = json.loads(path.read_text() or "{}")
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _place() -> dict[str, Any]:
    """What makes process ids comparable: host, boot, process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = namespace = ""
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}


def _start_of(pid: int) -> str | None:
    """When a process of this machine started, as the kernel tells it; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        return ""  # no /proc here: only the heartbeat tells
    return None if fields[0] in "ZX" else fields[19]
