"""A store with one finished experiment, made once; each test gets a copy that it may break."""

import shutil

import pytest
from engine.small_runs import compute, small

from lthbench.engine.store import Store

IMP = small("early", "0.36", schedule="iterative", every=20)  # two rounds; dense states at 10 and 40


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of the undisturbed store."""
    root = tmp_path_factory.mktemp("finished")
    assert not compute(Store(root), IMP).failed
    return root


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it, as a store."""
    shutil.copytree(finished, tmp_path / "store")
    return Store(tmp_path / "store")
