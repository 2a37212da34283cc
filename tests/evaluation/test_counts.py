import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lthbench.evaluation.counts import describe, multiply_adds
from lthbench.models import ModelSettings, create
from lthbench.models.initialise import fresh
from lthbench.training.checkpoint import Checkpoint

LENET = ModelSettings.of("lenet_300_100", {}, (1, 28, 28), 10)
LENET5 = ModelSettings.of("lenet_5_caffe", {}, (1, 28, 28), 10)


def dense(model):
    return Checkpoint.of(model, fresh(model, "glorot_normal", 0, 0), {})


def first_kept(checkpoint, kept):
    """Masks that keep the first so many weights."""
    masks = {}
    for name, count in kept.items():
        mask = torch.zeros(checkpoint.weights[name].numel(), dtype=torch.bool)
        mask[:count] = True
        masks[name] = mask.view(checkpoint.weights[name].shape)
    return checkpoint.masked(masks)


def test_multiply_adds_of_lenet_5_by_hand():
    assert multiply_adds(create(LENET5), (1, 28, 28)) == {
        "conv1.weight": 288000,  # 24 x 24 x 25 x 20
        "conv2.weight": 1600000,  # 8 x 8 x 25 x 20 x 50
        "fc1.weight": 400000,
        "fc2.weight": 5000,
    }


def test_multiply_adds_of_resnet_20_by_hand():
    expected = 32 * 32 * 27 * 16 + 640
    for size, inner, outer in ((32, 16, 16), (16, 16, 32), (8, 32, 64)):
        expected += size * size * 9 * (inner * outer + 5 * outer * outer)
    macs = multiply_adds(create(ModelSettings.of("resnet_20", {}, (3, 32, 32), 10)), (3, 32, 32))
    assert sum(macs.values()) == expected == 40551040
    projected = multiply_adds(create(ModelSettings.of("resnet_20", {"shortcut": "B"}, (3, 32, 32), 10)), (3, 32, 32))
    assert sum(projected.values()) == expected + 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64


