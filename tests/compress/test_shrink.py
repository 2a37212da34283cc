"""The smaller dense network computes what the masked one does, whatever hangs together in it."""

import copy
from fractions import Fraction
from importlib.metadata import version

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lthbench.base.errors import UserError
from lthbench.compress import shrink
from lthbench.evaluation.counts import describe, multiply_adds
from lthbench.models import ModelSettings
from lthbench.models.channels import trace
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.prune import prune
from lthbench.pruning.structure import Structure
from lthbench.training.checkpoint import Checkpoint

MAGNITUDE = CriterionSettings.of("magnitude", {}, 0)
COLOUR = (3, 32, 32)
NETWORKS = {
    "LeNet-5": ("lenet_5_caffe", {}, (1, 28, 28)),
    "Conv-2": ("conv_2", {"width": 0.2}, COLOUR),
    "Conv-6": ("conv_6", {"width": 0.2}, COLOUR),
    "VGG-11": ("vgg_11", {"width": 0.2}, COLOUR),
    "VGG-16 with biases": ("vgg_16", {"width": 0.1, "bias": True}, COLOUR),
    "ResNet-20, shortcut A": ("resnet_20", {}, COLOUR),
    "ResNet-20, shortcut B": ("resnet_20", {"shortcut": "B"}, COLOUR),
    "WRN-10-2": ("wrn", {"depth": 10, "widen": 2}, COLOUR),
    "WRN-10-1 with biases": ("wrn", {"depth": 10, "widen": 1, "bias": True}, COLOUR),
}
TIMM = ["mobilenetv3_small_050"]
SLOW = [  # seconds each: families whose blocks are like those of the quick ones, or larger
    "resnet10t", "regnety_002", "convnext_atto", "ghostnet_050",
    "densenet121", "mobilenetv2_035", "tinynet_e", "mnasnet_small", "hrnet_w18_small", "repvgg_a0", "dla46_c",
    "ese_vovnet19b_dw", "mobilevit_xxs", "regnetx_002", "efficientnet_lite0", "fbnetc_100",
]  # fmt: skip


def network(name, arguments, shape):
    """A network whose BatchNorms are not the identity."""
    model = ModelSettings.of(name, arguments, shape, 10)
    net = fresh(model, "pytorch", 0, 0)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(1, 0.2, generator=draws)
                module.bias.normal_(0, 0.2, generator=draws)
                module.running_mean.normal_(0, 0.1, generator=draws)
                module.running_var.uniform_(0.5, 1.5, generator=draws)
    return Checkpoint.of(model, net, {})


def pruned(dense, density="1/2", allocation="uniform", structure="filter"):
    how = Structure(structure) if structure != "weight" else None
    return dense.masked(
        prune(dense, MAGNITUDE, Allocation(allocation, {}), "weights", Density(Fraction(density)), structure=how)
    )


