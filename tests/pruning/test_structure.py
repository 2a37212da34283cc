"""Filters and n of m: exact counts, against naive versions."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lthbench.base.errors import UserError
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.controls import other_values
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable
from lthbench.pruning.prune import prune
from lthbench.pruning.structure import Filters, Structure, countable, keep_n_of_m
from lthbench.training.checkpoint import Checkpoint

MAGNITUDE = CriterionSettings.of("magnitude", {}, 0)
GLOBAL, UNIFORM = Allocation("global", {}), Allocation("uniform", {})
FILTER = Structure("filter")


def dense(name="vgg_11", shape=(3, 32, 32), **arguments):
    model = ModelSettings.of(name, {"width": 0.2} | arguments, shape, 10)
    return Checkpoint.of(model, fresh(model, "kaiming_normal", 0, 0), {})


def filters_of(mask):
    """Which filters of a convolution's mask are there."""
    return mask.flatten(1).any(1)


@settings(max_examples=15)
@given(st.fractions(0, 1).filter(lambda d: d < 1))
def test_the_share_of_channels_is_exact(sparsity):
    net = dense()
    mask = prune(net, MAGNITUDE, GLOBAL, "weights", Density(1 - sparsity), structure=FILTER)
    convolutions = [n for n in mask if n.endswith("weight") and mask[n].dim() == 4]
    total = sum(len(mask[n]) for n in convolutions)
    removed = (2 * sparsity.numerator * total + sparsity.denominator) // (2 * sparsity.denominator)
    # a filter whose inputs are all gone has no weight left; what was chosen shows in its BatchNorm
    norms = [n for n in net.weights if n.startswith("features") and n.endswith("running_mean")]
    gone = sum(
        int((~mask.get(n.replace("running_mean", "weight"), torch.ones(1, dtype=torch.bool))).sum()) for n in norms
    )
    assert gone == removed


def test_the_score_of_a_filter_is_its_l1_norm():
    net = dense()
    mask = prune(net, MAGNITUDE, UNIFORM, "weights", Density(Fraction(1, 2)), structure=FILTER)
    for name, kept in mask.items():
        if kept.dim() == 4:
            norms = net.weights[name].double().abs().sum((1, 2, 3))
            kept = filters_of(kept)
            assert abs(2 * int(kept.sum()) - len(norms)) <= 1
            assert norms[kept].min() > norms[~kept].max()


def test_all_that_belongs_to_a_channel_goes():
    net = dense(bias=True)
    mask = prune(net, MAGNITUDE, UNIFORM, "weights", Density(Fraction(1, 2)), structure=FILTER)
    first, second = filters_of(mask["features.0.weight"]), filters_of(mask["features.4.weight"])
    for name in ("features.0.bias", "features.1.weight", "features.1.bias"):
        assert torch.equal(mask[name], first)
    assert torch.equal(mask["features.4.weight"], (second[:, None] & first)[..., None, None].expand(-1, -1, 3, 3))
    assert "linear.bias" not in mask
    last = [n for n in mask if mask[n].dim() == 4][-1]
    assert torch.equal(mask["linear.weight"], filters_of(mask[last]).expand(10, -1))


def test_what_a_shortcut_ties_is_one_channel_with_the_mean_of_its_filters():
    net = dense("resnet_20", width=0.5)
    mask = prune(net, MAGNITUDE, GLOBAL, "weights", Density(Fraction(1, 2)), structure=FILTER)
    stream = [n for n in mask if n == "conv1.weight" or (n.startswith("layer1") and n.endswith("conv2.weight"))]
    assert len(stream) == 4
    for name in stream[1:]:
        assert torch.equal(filters_of(mask[name]), filters_of(mask[stream[0]]))
    model = net.network()
    units = Filters(model, net.model.shape, prunable(model, "weights"))
    scores = units.scores({n: net.weights[n].abs() for n in units.found})
    # channel 5 of the narrow stream is channel 5 + 4 of the middle one and 5 + 4 + 8 of the wide one
    members = [(n, 5) for n in stream]
    members += [(f"layer2.{i}.conv2.weight", 9) for i in range(3)] + [
        (f"layer3.{i}.conv2.weight", 17) for i in range(3)
    ]
    naive = sum(float(net.weights[n].double().abs()[i].sum()) for n, i in members) / len(members)
    assert scores["conv1.weight"][5].item() == pytest.approx(naive, rel=1e-12)


def test_rounds_are_nested_and_count_from_the_whole():
    net = dense()
    shallow = prune(net, MAGNITUDE, UNIFORM, "weights", Density(Fraction(1, 2)), structure=FILTER)
    deep = prune(net.masked(shallow), MAGNITUDE, UNIFORM, "weights", Density(Fraction(1, 4)), structure=FILTER)
    straight = prune(net, MAGNITUDE, UNIFORM, "weights", Density(Fraction(1, 4)), structure=FILTER)
    assert all(not (deep[n] & ~shallow[n]).any() for n in shallow)
    for n in (n for n in deep if deep[n].dim() == 4):
        assert filters_of(deep[n]).sum() == filters_of(straight[n]).sum()


def test_only_prunable_convolutions_lose_filters():
    net = dense("resnet_20", width=0.5, shortcut="B")
    mask = prune(net, MAGNITUDE, UNIFORM, "conv_3x3", Density(Fraction(1, 2)), structure=FILTER)
    assert all(filters_of(mask[n]).all() for n in mask if "layer2" in n and n.endswith("conv2.weight"))  # with a 1x1
    assert not filters_of(mask["layer2.1.conv1.weight"]).all()


