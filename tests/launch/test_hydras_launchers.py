"""Hydra's own launchers, for those who prefer them (slow: each job is a process that imports torch)."""

from __future__ import annotations

import importlib.util

import pytest
from launch.conftest import results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(
            importlib.util.find_spec(f"hydra_plugins.{name}")
            for name in ("hydra_joblib_launcher", "hydra_submitit_launcher")
        )
        if importlib.util.find_spec("hydra_plugins")
        else True,
        reason="needs pip install -e '.[launchers]'",
    ),
]


@pytest.mark.parametrize("words", ["joblib hydra.launcher.n_jobs=2", "submitit_local"])
def test_they_give_what_our_own_gives(words, shell, tmp_path):
    grid = "scale=smoke sparsity=0.5 rewind=init,lr -m"
    assert shell(f"{grid} out=ours").code == 0
    said = shell(f"{grid} out=theirs hydra/launcher={words}", fresh=True)
    assert said.code == 0, said.err
    assert len(results(tmp_path / "ours")) == 2
    assert results(tmp_path / "theirs") == results(tmp_path / "ours")


def test_on_slurm(clean, shell, tmp_path):
    said = shell(
        "scale=smoke sparsity=0.5 rewind=init,lr -m out=o hydra/launcher=submitit_slurm hydra.launcher.timeout_min=5",
        fresh=True,
    )
    assert said.code == 0, said.err
    assert len(results(tmp_path / "o")) == 2
