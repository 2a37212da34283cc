"""Read what W&B keeps offline: LevelDB's log framing round protobuf records (checksums are not looked at)."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768


def _payloads(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        if kind == 0 and size == 0:
            place += left
            continue
        part = data[place + 7 : place + 7 + size]
        if len(part) < size:
            return  # a torn tail
        place += 7 + size
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            yield whole


@dataclass
class Kept:
    """One offline folder, understood."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the history that tell of training, without W&B's own columns."""
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in self.history if "epoch" in row]


def read(folder: Path) -> Kept:
    from wandb.proto import wandb_internal_pb2 as pb

    def items(updates: Any) -> dict[str, Any]:
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}

    kept = Kept()
    (path,) = folder.glob("*.wandb")
    for payload in _payloads(path.read_bytes()):
        record = pb.Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            kept.run = record.run
            kept.config |= items(record.run.config.update)
        elif kind == "config":
            kept.config |= items(record.config.update)
        elif kind == "history":
            kept.history.append(items(record.history.item))
        elif kind == "summary":
            kept.summary |= items(record.summary.update)
        elif kind == "exit":
            kept.exit_code = record.exit.exit_code
        elif kind == "preempting":
            kept.preempting = True
    return kept


def kept(out: Path, ident: str) -> list[Kept]:
    """What is kept offline of a run that is over, the parts in the order they were made."""
    folders = sorted((out / "wandb").glob(f"offline-run-*-{ident}"))  # their names begin with the time
    until = time.monotonic() + 30
    while True:
        parts = [read(folder) for folder in folders]
        if all(part.exit_code is not None for part in parts) or time.monotonic() > until:
            return parts
        time.sleep(0.1)  # W&B's own process writes the last records after `finish` has returned


def table(out: Path, part: Kept, key: str) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a table that was logged."""
    (row,) = [row for row in part.history if key in row or f"{key}/path" in row]
    path = row[key]["path"] if key in row else row[f"{key}/path"]
    (file,) = (out / "wandb").glob(f"offline-run-*/files/{path}")
    found = json.loads(file.read_text())
    return found["columns"], found["data"]
