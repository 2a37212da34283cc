import pytest
import torch
from torch import nn

from lthbench.base.errors import UserError
from lthbench.models import ModelSettings, create
from lthbench.pruning.prunable import PRESETS, known, prunable, role


def net(name, shape, **args):
    return create(ModelSettings.of(name, args, shape, 10))


def count(found):
    return sum(w.parameter.numel() for w in found.values())


def test_weights_of_lenet_5_and_their_kinds():
    found = prunable(net("lenet_5_caffe", (1, 28, 28)), "weights")
    assert {name: (w.kind, tuple(w.parameter.shape)) for name, w in found.items()} == {
        "conv1.weight": ("conv", (20, 1, 5, 5)),
        "conv2.weight": ("conv", (50, 20, 5, 5)),
        "fc1.weight": ("linear", (500, 800)),
        "fc2.weight": ("output", (10, 500)),
    }
    assert list(found) == ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]


@pytest.mark.parametrize(
    ("preset", "weights"),
    [("weights", 270896), ("conv", 270256), ("conv_3x3", 267696), ("no_output", 270256)],
)
def test_presets_of_resnet_20_with_projections(preset, weights):
    assert count(prunable(net("resnet_20", (3, 32, 32), shortcut="B"), preset)) == weights


@pytest.mark.parametrize(("preset", "weights"), [("weights", 266200), ("no_output", 265200)])
def test_presets_of_lenet_300_100(preset, weights):
    assert count(prunable(net("lenet_300_100", (1, 28, 28)), preset)) == weights


@pytest.mark.parametrize("preset", ["conv", "conv_3x3"])
def test_a_network_without_such_weights_is_refused(preset):
    with pytest.raises(UserError, match=f"^prunable={preset}: this network has no such weights$"):
        prunable(net("lenet_300_100", (1, 28, 28)), preset)


def test_the_parameters_are_the_networks_own():
    model = net("lenet_300_100", (1, 8, 8))
    for name, weight in prunable(model, "weights").items():
        assert weight.parameter is dict(model.named_parameters())[name]


def test_only_convolutions_and_linear_layers_count_and_the_last_linear_is_the_output():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 4)
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.PReLU(4))
            self.head = nn.Linear(4, 2)
            self.conv = nn.Conv2d(1, 1, 1)

    kinds = {name: w.kind for name, w in prunable(Odd(), "weights").items()}
    assert kinds == {"inner.0.weight": "linear", "head.weight": "output", "conv.weight": "conv"}


def test_a_network_of_convolutions_has_no_output_layer():
    kinds = [w.kind for w in prunable(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3)), "weights").values()]
    assert kinds == ["conv", "conv"]


def test_convolutions_on_the_meta_device_are_counted():
    with torch.device("meta"):
        assert count(prunable(net("lenet_5_caffe", (1, 28, 28)), "weights")) == 430500


@pytest.mark.parametrize("name", ["resnet_20", "vgg_11"])
def test_the_encoder_of_a_network_of_images_is_all_but_its_output(name):
    model = net(name, (3, 32, 32))
    assert list(prunable(model, "encoder")) == list(prunable(model, "no_output"))


def test_the_encoder_of_a_transformer_is_its_blocks():
    """Per block 4 d^2 of attention and 8 d^2 of the MLP."""
    args = {"name": "vit_tiny_patch16_224", "version": "0"}
    vit = create(ModelSettings.of("timm", args, (3, 32, 32), 10))
    found = prunable(vit, "encoder")
    assert count(found) == 12 * 12 * 192**2
    assert all(name.startswith("blocks.") for name in found)
    assert set(prunable(vit, "weights")) - set(found) == {"patch_embed.proj.weight", "head.weight"}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("bert.embeddings.word_embeddings.weight", "embedding"),
        ("bert.encoder.layer.0.attention.self.query.weight", "attention"),
        ("bert.encoder.layer.0.attention.output.dense.weight", "attention"),
        ("bert.encoder.layer.0.intermediate.dense.weight", "mlp"),
        ("bert.encoder.layer.0.output.dense.weight", "mlp"),
        ("bert.pooler.dense.weight", "pooler"),
        ("distilbert.transformer.layer.0.ffn.lin1.weight", "mlp"),
        ("distilbert.transformer.layer.0.attention.q_lin.weight", "attention"),
        ("patch_embed.proj.weight", "embedding"),
        ("blocks.0.attn.qkv.weight", "attention"),
        ("head.weight", "head"),
        ("layer1.0.conv1.weight", "linear"),
        ("fc1.weight", "linear"),
    ],
)
def test_what_a_layer_is_for_is_in_its_name(name, what):
    assert role(name, "linear") == what
    assert role(name, "output") == "head"


def test_presets_have_names():
    assert all(known(preset) == preset for preset in PRESETS)
    with pytest.raises(UserError, match=r"^prunable: unknown preset 'weight'; did you mean 'weights'\?$"):
        known("weight")
