"""For every test: one thread, so that bits do not depend on the machine, and no deadline on examples."""

import pytest
from hypothesis import settings

settings.register_profile("lthbench", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("lthbench")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)
