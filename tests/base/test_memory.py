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


@pytest.mark.slow  # ResNet-50 is built and pruned
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counting anew is Linux's")
def test_pruning_resnet_50_holds_the_network_and_its_scores():
    """The network, scores of as many bytes, and masks (a quarter each): nothing is copied besides."""
    code = """
from fractions import Fraction
from lthbench.base.memory import forget_peak, peak
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.prune import prune
from lthbench.training.checkpoint import Checkpoint

model = ModelSettings.of("resnet_50", {}, (3, 64, 64), 1000)
net = Checkpoint.of(model, fresh(model, "pytorch", 0, 0), {})
size = sum(t.numel() * t.element_size() for t in net.weights.values())
how = CriterionSettings.of("magnitude", {}, 0), Allocation("global", {}), "weights", Density(Fraction(1, 10))
forget_peak()
before = peak()
prune(net, *how)
print((peak() - before) / size)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < 3