def same(net, small, shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        a, b = (copy.deepcopy(n).double().eval()(x) for n in (net, small))
    assert torch.allclose(a, b, rtol=0, atol=1e-10 * float(a.abs().max().clamp(min=1)))


def check(dense):
    """Half of the channels of every layer: the same outputs; parameters and multiply-adds that the mask says."""
    masked = pruned(dense)
    shape = masked.model.shape
    small = shrink(masked)
    same(masked.network(), small, shape)
    record = describe(masked, "weights")
    kept = record["sparsity"]["parameters"]["total"] - record["sparsity"]["parameters"]["removed"]
    assert sum(p.numel() for p in small.parameters()) == kept < record["sparsity"]["parameters"]["total"]
    assert sum(multiply_adds(small, shape).values()) == record["flops"]["nonzero"]
    assert record["diagnosis"]["collapsed"] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_shrink(name):
    check(network(*NETWORKS[name]))


@pytest.mark.slow  # up to 20 s: 11 and 23 million parameters in float64
@pytest.mark.parametrize(("name", "shape"), [("resnet_18", COLOUR), ("resnet_50", (3, 64, 64))])
def test_resnets_for_imagenet_shrink(name, shape):
    check(network(name, {}, shape))


@pytest.mark.parametrize("name", [*TIMM, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_families_of_timm_shrink(name):
    check(network("timm", {"name": name, "version": version("timm")}, (3, 64, 64)))


@pytest.mark.slow  # seconds
def test_code_that_counts_on_its_sizes_is_refused():
    """ReXNet adds a shortcut to as many channels as it was built with."""
    with pytest.raises(UserError, match="cannot be shrunk: its code needs the sizes it was built with"):
        shrink(pruned(network("timm", {"name": "rexnet_100", "version": version("timm")}, (3, 64, 64))))


@settings(max_examples=8)
@given(st.integers(0, 2**32), st.sampled_from(["1/2", "1/5", "1/20", "1/100"]))
def test_a_sparse_network_shrinks_by_what_does_nothing(seed, density):
    """Single weights, biases of 0: units without outputs go, and those that are always zero."""
    dense = network("conv_4", {"width": 0.1}, (3, 16, 16))
    draws = torch.Generator().manual_seed(seed)
    share = float(Fraction(density))
    mask = {
        name: torch.rand(w.shape, generator=draws) < share
        for name, w in dense.weights.items()
        if name.endswith("weight")
    }
    for name in mask:
        dense.weights[name.replace("weight", "bias")].zero_()
    masked = dense.masked(mask)
    small = shrink(masked)
    same(masked.network(), small, masked.model.shape)
    left = shrink(small, masked.model.shape)  # nothing more to find
    assert [p.shape for p in left.parameters()] == [p.shape for p in small.parameters()]
    if share < 0.02:
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in masked.network().parameters())


def test_a_network_pruned_elsewhere_shrinks_by_its_zeros():
    dense = network("vgg_11", {"width": 0.1}, COLOUR)
    with torch.no_grad():
        net = dense.network()
        net.features[4].weight[3] = 0  # a filter, what BatchNorm adds to it, and nothing of what reads it
        net.features[5].bias[3] = 0
        net.features[5].running_mean[3] = 0
    small = shrink(net, COLOUR)
    same(net, small, COLOUR)
    assert small.features[4].out_channels == net.features[4].out_channels - 1
    net.features[5].bias.data[3] = 0.1  # now it is constant, not zero
    assert shrink(net, COLOUR).features[4].out_channels == net.features[4].out_channels


def test_a_dense_network_stays_as_it_is():
    dense = network(*NETWORKS["ResNet-20, shortcut A"])
    assert Checkpoint.of(dense.model, shrink(dense), {}).digest() == dense.digest()


def test_the_network_itself_is_left_alone():
    masked = pruned(network(*NETWORKS["VGG-11"]))
    net = masked.network().train()
    before = Checkpoint.of(masked.model, net, {}).digest()
    small = shrink(net, COLOUR)
    assert Checkpoint.of(masked.model, net, {}).digest() == before
    assert net.training and small.training


def test_a_layer_keeps_one_channel():
    masked = pruned(network(*NETWORKS["LeNet-5"]), "1/50", "global")
    assert describe(masked, "weights")["diagnosis"]["collapsed"]
    small = shrink(masked)
    assert min(p.numel() for p in small.parameters()) >= 1
    same(masked.network(), small, (1, 28, 28))


def test_the_small_network_trains():
    small = shrink(pruned(network(*NETWORKS["ResNet-20, shortcut A"]))).train()
    loss = F.cross_entropy(small(torch.randn(4, *COLOUR)), torch.arange(4))
    loss.backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


class Fixed(nn.Module):
    """Its code needs its size."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(self.a(x).mean((2, 3)).view(len(x), 4))


def test_a_size_in_the_code_is_refused():
    net = Fixed()
    with torch.no_grad():
        net.b.weight[:, 0] = 0
    with pytest.raises(UserError, match="this network cannot be shrunk: its code needs the sizes it was built with"):
        shrink(net, (1, 2, 2))


def test_where_nothing_can_ever_go_it_says_why():
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Softmax(1), nn.Linear(16, 2))
    with pytest.raises(UserError, match=r"this network cannot be shrunk: softmax, the output needs every channel"):
        shrink(net, (1, 2, 2))


class Joined(nn.Module):
    """Every way in which channels meet: concatenation, slices, a gate, a zero-padded and a projected shortcut."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 6, 3, padding=1)
        self.gate = nn.Linear(10, 10)
        self.c, self.d = nn.Conv2d(10, 8, 3, groups=1), nn.Conv2d(8, 8, 3, groups=8)
        self.out = nn.Linear(5, 3)
        self.e = nn.Conv2d(3, 5, 1)

    def forward(self, x):
        x = torch.cat([self.a(x), F.pad(self.a(x), (0, 0, 0, 0, 2, 0)) + self.b(x)], 1)
        x = x * torch.sigmoid(self.gate(x.amax((2, 3))))[:, :, None, None]
        x = F.silu(self.d(F.relu(self.c(x))))
        return self.out(F.max_pool2d(self.e(x[:, 1:4]), 2).mean((2, 3)))


def test_what_hangs_together():
    channels = trace(Joined(), (2, 8, 8))
    axis = {name: [None if a is None else a.tolist() for a in axes] for name, axes in channels.axes.items()}
    a, b = axis["a.weight"][0], axis["b.weight"][0]
    assert b[2:] == a and len({*a, *b}) == 6  # the shortcut's zeros tie nothing
    assert axis["c.weight"][1] == a + b == axis["gate.weight"][0] == axis["gate.weight"][1]
    c = axis["c.weight"][0]
    assert c == axis["d.weight"][0] and axis["d.weight"][1] is None
    assert axis["e.weight"][1] == c[1:4]
    assert axis["out.weight"] == [[-1, -1, -1], axis["e.weight"][0]]
    assert channels.fixed_by == ["the output"]
    assert channels.offset[torch.tensor(a + b)].all() and not channels.offset[torch.tensor(c)].any()
