"""Effective weights: boolean propagation against paths counted one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lthbench.evaluation.counts import describe
from lthbench.evaluation.paths import effective
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.training.checkpoint import Checkpoint


class Skip(nn.Module):
    """Four linear layers, the second and third under a shortcut."""

    def __init__(self, sizes):
        super().__init__()
        a, b, c, d = sizes
        self.fc1, self.fc2, self.fc3 = nn.Linear(a, b), nn.Linear(b, c), nn.Linear(c, b)
        self.fc4 = nn.Linear(b, d)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        return self.fc4(F.relu(x + self.fc3(F.relu(self.fc2(x)))))


def paths(mask):
    """Every path from an input to an output, as the weights it goes through."""
    w = {name.split(".")[0]: m.tolist() for name, m in mask.items()}

    def outgoing(layer, unit):
        return [(layer, o, unit) for o, row in enumerate(w[layer]) if row[unit]]

    for i in range(len(w["fc1"][0])):
        for first in outgoing("fc1", i):
            inner = [[first]]
            inner += [[first, s, t] for s in outgoing("fc2", first[1]) for t in outgoing("fc3", s[1])]
            for path in inner:
                for last in outgoing("fc4", path[-1][1]):
                    yield [*path, last]


@given(st.integers(0, 2**32), st.lists(st.integers(1, 6), min_size=4, max_size=4), st.floats(0.05, 0.9))
def test_as_path_by_path(seed, sizes, density):
    net = Skip(sizes)
    draws = torch.Generator().manual_seed(seed)
    mask = {n: torch.rand(p.shape, generator=draws) < density for n, p in net.named_parameters() if p.dim() == 2}
    expected = {n: torch.zeros_like(m) for n, m in mask.items()}
    for path in paths(mask):
        for layer, o, i in path:
            expected[f"{layer}.weight"][o, i] = True
    found = effective(net, mask, (sizes[0],))
    assert all(torch.equal(found[n], expected[n]) for n in mask)


NETWORKS = [
    ("lenet_300_100", {"width": 0.1}, (1, 28, 28)),
    ("lenet_5_caffe", {"width": 0.3}, (1, 28, 28)),
    ("conv_4", {"width": 0.1}, (3, 16, 16)),
    ("vgg_11", {"width": 0.1}, (3, 32, 32)),
    ("resnet_20", {"width": 0.5}, (3, 32, 32)),
    ("resnet_20", {"width": 0.5, "shortcut": "B"}, (3, 32, 32)),
    ("wrn", {"depth": 10, "widen": 1}, (3, 32, 32)),
    ("timm", {"name": "mobilenetv3_small_050", "version": "1"}, (3, 64, 64)),
    ("timm", {"name": "densenet121", "version": "1"}, (3, 64, 64)),
]


def network(name, arguments, shape):
    return Checkpoint.of(m := ModelSettings.of(name, arguments, shape, 10), fresh(m, "kaiming_normal", 0, 0), {})


def masked(checkpoint, density, seed=0):
    draws = torch.Generator().manual_seed(seed)
    weights = {n: w for n, w in checkpoint.weights.items() if n.endswith("weight") and w.dim() > 1}
    return checkpoint.masked({n: torch.rand(w.shape, generator=draws) < density for n, w in weights.items()})


@pytest.mark.parametrize(("name", "arguments", "shape"), NETWORKS)
def test_in_a_dense_network_all_weights_are_effective(name, arguments, shape):
    """But those that only ever meet padding: of a 3x3 kernel on a 1x1 image the middle alone."""
    found = effective(network(name, arguments, shape).network(), {}, shape)
    assert not isinstance(found, str), found
    for weight, m in found.items():
        beside_the_padding = m if m.dim() == 2 else m[:, :, m.shape[2] // 2, m.shape[3] // 2]
        assert beside_the_padding.all(), weight
    if name.startswith(("lenet", "conv", "resnet")):
        assert all(m.all() for m in found.values())


@pytest.mark.parametrize(("name", "arguments", "shape"), NETWORKS[:6])
def test_idempotent_and_within_the_mask(name, arguments, shape):
    net = masked(network(name, arguments, shape), 0.05)
    found = effective(net.network(), net.mask, shape)
    assert all(not (m & ~net.mask[n]).any() for n, m in found.items())
    again = effective(net.network(), found, shape)
    assert all(torch.equal(again[n], m) for n, m in found.items())
    assert any((net.mask[n] & ~m).any() for n, m in found.items())


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_what_is_not_effective_changes_no_output(seed):
    """Without biases: the output does not feel these weights, and nothing but them."""
    checkpoint = masked(network("vgg_11", {"width": 0.1}, (3, 32, 32)), 0.03, seed)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    found = effective(checkpoint.network(), checkpoint.mask, (3, 32, 32))
    before = checkpoint.network().double().eval()(x)
    assert torch.allclose(checkpoint.masked(found).network().double().eval()(x), before, rtol=0, atol=1e-12)


def test_a_cut_layer_leaves_nothing_but_beside_a_shortcut():
    for name, left in (("vgg_11", False), ("resnet_20", True)):
        net = network(name, {"width": 0.5}, (3, 32, 32))
        layer = "features.11.weight" if name == "vgg_11" else "layer1.1.conv1.weight"
        cut = net.masked({layer: torch.zeros_like(net.weights[layer], dtype=torch.bool)})
        diagnosis = describe(cut, "weights")["diagnosis"]
        assert diagnosis["collapsed"] == [layer]
        assert (diagnosis["effective"]["removed"] < diagnosis["effective"]["total"]) == left
        assert diagnosis["unfollowed"] is None


def test_a_network_without_a_path_is_constant():
    net = masked(network("lenet_300_100", {}, (1, 28, 28)), 0.0005)
    assert describe(net, "weights")["diagnosis"]["effective"] == {"removed": 266200, "total": 266200}
    out = net.network()(torch.rand(5, 1, 28, 28))
    assert torch.equal(out, out[:1].expand(5, -1))


def test_attention_is_not_judged():
    net = network("timm", {"name": "vit_tiny_patch16_224", "version": "1"}, (3, 32, 32))
    record = describe(net, "weights")
    assert record["diagnosis"]["effective"] is None
    assert record["diagnosis"]["unfollowed"] == "scaled_dot_product_attention"
