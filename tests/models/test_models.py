import math

import pytest
import torch
from torch.nn import functional as F

from lthbench.base.errors import UserError
from lthbench.models import MODELS, ModelSettings, check, create, digest
from lthbench.models.resnet import PadShortcut

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


def net(name, shape, classes=10, **args):
    return create(ModelSettings.of(name, args, shape, classes))


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "args", "weights", "parameters"),
    [
        ("lenet_300_100", MNIST, 10, {}, 266200, 266610),
        ("lenet_5_caffe", MNIST, 10, {}, 430500, 431080),
        ("resnet_20", CIFAR, 10, {"shortcut": "A"}, 268336, 269722),
        ("resnet_20", CIFAR, 10, {"shortcut": "B"}, 270896, 272474),
        ("resnet_32", CIFAR, 10, {"shortcut": "A"}, 461872, 464154),
        ("resnet_32", CIFAR, 10, {"shortcut": "B"}, 464432, 466906),
        ("resnet_32", CIFAR, 200, {"shortcut": "B", "width": 2.0}, 1879904, 1885032),
        ("resnet_44", CIFAR, 10, {}, 655408, 658586),
        ("resnet_56", CIFAR, 10, {}, 848944, 853018),
        ("resnet_110", CIFAR, 10, {}, 1719856, 1727962),
        ("conv_2", CIFAR, 10, {}, 4300992, 4301642),
        ("conv_4", CIFAR, 10, {}, 2425024, 2425930),
        ("conv_6", CIFAR, 10, {}, 2261184, 2262602),
        ("vgg_11", CIFAR, 10, {}, 9222848, 9228362),
        ("vgg_13", CIFAR, 10, {}, 9407168, 9413066),
        ("vgg_16", CIFAR, 10, {"bias": True}, 14715584, 14728266),
        ("vgg_16", CIFAR, 200, {}, 14812864, 14821512),
        ("vgg_19", CIFAR, 10, {}, 20024000, 20035018),
        ("vgg_19", CIFAR, 100, {}, 20070080, 20081188),
        ("wrn", CIFAR, 10, {"depth": 16, "widen": 8}, 10954160, 10961370),
        ("wrn", CIFAR, 10, {"depth": 22, "widen": 8}, 17147312, 17158106),
        ("wrn", CIFAR, 100, {"depth": 28, "widen": 10}, 36518832, 36536884),
        ("wrn", CIFAR, 100, {"depth": 28, "widen": 10, "bias": True}, 36518832, 36546980),
        ("resnet_18", (3, 224, 224), 1000, {}, 11678912, 11689512),
        ("resnet_18", CIFAR, 100, {}, 11210432, 11220132),
        ("resnet_50", (3, 224, 224), 1000, {}, 25502912, 25557032),
    ],
)
def test_published_counts(name, shape, classes, args, weights, parameters):
    with torch.device("meta"):
        made = net(name, shape, classes, **args)
    assert count(made) == parameters
    assert sum(p.numel() for p in made.parameters() if p.dim() > 1) == weights


def lenet_300_100_parameters(shape, classes, width):
    inputs, h1, h2 = math.prod(shape), round(300 * width), round(100 * width)
    return (inputs + 1) * h1 + (h1 + 1) * h2 + (h2 + 1) * classes


