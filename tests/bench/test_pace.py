"""How a step is timed: what warms up is not counted, nor is one slow block among several."""

from __future__ import annotations

import pytest

from lthbench.bench import pace


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch):
    """Time a function whose calls take so long, one after the other; returns the figure and how many were made."""

    def call(*seconds: float) -> tuple[float, int]:
        left = list(seconds)
        monkeypatch.setattr(pace, "_once", lambda function, device, calls=1: left.pop(0))
        return pace._seconds(lambda: None, "cpu"), len(seconds) - len(left)

    return call


def test_the_first_call_is_not_counted(taking):
    """A convolution's first step is far longer than the next."""
    assert taking(1.1, 0.40, 0.39, 0.41) == (0.40, 4)


def test_long_steps_are_timed_thrice(taking):
    assert taking(9.0, 5.0, 7.0, 5.5) == (5.5, 4)


def test_short_steps_are_timed_in_blocks(taking):
    assert taking(1.0, 0.001, *[0.002] * 20) == (0.002, 1 + pace.BLOCKS)


def test_a_block_in_which_something_else_ran_does_not_count(taking):
    figure, _ = taking(1.0, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1)
    assert figure == 0.1
