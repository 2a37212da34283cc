"""Peaks of memory are counted anew."""

import subprocess
import sys

import pytest

from lthbench.base.memory import forget_peak, peak

SIZE = 200 * 2**20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counting anew is Linux's")
def test_what_was_held_before_is_forgotten():
    forget_peak()
    before = peak()
    held = bytearray(b"x") * SIZE
    assert peak() > before + 0.9 * SIZE
    del held
    forget_peak()
    assert peak() < before + 0.5 * SIZE


def test_a_process_does_not_count_what_its_parent_held():
    held = bytearray(b"x") * SIZE
    code = "from lthbench.base.memory import peak; print(peak())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < len(held)
