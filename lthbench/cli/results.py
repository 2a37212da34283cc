"""The results of one or several folders: by id, all of them, and those of older versions of what a run is now.

Folders of several machines are read as one. The same id in two of them is one result, that of the first folder (they
agree but for curves, cost and environment, or where the machines' arithmetic differs, which is said); it is never two
runs of a cell.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lthbench.base.errors import UserError
from lthbench.base.settings import canonical
from lthbench.programs import Experiment, record
from lthbench.programs.identity import identity
from lthbench.programs.versions import outdated

Result = dict[str, Any]
SHOWN = 5  # files that are passed over are named up to this many


class Results:
    """What lies in `<out>/runs` of each folder. `remarks` says what is odd about it, in lines."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self.remarks: list[str] = []
        self._passed_over: set[Path] = set()
        self._found: dict[str, Result | None] = {}

    def get(self, ident: str) -> Result | None:
        """The result of this name; None where no folder holds it."""
        if ident not in self._found:
            paths = (folder / "runs" / f"{ident}.json" for folder in self.folders)
            self._found[ident] = self._one([path for path in paths if path.exists()])
        return self._found[ident]

    @cached_property
    def everything(self) -> list[Result]:
        """All results, by id; files that are none are passed over, and said."""
        places: dict[str, list[Path]] = {}
        for folder in self.folders:
            for path in (folder / "runs").glob("*.json"):
                places.setdefault(path.stem, []).append(path)
        for ident in sorted(places):
            if ident not in self._found:
                self._found[ident] = self._one(places[ident])
        if more := len(self._passed_over) - SHOWN:
            self.remarks += [f"passed over: {more} more files"] if more > 0 else []
        return [found for ident in sorted(places) if (found := self._found[ident]) is not None]

    @property
    def own(self) -> list[Result]:
        """The results of methods of the user's own, as they are computed now."""
        criteria = ((r, r["config"].get("pruner", {}).get("criterion", {})) for r in self.everything)
        return [result for result, criterion in criteria if "source" in criterion and not outdated(result)]

    def older(self, experiment: Experiment) -> list[Result]:
        """Results with the settings of an experiment and another name: other versions of a part have computed them."""
        config = json.loads(canonical(identity(experiment.run)))
        alike = self._alike.get(_brief(config), [])
        return [result for result in alike if _apart(result["config"]) == _apart(config)] if alike else []

    @cached_property
    def _alike(self) -> dict[tuple[Any, ...], list[Result]]:
        """Results by what is quickly told of them: few are looked at closely."""
        found: dict[tuple[Any, ...], list[Result]] = {}
        for result in self.everything:
            found.setdefault(_brief(result["config"]), []).append(result)
        return found

    def _one(self, paths: Sequence[Path]) -> Result | None:
        read = [found for path in paths if (found := self._read(path)) is not None]
        if not read:
            return None
        first, *others = read
        if any(other["final_weights_sha256"] != first["final_weights_sha256"] for other in others):
            self.remarks.append(f"{first['id']} differs between the folders, as machines do; the first one's is shown")
        return first

    def _read(self, path: Path) -> Result | None:
        try:
            return record.read(path)
        except UserError as error:
            self._passed_over.add(path)
            if len(self._passed_over) <= SHOWN:
                self.remarks.append(f"passed over: {error}")
            return None


def _brief(config: Result) -> tuple[Any, ...]:
    pruner = config.get("pruner", {}).get("criterion", {}).get("name")
    return config["model"]["name"], config["data"]["name"], config.get("seed"), config.get("steps"), pruner


def _apart(config: Result) -> str:
    """A run's settings without the versions of its parts, as text."""
    made = {**config, "model": {**config["model"], "version": None}}
    if pruner := config.get("pruner"):
        made["pruner"] = {**pruner, "criterion": {**pruner["criterion"], "version": None}}
    return json.dumps(made, sort_keys=True)
