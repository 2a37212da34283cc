"""BatchNorm's statistics made anew, against statistics computed directly."""

from dataclasses import replace

import pytest
import torch
from engine.small_runs import DATA
from soups.test_average import RESNET, a_mask, network
from torch import nn

from lthbench.data.sets import Augment
from lthbench.data.stream import order, split
from lthbench.models import MODELS, ModelSettings, create
from lthbench.soups.recalibrate import recalibrated
from lthbench.soups.settings import Recalibrate

BATCH = 100
EXACT = Recalibrate("cumulative", 1.0, BATCH, DATA, None)
SMS = Recalibrate("sms", 1.0, BATCH, replace(DATA, augment=Augment(1, True)), 0)
DROPOUT = ModelSettings.of("wrn", {"depth": 10, "widen": 1, "width": 0.25, "dropout": 0.3}, DATA.shape, 10)


def is_float(name):
    return not name.endswith("num_batches_tracked")


def statistics(net):
    return {n: t for n, t in net.weights.items() if n.endswith(("running_mean", "running_var"))}


def first_layer(net):
    """What the first BatchNorm sees of all training images, (N, C, H, W), by the network's own first convolution."""
    module = net.network()
    seen = {}
    layer = next(m for m in module.modules() if isinstance(m, nn.BatchNorm2d))
    layer.register_forward_hook(lambda m, args, out: seen.update(x=args[0]))
    module.eval()
    images = split(DATA, "train")
    with torch.no_grad():
        module(images.batch(slice(0, len(images))))
    return seen["x"].double()


def test_cumulative_is_the_mean_over_all_images_computed_directly():
    net = network(0, RESNET)
    x = first_layer(net)
    found = statistics(recalibrated(net, EXACT))
    mean, var = (next(t for n, t in found.items() if n.endswith(end)) for end in ("running_mean", "running_var"))
    assert torch.allclose(mean.double(), x.mean((0, 2, 3)), atol=1e-6)
    batches = [x[i : i + BATCH] for i in range(0, len(x), BATCH)]
    weighed = sum(b.var((0, 2, 3), unbiased=True) * len(b) for b in batches) / len(x)
    assert torch.allclose(var.double(), weighed, rtol=1e-5)


def test_the_last_batches_count_most_as_sms_does_it():
    """Each layer's own momentum: an exponential mean, from (0, 1)."""
    net = network(0, RESNET)
    plain = replace(SMS, data=DATA)
    x = first_layer(net)
    expected = torch.zeros(x.shape[1]).double()
    for i in range(0, len(x), BATCH):
        expected = 0.9 * expected + 0.1 * x[i : i + BATCH].mean((0, 2, 3))
    found = next(t for n, t in statistics(recalibrated(net, plain)).items() if n.endswith("running_mean"))
    assert torch.allclose(found.double(), expected, atol=1e-6)


@pytest.mark.parametrize("how", [EXACT, SMS], ids=lambda h: h.how)
@pytest.mark.parametrize("model", [RESNET, DROPOUT], ids=lambda m: m.name)
def test_only_statistics_change_and_once_is_enough(how, model):
    net = network(1, model, a_mask(1, model))
    state = torch.get_rng_state()
    before = net.digest()
    made = recalibrated(net, how)
    assert torch.equal(torch.get_rng_state(), state) and net.digest() == before
    assert statistics(made).keys() == statistics(net).keys()
    for name, tensor in made.weights.items():
        if name not in statistics(net) and is_float(name):
            assert torch.equal(tensor, net.weights[name]), name
    assert any(not torch.equal(t, net.weights[n]) for n, t in statistics(made).items())
    assert all(torch.equal(made.mask[n], net.mask[n]) for n in net.mask)
    again = recalibrated(made, how)
    assert all(torch.equal(t, again.weights[n]) for n, t in made.weights.items())


def test_dropout_acts_in_smss_way_only():
    net = network(0, DROPOUT)
    exact, drawn = (recalibrated(net, how) for how in (EXACT, replace(SMS, data=DATA)))
    other = recalibrated(net, replace(SMS, data=DATA, seed=1))
    assert any(not torch.equal(t, other.weights[n]) for n, t in statistics(drawn).items())
    assert statistics(exact).keys() == statistics(drawn).keys()


def test_a_share_of_the_images():
    net = network(0, RESNET)
    made = recalibrated(net, replace(EXACT, share=0.25))
    counts = {int(t) for n, t in made.weights.items() if not is_float(n)}
    assert counts == {3}  # of 12 batches


def test_a_network_without_batchnorm_is_itself():
    net = network(0)
    assert recalibrated(net, EXACT) is net


@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("timm", "file")])
def test_which_networks_have_batchnorm_is_known_without_building_them(name):
    shape = (1, 28, 28) if "lenet" in name or name == "small_cnn" else (3, 32, 32)
    args = {"depth": 16, "widen": 1} if name == "wrn" else {}
    with torch.device("meta"):
        net = create(ModelSettings.of(name, args, shape, 10))
    layers = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert MODELS[name].batchnorm == bool(layers)


def test_order_of_the_empty_index_is_as_images_lie():
    assert order(0, (), 3, 10).tolist() == list(range(10))
    assert order(0, (0, 0), 3, 10).tolist() != list(range(10))
