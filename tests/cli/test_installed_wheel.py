"""The wheel works in an empty folder: conf is inside, and nothing of the checkout is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conf_files import GROUPS

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_installed_wheel(tmp_path: Path):
    empty, target = tmp_path / "empty", tmp_path / "site"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, REPOSITORY], check=True)
    (wheel,) = tmp_path.glob("lthbench-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)

    def command(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "lthbench", *words],
            cwd=empty,
            env=os.environ | {"PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    place = "import lthbench.cli.compose as c; print(c.__file__, c.conf_dir())"
    lies = subprocess.run(
        [sys.executable, "-c", place], cwd=empty, env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert lies == [str(target / "lthbench/cli/compose.py"), str(target / "lthbench/conf")]

    assert "Subcommands" in command("--help")
    listed = command("list")
    assert all(option in listed for options in GROUPS.values() for option in options)
    assert list(empty.iterdir()) == []
    assert command("scale=smoke", "sparsity=0.5", "out=o").splitlines()[-1].endswith(" 0 reused")