def lenet_5_parameters(shape, classes, width):
    channels, height, breadth = shape
    c1, c2, hidden = round(20 * width), round(50 * width), round(500 * width)
    left = c2 * (((height - 4) // 2 - 4) // 2) * (((breadth - 4) // 2 - 4) // 2)
    return (25 * channels + 1) * c1 + (25 * c1 + 1) * c2 + (left + 1) * hidden + (hidden + 1) * classes


def resnet_20_parameters(shape, classes, width):
    w = [round(n * width) for n in (16, 32, 64)]
    total = 9 * shape[0] * w[0] + 2 * w[0]
    for inner, outer in ((w[0], w[0]), (w[0], w[1]), (w[1], w[2])):
        total += 9 * inner * outer + 5 * 9 * outer * outer + 6 * 2 * outer
    return total + (w[2] + 1) * classes


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize(
    ("name", "shape", "formula"),
    [
        ("lenet_300_100", (1, 8, 8), lenet_300_100_parameters),
        ("lenet_5_caffe", (3, 32, 28), lenet_5_parameters),
        ("resnet_20", CIFAR, resnet_20_parameters),
    ],
)
def test_counts_of_other_widths_and_classes(name, shape, formula, classes, width):
    with torch.device("meta"):
        assert count(net(name, shape, classes, width=width)) == formula(shape, classes, width)


ARGUMENTS = {"wrn": {"depth": 10, "widen": 1.0}}
BUILT_HERE = sorted(set(MODELS) - {"timm", "file"})


@pytest.mark.parametrize("name", BUILT_HERE)
def test_every_model_takes_other_shapes(name):
    check(ModelSettings.of(name, ARGUMENTS.get(name, {}), (2, 20, 31), 7))


@pytest.mark.parametrize("name", ["lenet_300_100", "lenet_5_caffe", "resnet_20"])
def test_logits_come_out(name):
    out = net(name, (2, 20, 31), 7, width=0.25)(torch.zeros(3, 2, 20, 31))
    assert out.shape == (3, 7)
    assert out.isfinite().all()


def test_lenet_300_100_is_two_hidden_layers_with_relu():
    made, x = net("lenet_300_100", (1, 8, 8)), torch.randn(5, 1, 8, 8)
    hidden = x.reshape(5, 64)
    for layer in (made.fc1, made.fc2):
        hidden = (hidden @ layer.weight.t() + layer.bias).clamp(min=0)
    torch.testing.assert_close(made(x), hidden @ made.fc3.weight.t() + made.fc3.bias)


def test_lenet_5_has_no_relu_after_its_convolutions():
    made, x = net("lenet_5_caffe", MNIST), torch.randn(3, *MNIST)
    with torch.no_grad():
        made.conv2.bias.fill_(-100.0)  # a ReLU would make all features zero
        x1 = F.max_pool2d(F.conv2d(x, made.conv1.weight, made.conv1.bias), 2, 2)
        features = F.max_pool2d(F.conv2d(x1, made.conv2.weight, made.conv2.bias), 2, 2).reshape(3, 800)
        hidden = (features @ made.fc1.weight.t() + made.fc1.bias).clamp(min=0)
        expected = hidden @ made.fc2.weight.t() + made.fc2.bias
        torch.testing.assert_close(made(x), expected, rtol=1e-4, atol=1e-4)


def test_shortcut_a_takes_every_second_pixel_and_pads_channels_on_both_sides():
    x = torch.arange(2 * 2 * 5 * 4).view(2, 2, 5, 4).float()
    out = PadShortcut(3)(x)
    assert out.shape == (2, 5, 3, 2)
    assert torch.equal(out[:, 1:3], x[:, :, [0, 2, 4]][:, :, :, [0, 2]])
    assert not out[:, [0, 3, 4]].any()


def test_sizes_inside_resnet_20():
    made = net("resnet_20", CIFAR)
    sizes = []
    for stage in (made.layer1, made.layer2, made.layer3):
        stage.register_forward_hook(lambda m, i, out: sizes.append(tuple(out.shape[1:])))
    made(torch.zeros(1, *CIFAR))
    assert sizes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_shortcut_b_is_a_projection_where_sizes_change():
    made = net("resnet_20", CIFAR, shortcut="B")
    shortcuts = {n: tuple(p.shape) for n, p in made.named_parameters() if "shortcut" in n and p.dim() > 1}
    assert shortcuts == {"layer2.0.shortcut.0.weight": (32, 16, 1, 1), "layer3.0.shortcut.0.weight": (64, 32, 1, 1)}


@pytest.mark.parametrize(
    ("name", "args", "shape", "message"),
    [
        ("lenet_5_caffe", {}, (1, 8, 8), "model lenet_5_caffe cannot take inputs of 1x8x8: its two 5x5 conv"),
        (
            "resnet_20",
            {"shortcut": "C"},
            CIFAR,
            "model resnet_20 cannot take .*: model.shortcut is 'A' or 'B', not 'C'",
        ),
        ("resnet_20", {"depth": 20}, CIFAR, "model resnet_20 cannot take .*unexpected keyword argument 'depth'"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name, args, shape, message):
    with pytest.raises(UserError, match=f"^{message}") as error:
        check(ModelSettings.of(name, args, shape, 10))
    assert "\n" not in str(error.value)


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"^unknown model 'resnet20'; did you mean 'resnet_20'\?$"):
        ModelSettings.of("resnet20", {}, CIFAR, 10)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_settings_are_restored_from_what_is_written(name):
    settings = ModelSettings.of(name, {"width": 0.5, "shortcut": "B"}, CIFAR, 10)
    assert settings.version == MODELS[name].version
    restored = ModelSettings.restored(settings.spelled_out())
    assert restored == settings
    assert hash(restored) == hash(settings)


def test_the_digest_of_a_file(tmp_path):
    (tmp_path / "w").write_bytes(b"abc")
    assert digest(str(tmp_path / "w")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(UserError, match=r"^model\.weights: no file "):
        digest(str(tmp_path))