def test_batchnorm_scale():
    net = dense("wrn", depth=10, widen=1)
    for name, tensor in net.weights.items():
        if ".bn" in name and name.endswith("weight"):
            tensor.normal_(generator=torch.Generator().manual_seed(len(name)))
    scale = CriterionSettings.of("bn_scale", {}, 0)
    mask = prune(net, scale, UNIFORM, "weights", Density(Fraction(1, 2)), structure=FILTER)
    inner = filters_of(mask["stages.1.0.conv1.weight"])  # read by bn2 alone
    gamma = net.weights["stages.1.0.bn2.weight"].abs()
    assert gamma[inner].min() > gamma[~inner].max()


def test_a_convolution_without_batchnorm_has_no_scale():
    with pytest.raises(ValueError, match=r"criterion bn_scale: no BatchNorm follows conv1\.weight"):
        prune(
            dense("small_cnn", (1, 28, 28)), CriterionSettings.of("bn_scale", {}, 0), UNIFORM, "weights",
            Density(Fraction(1, 2)), structure=FILTER,
        )  # fmt: skip


@given(st.integers(0, 2**32), st.sampled_from([(1, 2), (2, 4), (1, 4), (5, 8)]), st.booleans())
@settings(max_examples=30)
def test_n_of_every_m(seed, n_of_m, convolution):
    n, m = n_of_m
    draws = torch.Generator().manual_seed(seed)
    shape = (3, 2 * m, 3, 2) if convolution else (5, 3 * m)
    score = torch.randint(0, 4, shape, generator=draws).float()  # with ties
    mask = keep_n_of_m({"w": score}, Structure("nm", n, m))["w"]
    last, kept = score.movedim(1, -1).reshape(-1, m).tolist(), mask.movedim(1, -1).reshape(-1, m).tolist()
    for group, chosen in zip(last, kept):
        best = sorted(range(m), key=lambda i: (-group[i], i))[:n]
        assert [i for i in range(m) if chosen[i]] == sorted(best)


def test_n_of_m_of_a_network():
    net = dense(width=0.125)  # 8 channels and more
    mask = prune(net, MAGNITUDE, GLOBAL, "weights", Density(Fraction(1, 2)), structure=Structure("nm", 2, 4, skip=True))
    for name, kept in mask.items():
        divides = kept.shape[1] % 4 == 0
        assert int(kept.sum()) == kept.numel() // 2 if divides else kept.all(), name
    assert mask["features.0.weight"].all()  # 3 channels
    assert not mask["features.4.weight"].all()


def test_channels_are_counted_behind_a_layer_that_has_lost_all_of_its_own():
    """Round after round, exactly, though the network is cut."""
    model = ModelSettings.of("small_cnn", {}, (1, 8, 8), 10)
    net = Checkpoint.of(model, fresh(model, "kaiming_normal", 0, 0), {})
    net.weights["conv1.weight"].mul_(1e-6)
    biases = [name for name in net.weights if name.startswith("conv") and name.endswith("bias")]
    total = sum(len(net.weights[name]) for name in biases)
    for rounds in range(1, 8):
        density = Density(Fraction(3, 4) ** rounds)
        net = net.masked(prune(net, MAGNITUDE, GLOBAL, "weights", density, structure=FILTER))
        there = (int(net.mask[n].sum()) if n in net.mask else len(net.weights[n]) for n in biases)
        assert sum(there) == density.kept(total)
    assert not net.mask["conv1.bias"].any()


@pytest.mark.parametrize(
    ("structure", "net", "why"),
    [
        (FILTER, nn.Sequential(nn.Linear(4, 4)), "structure=filter: this network has no prunable convolutions"),
        (
            FILTER,
            nn.Sequential(nn.Conv2d(4, 2, 1), nn.Flatten()),
            "structure=filter: no filter can go; the output needs every channel",
        ),
        (
            Structure("nm", 2, 4),
            nn.Sequential(nn.Linear(6, 4)),
            "structure=nm: 0.weight has 6 inputs, no multiple of 4; structure.skip=true leaves such layers dense",
        ),
        (
            Structure("nm", 2, 4, True),
            nn.Sequential(nn.Linear(6, 4)),
            "structure=nm: no layer has a multiple of 4 inputs",
        ),
    ],
)
def test_what_cannot_be_is_refused(structure, net, why):
    shape = (4,) if isinstance(net[0], nn.Linear) else (4, 1, 1)
    with pytest.raises(UserError) as refusal:
        countable(structure, net.to("meta"), shape, prunable(net, "weights"))
    assert str(refusal.value) == why


@pytest.mark.parametrize("name", ["reshuffle", "constant", "constant_signed", "reinit_signed"])
def test_other_initial_values_leave_batchnorm_alone(name):
    """Its scales are all 1: of a standard deviation of 0 a constant would silence every channel."""
    net = dense()
    mask = prune(net, MAGNITUDE, UNIFORM, "weights", Density(Fraction(1, 2)), structure=FILTER)
    assert any(m.dim() == 1 for m in mask.values())
    made = other_values(name, net, mask, 0, {})
    assert all(torch.equal(made[n], net.weights[n]) for n in net.weights if net.weights[n].dim() < 2)
