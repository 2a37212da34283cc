import math
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lthbench.base.errors import UserError
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.models import ModelSettings, create
from lthbench.models.initialise import INITIALISERS, fresh, given, known, pretrained

SMALL = ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 4, 4), 3)
WIDE = {
    "lenet_300_100": ModelSettings.of("lenet_300_100", {}, (1, 28, 28), 10),
    "lenet_5_caffe": ModelSettings.of("lenet_5_caffe", {}, (1, 28, 28), 10),
    "resnet_20": ModelSettings.of("resnet_20", {"shortcut": "B"}, (3, 32, 32), 10),
}


def std(scheme, weight):
    """The published standard deviation, from the shape."""
    fan_in = weight[0].numel()
    fan_out = weight.shape[0] * weight[0, 0].numel()
    return {
        "kaiming_normal": math.sqrt(2 / fan_in),
        "kaiming_normal_fan_out": math.sqrt(2 / fan_out),
        "glorot_normal": math.sqrt(2 / (fan_in + fan_out)),
        "variance_scaling": math.sqrt(1 / fan_in),
        "pytorch": math.sqrt(1 / (3 * fan_in)),
    }[scheme]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("name", sorted(WIDE))
@pytest.mark.parametrize("scheme", INITIALISERS)
def test_each_layer_has_the_published_spread(scheme, name):
    net = fresh(WIDE[name], scheme, 0, 0)
    for parameter in net.parameters():
        if parameter.dim() > 1:
            n, expected = parameter.numel(), std(scheme, parameter)
            assert abs(parameter.mean()) < 5 * expected / n**0.5
            assert abs(parameter.std() / expected - 1) < 5 / (2 * n) ** 0.5


def test_shapes_of_the_draws():
    weight = {s: fresh(WIDE["lenet_300_100"], s, 0, 0).fc1.weight for s in INITIALISERS}
    sigmas = {s: float(w.detach().abs().max()) / std(s, w) for s, w in weight.items()}
    assert sigmas["pytorch"] < 3**0.5 + 1e-4  # uniform
    assert 2.2 < sigmas["variance_scaling"] < 2 / 0.87962566 + 1e-4  # cut at two of its own deviations
    assert all(4 < sigmas[s] < 7 for s in ("kaiming_normal", "kaiming_normal_fan_out", "glorot_normal"))


@pytest.mark.parametrize("scheme", [s for s in INITIALISERS if s != "pytorch"])
def test_biases_are_zero_and_normalisation_is_the_identity(scheme):
    for model in WIDE.values():
        for name, tensor in fresh(model, scheme, 0, 0).state_dict().items():
            if name.endswith(("bias", "running_mean", "num_batches_tracked")):
                assert not tensor.any()
            elif "bn" in name or "shortcut.1" in name:
                assert torch.equal(tensor, torch.ones_like(tensor))


@pytest.mark.parametrize("scheme", INITIALISERS)
def test_weights_follow_seed_and_index_and_nothing_else(scheme):
    first = fresh(SMALL, scheme, 3, 0)
    torch.manual_seed(12345)
    assert same(first, fresh(SMALL, scheme, 3, 0))
    for other in (fresh(SMALL, scheme, 4, 0), fresh(SMALL, scheme, 3, 1)):
        for a, b in zip(first.parameters(), other.parameters()):
            assert a.dim() < 2 or (a != b).float().mean() > 0.99


@pytest.mark.parametrize("scheme", INITIALISERS)
def test_the_global_generator_is_left_alone(scheme):
    before = torch.get_rng_state()
    fresh(SMALL, scheme, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_schemes_have_names():
    for scheme in INITIALISERS:
        known(scheme)
    with pytest.raises(UserError, match=r"^model\.init: unknown 'kaiming'; did you mean 'kaiming_normal'\?$"):
        known("kaiming")


def weights():
    return {name: t + 1 for name, t in fresh(SMALL, "glorot_normal", 5, 0).state_dict().items()}


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in weights().items()}


@pytest.mark.parametrize(
    "content",
    [
        weights(),
        {"state_dict": weights(), "epoch": 3, "best": 0.9},
        {"model": weights()},
        {"model": {"state_dict": prefixed("module.")}},
        prefixed("module."),
        prefixed("model."),
        prefixed("_orig_mod."),
        prefixed("module.model."),
        prefixed("_orig_mod.module."),
        dict(reversed(weights().items())),
    ],
)
def test_given_weights_in_their_wrappers(content, tmp_path):
    path = str(tmp_path / "weights.pt")
    torch.save(content, path)
    net = given(SMALL, path)
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in net.state_dict().items())


def test_names_that_are_the_networks_own_are_left_alone(tmp_path, monkeypatch):
    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(2, 2)

    monkeypatch.setattr("lthbench.models.initialise.create", lambda model: Around())
    path = str(tmp_path / "weights.pt")
    torch.save({"module." + name: t + 1 for name, t in Around().state_dict().items()}, path)
    assert list(given(SMALL, path).state_dict()) == ["model.weight", "model.bias"]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_given_weights_from_safetensors(prefix, tmp_path):
    path = str(tmp_path / "weights.safetensors")
    save_file(prefixed(prefix), path)
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in given(SMALL, path).state_dict().items())