@settings(max_examples=25)
@given(st.data())
def test_multiply_adds_of_any_convolution(data):
    draw = lambda *choices: data.draw(st.sampled_from(choices))  # noqa: E731
    groups, kernel, stride, pad, dilation = (
        draw(1, 2, 4),
        (draw(1, 3), draw(1, 2, 3)),
        draw(1, 2),
        draw(0, 1),
        draw(1, 2),
    )
    height, width = draw(7, 10), draw(8, 9)
    layer = nn.Conv2d(4, 8, kernel, stride, pad, dilation, groups)
    out = layer(torch.zeros(1, 4, height, width))
    # every output value is a sum over a kernel of its group's inputs
    expected = out.numel() * (4 // groups) * kernel[0] * kernel[1]
    assert multiply_adds(nn.Sequential(layer), (4, height, width)) == {"0.weight": expected}


def test_a_linear_layer_counts_at_every_position_and_a_shared_one_at_every_use():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            return self.fc(self.fc(x))

    assert multiply_adds(nn.Sequential(nn.Linear(6, 4)), (5, 3, 6)) == {"0.weight": 5 * 3 * 24}
    assert multiply_adds(Twice(), (6,)) == {"fc.weight": 72}


def test_a_dense_network():
    record = describe(dense(LENET), "weights")
    assert record == {
        "sparsity": {
            "prunable": {"removed": 0, "total": 266200},
            "weights": {"removed": 0, "total": 266200},
            "parameters": {"removed": 0, "total": 266610},
        },
        "layers": {
            "fc1.weight": {"kept": 235200, "total": 235200, "effective": 235200},
            "fc2.weight": {"kept": 30000, "total": 30000, "effective": 30000},
            "fc3.weight": {"kept": 1000, "total": 1000, "effective": 1000},
        },
        "parameters": {"dense": 266610, "nonzero": 266200},  # biases start at 0
        "diagnosis": {"collapsed": [], "effective": {"removed": 0, "total": 266200}, "unfollowed": None},
        "flops": {"dense": 266200, "nonzero": 266200, "speedup": 1.0},
    }


def test_three_denominators():
    record = describe(first_kept(dense(LENET), {"fc1.weight": 35200, "fc2.weight": 30000}), "no_output")
    assert record["sparsity"] == {
        "prunable": {"removed": 200000, "total": 265200},
        "weights": {"removed": 200000, "total": 266200},
        "parameters": {"removed": 200000, "total": 266610},
    }
    assert record["layers"] == {
        "fc1.weight": {"kept": 35200, "total": 235200, "effective": 35200},  # 44 whole units, and part of another
        "fc2.weight": {"kept": 30000, "total": 30000, "effective": 100 * 45},
    }
    assert record["diagnosis"]["effective"] == {"removed": 265200 - 35200 - 4500, "total": 265200}


def test_shortcuts_and_output_are_weights_but_not_prunable():
    model = ModelSettings.of("resnet_20", {"shortcut": "B"}, (3, 32, 32), 10)
    record = describe(dense(model), "conv_3x3")
    assert {name: count["total"] for name, count in record["sparsity"].items()} == {
        "prunable": 267696,
        "weights": 270896,
        "parameters": 272474,
        "filters": 688,
    }


@pytest.mark.parametrize("fraction", [2, 4, 5, 10, 50])
def test_a_uniform_density_speeds_up_by_its_inverse(fraction):
    whole = {"conv1.weight": 500, "conv2.weight": 25000, "fc1.weight": 400000, "fc2.weight": 5000}
    record = describe(first_kept(dense(LENET5), {name: n // fraction for name, n in whole.items()}), "weights")
    assert math.isclose(record["flops"]["speedup"], fraction)
    assert record["flops"]["dense"] == 2293000
    assert record["flops"]["nonzero"] == 2293000 // fraction


def test_layers_weigh_by_their_density():
    record = describe(first_kept(dense(LENET5), {"conv1.weight": 250, "fc1.weight": 4000}), "weights")
    nonzero = 288000 * 0.5 + 1600000 + 400000 * 0.01 + 5000
    assert record["flops"]["nonzero"] == nonzero
    assert math.isclose(record["flops"]["speedup"], 2293000 / nonzero)


def test_a_network_without_weights_has_no_speedup():
    whole = {"fc1.weight": 0, "fc2.weight": 0, "fc3.weight": 0}
    record = describe(first_kept(dense(LENET), whole), "weights")
    assert record["flops"] == {"dense": 266200, "nonzero": 0, "speedup": None}
    assert record["sparsity"]["prunable"] == {"removed": 266200, "total": 266200}


@given(st.integers(0, 235200), st.integers(0, 30000), st.integers(0, 1000))
@settings(max_examples=10)
def test_counts_are_of_the_mask(a, b, c):
    record = describe(first_kept(dense(LENET), {"fc1.weight": a, "fc2.weight": b, "fc3.weight": c}), "weights")
    assert record["sparsity"]["weights"]["removed"] == 266200 - a - b - c
    assert [layer["kept"] for layer in record["layers"].values()] == [a, b, c]
    assert record["flops"]["nonzero"] == a + b + c
    assert record["flops"]["speedup"] is None or record["flops"]["speedup"] >= 1


def test_nonzero_parameters_are_counted_by_value():
    net = dense(LENET)
    net.weights["fc2.bias"].fill_(-0.0)
    net.weights["fc3.bias"].fill_(1.0)
    net.weights["fc3.weight"][0, :7] = 0
    assert describe(net, "weights")["parameters"] == {"dense": 266610, "nonzero": 266200 - 7 + 10}


def test_filters_and_collapsed_layers():
    record = describe(first_kept(dense(LENET5), {"conv1.weight": 51, "conv2.weight": 0}), "weights")
    assert record["sparsity"]["filters"] == {"removed": 20 - 3 + 50, "total": 70}
    assert record["diagnosis"]["collapsed"] == ["conv2.weight"]
    assert record["diagnosis"]["effective"] == {"removed": 430500, "total": 430500}
