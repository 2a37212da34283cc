"""The line between two networks."""

import math

import pytest
import torch
from engine.small_runs import MODEL
from hypothesis import given
from hypothesis import strategies as st
from soups.test_average import RESNET, a_mask, network

from lthbench.soups.line import barrier, between, distances


@pytest.mark.parametrize("model", [MODEL, RESNET], ids=lambda m: m.name)
@given(st.integers(0, 50), st.integers(0, 29))
def test_the_ends_are_the_networks_and_the_way_is_straight(model, seed, i):
    one, other = network(seed, model), network(seed + 1, model)
    assert between(one, other, 0.0).digest() == one.digest()
    end = between(one, other, 1.0)
    alpha = i / 29
    for name, tensor in between(one, other, alpha).weights.items():
        a, b = one.weights[name], other.weights[name]
        if tensor.is_floating_point():
            assert torch.equal(end.weights[name], b)
            assert torch.equal(tensor, ((1 - alpha) * a.double() + alpha * b.double()).to(a.dtype))
        else:
            assert torch.equal(tensor, a)
    assert between(one, one, alpha).digest() == one.digest()


def test_distances_are_those_of_all_parameters_and_of_nothing_else():
    one, other = network(0, RESNET, a_mask(0, RESNET)), network(1, RESNET, a_mask(1, RESNET))
    names = [n for n, _ in one.network().named_parameters()]
    square = sum(float((one.weights[n].double() - other.weights[n].double()).square().sum()) for n in names)
    found = distances(one, other)
    assert found["distance"] == pytest.approx(math.sqrt(square)) and 0 < found["angle"] < 180
    norms = [math.sqrt(sum(float(c.weights[n].double().square().sum()) for n in names)) for c in (one, other)]
    assert found["relative"] == pytest.approx(found["distance"] / min(norms))
    cosine = (norms[0] ** 2 + norms[1] ** 2 - square) / (2 * norms[0] * norms[1])  # the law of cosines
    assert found["angle"] == pytest.approx(math.degrees(math.acos(cosine)))
    assert distances(one, one) == {"distance": 0.0, "relative": 0.0, "angle": 0.0}


def test_what_has_no_distance():
    broken = network(0)
    broken.weights["fc1.weight"].fill_(math.nan)
    assert distances(network(0), broken) == {"distance": None, "relative": None, "angle": None}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_a_barrier_is_never_less_than_what_the_ends_differ_by_and_has_no_direction(values):
    found = barrier(values)
    assert found == pytest.approx(max(values) - (values[0] + values[-1]) / 2)
    assert barrier(values[::-1]) == pytest.approx(found)
    assert found >= abs(values[0] - values[-1]) / 2 - 1e-12


def test_barriers_of_flat_lines_and_of_what_is_no_number():
    assert barrier([0.3] * 30) == 0.0
    assert barrier([0.1, 0.5, 0.3]) == pytest.approx(0.3)
    assert barrier([0.1, None, 0.3]) is None