def test_given_weights_of_an_old_network_need_no_batch_counter(tmp_path):
    model = ModelSettings.of("resnet_20", {"width": 0.25}, (3, 8, 8), 10)
    state = fresh(model, "kaiming_normal", 1, 0).state_dict()
    path = str(tmp_path / "weights.pt")
    torch.save({name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}, path)
    assert same(given(model, path), fresh(model, "kaiming_normal", 1, 0))


def without(name):
    return {n: t for n, t in weights().items() if n != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("fc2.bias"), "has no 'fc2.bias', which lenet_300_100 needs"),
        ({}, "has no 'fc1.weight', which lenet_300_100 needs"),
        (prefixed("net."), "has no 'fc1.weight', which lenet_300_100 needs"),
        (weights() | {"fc4.weight": torch.zeros(2)}, "holds 'fc4.weight', which lenet_300_100 has not"),
        (weights() | {"fc1.weight": torch.zeros(30, 15)}, r"'fc1.weight' is \(30, 15\) in .*, \(30, 16\) in lenet"),
        ({"a": 3}, "is no state dict of tensors"),
        ([torch.zeros(3)], "is no state dict of tensors"),
        ({1: torch.zeros(3)}, "is no state dict of tensors"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(content, message, tmp_path):
    path = str(tmp_path / "weights.pt")
    torch.save(content, path)
    with pytest.raises(UserError, match=message) as error:
        given(SMALL, path)
    assert str(error.value).startswith("model.weights: ")
    assert "\n" not in str(error.value)


OTHER = ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 4, 4), 7)


@pytest.mark.parametrize("content", [weights(), {n: t for n, t in weights().items() if not n.startswith("fc3.")}])
def test_the_output_layer_is_drawn_anew_for_another_task(content, tmp_path):
    """As a fresh network of the seed has it, whatever the file has in its place."""
    path = str(tmp_path / "weights.pt")
    torch.save(content, path)
    drawn = fresh(OTHER, "glorot_normal", 7, 0).state_dict()
    for name, tensor in given(OTHER, path, ("glorot_normal", 7)).state_dict().items():
        assert torch.equal(tensor, drawn[name] if name.startswith("fc3.") else weights()[name])


def test_another_task_is_refused_with_the_way_out(tmp_path):
    path = str(tmp_path / "weights.pt")
    torch.save(weights(), path)
    with pytest.raises(UserError, match=r"\(3, 10\) in .*; model\.weights_output=fresh draws it anew$"):
        given(OTHER, path)


def test_a_library_draws_no_output_layer_by_itself(monkeypatch):
    """timm drops what it has for other classes and draws from the global generator: here the seed does."""
    import timm

    real = timm.create_model

    def fake(name, pretrained=False, **sizes):
        net = real(name, **sizes)
        net.pretrained_cfg["num_classes"] = 1000
        return net

    monkeypatch.setattr(timm, "create_model", fake)
    monkeypatch.setattr("lthbench.models.others._reachable", lambda name: None)
    model = ModelSettings.of("timm", {"name": "resnet10t", "version": "0"}, (3, 32, 32), 7)
    with pytest.raises(
        UserError, match=r"^model\.pretrained: timm's output layer is for 1000 classes, not 7; model\.w"
    ):
        pretrained(model)
    one, other, third = (pretrained(model, ("pytorch", seed)).fc.weight for seed in (1, 1, 2))
    assert torch.equal(one, other) and not torch.equal(one, third)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: Path(path).write_bytes(pickle.dumps(value, 2))])
def test_a_pickle_with_code_is_refused_and_not_run(save, tmp_path):
    path, trace = str(tmp_path / "weights.th"), tmp_path / "trace"
    save(weights() | {"extra": Payload(str(trace))}, path)
    with pytest.raises(UserError, match=r"^model\.weights: .* is no plain state dict: ") as error:
        given(SMALL, path)
    assert not trace.exists()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_damaged_file_is_refused_in_one_line(name, tmp_path):
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save(weights(), path)
    else:
        save_file(weights(), path)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"PK" + whole[100:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"^model\.weights: ") as error:
            given(SMALL, str(path))
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_pretrained_resnet_20_classifies_cifar_10_as_published(tmp_path):
    """Weights of akamaster/pytorch_resnet_cifar10; 91.73 % is also its author's number."""
    root = os.environ.get("LTHBENCH_DATA", "data")
    path = Path(root) / "resnet20-12fca82f.th"
    if not path.is_file():
        pytest.skip("no resnet20-12fca82f.th in LTHBENCH_DATA")
    from lthbench.data.read import found
    from lthbench.data.stream import split
    from lthbench.evaluation.metrics import measure

    version = found("cifar10", root)
    if version not in ("official", "rebuilt", "partial"):
        pytest.skip(f"CIFAR-10 in LTHBENCH_DATA: {version}")
    shutil.copy(path, tmp_path / "weights.th")
    net = given(ModelSettings.of("resnet_20", {}, (3, 32, 32), 10), str(tmp_path / "weights.th"))
    normalise = Normalise("channel", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    test = split(DataSettings("cifar10", version, normalise, Augment(), root=root), "test")
    assert round(measure(net, test)["accuracy"] * 10000) == 9173


def test_create_and_fresh_make_the_same_names():
    for model in WIDE.values():
        assert list(create(model).state_dict()) == list(fresh(model, "glorot_normal", 0, 0).state_dict())
