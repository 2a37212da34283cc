"""The command line under test: in this process, for the many cheap cases, or as a real one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lthbench.bench.pace import Pace
from lthbench.cli.compose import Composer, Config
from lthbench.cli.main import main


class Said(NamedTuple):
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.splitlines()[-1]


Command = Callable[..., Said]


@pytest.fixture(scope="session", autouse=True)
def compose_once() -> Iterator[None]:
    """Hydra composes each set of choices once a session, not once a command: that is most of a command's time."""
    bases: dict[tuple[str, ...], Config] = {}
    compose = Composer._base

    def remembered(self: Composer, groups: tuple[str, ...]) -> Config:
        key = (str(self.loader.config_search_path), *groups)  # type: ignore[attr-defined]
        if key not in bases:
            bases[key] = compose(self, groups)
        return bases[key]

    Composer._base = remembered  # type: ignore[method-assign]
    yield
    Composer._base = compose  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def no_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans say the same each time, and sooner."""
    monkeypatch.setattr("lthbench.bench.pace.pace", lambda *_: Pace(step=1e-3, image=1e-5, weights=1000))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with no data set in sight."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    return tmp_path


@pytest.fixture
def run(here: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line in this process, in an empty folder."""

    def call(command: str) -> Said:
        capsys.readouterr()
        code = main(shlex.split(command))
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def shell(here: Path) -> Command:
    """Run a command line as a user does, in an empty folder."""

    def call(command: str, **variables: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "lthbench", *shlex.split(command)],
            capture_output=True,
            text=True,
            env=os.environ | variables,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def refused(run: Command, here: Path) -> Callable[[str], str]:
    """Run a command that is bad input: one line, exit code 2, nothing written. Returns the line without its prefix."""

    def call(command: str) -> str:
        before = sorted(here.rglob("*"))
        said = run(command)
        assert (said.code, said.out) == (2, ""), said
        assert sorted(here.rglob("*")) == before
        assert said.err.count("\n") == 1
        assert said.err.startswith("lthbench: ")
        return said.err.removeprefix("lthbench: ").rstrip("\n")

    return call
