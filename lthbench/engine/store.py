"""The store: results by the name of what determines them.

One folder a stage, `<root>/<id[:2]>/<id>/`:

    stage.json             the text whose hash is the id: the description can be checked and followed
    out.safetensors|json   what a stage with one output made
    s000000440.safetensors a state of a trajectory that somebody asked for; o000000440 its optimiser state
    best-...safetensors    the state of a best point; p-best-... the best so far, while training goes on
    r000000350.safetensors a state and its optimiser state, kept for resumption only
    curve.json             measured points; a map that only grows
    cost.json              what computing took, and on what machine
    failed.json            why the last attempt failed
    claim.<n>              who is computing it

Each file carries a digest of its content and its place, and is written to a temporary name, flushed and renamed:
a reader sees all or nothing. A file that does not agree with its digest, a whole one from elsewhere included, is
moved to `<root>/damaged/` and counts as missing. Tensors are safetensors, everything else JSON; nothing is
unpickled.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from lthbench.engine.graph import Best, Stage, State, canonical, name_of

if TYPE_CHECKING:
    from torch import Tensor

Curve = dict[str, dict[int, dict[str, Any]]]  # series ("train", "val", "test") -> step -> values


class Gone(FileNotFoundError):
    """A file is not in the store, or no longer."""


class Damaged(Gone):
    """A file was not what it should be; it has been set aside and counts as missing."""


@dataclass(frozen=True)
class Output:
    """The one result of a stage that is no trajectory."""

    name = "out"


@dataclass(frozen=True)
class At:
    """A state of a trajectory; `full` with its optimiser state, so that training can go on from it."""

    step: int | Best
    full: bool = False


@dataclass(frozen=True)
class Points:
    """The trajectory measured on a split at steps every, 2*every, ... and at `until`."""

    split: str
    every: int
    until: int

    def steps(self, first: int) -> Iterator[int]:
        """The steps after `first`, in order; steps are counted on the dense schedule."""
        yield from range((first // self.every + 1) * self.every, self.until, self.every)
        yield self.until


Demand = Union[Output, At, Points]


def demand_of(ref: Stage | State, full: bool = False) -> Demand:
    """What an input asks of the stage it comes from."""
    return At(ref.step, full) if isinstance(ref, State) else Output()


class Store:
    """Reads and writes results below `root`; see the module's docstring."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._parts = itertools.count()

    def folder(self, ident: str) -> Path:
        return self.root / ident[:2] / ident

    def names(self, ident: str) -> set[str]:
        """The files of a stage; claims and unfinished files are none."""
        try:
            return {
                e.name for e in os.scandir(f"{self.root}/{ident[:2]}/{ident}") if not e.name.startswith((".", "claim."))
            }
        except FileNotFoundError:
            return set()

    # ---- what is there

    def has(self, stage: Stage, demand: Demand) -> bool:
        """Whether the store holds what is demanded of a stage."""
        names = self.names(stage.id)
        if isinstance(demand, Output):
            return "out.safetensors" in names or "out.json" in names
        if isinstance(demand, At):
            there = state_file(demand.step) in names
            return there and (not demand.full or (isinstance(demand.step, int) and moments_file(demand.step) in names))
        if "curve.json" not in names:
            return False
        measured = self.curve(stage.id).get(demand.split, {})
        return all(step in measured for step in demand.steps(stage.settings.first))  # type: ignore[attr-defined]

    def resumable(self, stage: Stage, missing: set[Demand]) -> int | None:
        """The latest step of a trajectory from which all that is missing can still be made; None: its start."""
        names = self.names(stage.id)
        full = {int(n[1:10]) for n in names if n.startswith("r") and n[1:10].isdigit()}
        full |= {int(n[1:10]) for n in names if re.fullmatch(r"s\d{9}\.safetensors", n) and "o" + n[1:] in names}
        limits = [m.step for m in missing if isinstance(m, At) and isinstance(m.step, int)]
        for m in missing:
            if isinstance(m, Points):
                measured = self.curve(stage.id).get(m.split, {})
                steps = m.steps(stage.settings.first)  # type: ignore[attr-defined]
                limits.extend(step - 1 for step in steps if step not in measured)
            elif isinstance(m, At) and isinstance(m.step, Best):
                limits.append(self._covered(stage.id, m.step))
        return max((s for s in full if s <= min(limits, default=0)), default=None)

    def _covered(self, ident: str, best: Best) -> int:
        """Up to which step the best point so far is known."""
        try:
            return int(self.read(ident, progress_file(best))[1]["covers"])
        except Gone:
            return -1

    # ---- tensors

    def write(self, stage: Stage, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Write tensors (by name) and JSON values as one file."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        ready = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        text = canonical(meta)
        head = json.dumps({"meta": text, "sha256": _digest(f"{stage.id}/{name}", ready, text)}, sort_keys=True)

        def fill(path: Path) -> None:
            try:
                save_file(ready, path, metadata={"lthbench": head})
            except SafetensorError as error:  # what it makes of a full disk
                raise OSError(str(error)) from None

        self._put(stage, name, fill)

    def read(self, ident: str, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and values of a file. Raises Gone, or Damaged after setting the file aside."""
        from safetensors import SafetensorError, safe_open

        path = self.folder(ident) / name
        if not path.exists():
            raise Gone(path)
        try:
            with safe_open(path, framework="pt") as file:
                head = json.loads(file.metadata()["lthbench"])
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            if _digest(f"{ident}/{name}", tensors, head["meta"]) == head["sha256"]:
                return tensors, json.loads(head["meta"])
            reason = "its content does not agree with its digest"
        except FileNotFoundError:
            raise Gone(path) from None
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = str(error)
        raise self.set_aside(path, reason)

    # ---- JSON

    def write_json(self, stage: Stage, name: str, value: Any) -> None:
        text = canonical(value)
        digest = name_of(f"{stage.id}/{name}{text}")
        data = f'{{"sha256":"{digest}","value":{text}}}\n'.encode()
        self._put(stage, name, lambda path: path.write_bytes(data))

    def read_json(self, ident: str, name: str) -> Any:
        """The value of a JSON file. Raises Gone, or Damaged after setting the file aside."""
        path = self.folder(ident) / name
        try:
            record = json.loads(path.read_text())
            if name_of(f"{ident}/{name}{canonical(record['value'])}") == record["sha256"]:
                return record["value"]
            reason = "its content does not agree with its digest"
        except FileNotFoundError:
            raise Gone(path) from None
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error)
        raise self.set_aside(path, reason)

    def output(self, stage: Stage) -> Any:
        """The JSON output of a stage."""
        return self.read_json(stage.id, "out.json")

    def curve(self, ident: str) -> Curve:
        """All measured points of a trajectory; none where the file is missing or damaged."""
        try:
            raw = self.read_json(ident, "curve.json")
        except Gone:
            return {}
        return {series: {int(step): values for step, values in points.items()} for series, points in raw.items()}

    def extend_curve(self, stage: Stage, points: Curve) -> None:
        """Add measured points; the map only grows."""
        known = self.curve(stage.id)
        for series, values in points.items():
            known.setdefault(series, {}).update(values)
        self.write_json(stage, "curve.json", {s: {str(step): v for step, v in p.items()} for s, p in known.items()})

    # ---- files

    def _put(self, stage: Stage, name: str, fill: Callable[[Path], object]) -> None:
        folder = self.folder(stage.id)
        described = folder / "stage.json"
        folder.mkdir(parents=True, exist_ok=True)
        text = stage.text.encode()
        if not described.exists() or described.read_bytes() != text:  # new, or altered: written again
            self._replace(described, lambda path: path.write_bytes(text))
        self._replace(folder / name, fill)

    def _replace(self, path: Path, fill: Callable[[Path], object]) -> None:
        """Fill a file under a temporary name, flush it to the disk, rename it."""
        part = path.with_name(f".part-{os.getpid()}-{next(self._parts)}")
        try:
            fill(part)
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)  # a full disk: the last good file stays
            raise

    def remove(self, ident: str, name: str) -> None:
        (self.folder(ident) / name).unlink(missing_ok=True)

    def set_aside(self, path: Path, reason: str) -> Damaged:
        """Move a damaged file away, which is what guarantees that the next plan sees it missing."""
        grave = self.root / "damaged"
        grave.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # somebody else was here
            os.replace(path, grave / f"{path.parent.name}-{path.name}-{os.getpid()}-{next(self._parts)}")
        return Damaged(f"{path.parent.name}/{path.name}: {reason}")

    # ---- the whole store, for people

    def ids(self, prefix: str = "") -> Iterator[str]:
        """The ids of all stages with files, or of those that begin with so many of an id's first two digits."""
        yield from (ident for ident in self.folders(prefix) if self.names(ident))

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The ids of all stages with a folder, be it empty but for a claim."""
        for shelf in sorted(self.root.glob(prefix + "[0-9a-f]" * (2 - len(prefix)))):
            for name in sorted(os.listdir(shelf)):
                if re.fullmatch(r"[0-9a-f]{32}", name) and name.startswith(shelf.name):
                    yield name

    def describe(self, ident: str) -> dict[str, Any] | None:
        """Kind, version, settings and inputs of a stage; None where its text does not bear its name."""
        try:
            text = (self.folder(ident) / "stage.json").read_text()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        return json.loads(text) if name_of(text) == ident else None

    def size(self, ident: str) -> int:
        """Bytes of a stage's files."""
        return sum((self.folder(ident) / name).stat().st_size for name in self.names(ident))


def state_file(step: int | Best) -> str:
    return f"s{step:09d}.safetensors" if isinstance(step, int) else f"{step}.safetensors"


def moments_file(step: int) -> str:
    return f"o{step:09d}.safetensors"


def resume_file(step: int) -> str:
    return f"r{step:09d}.safetensors"


def progress_file(best: Best) -> str:
    return f"p-{best}.safetensors"


def _digest(place: str, tensors: Mapping[str, Tensor], meta: str) -> str:
    """sha256 over the place, the values, and names, dtypes, shapes and bytes of all tensors, sorted by name."""
    import torch

    digest = hashlib.sha256(f"{place}{meta}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
