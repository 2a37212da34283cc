import math

import numpy as np
import pytest
import torch

from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import split
from lthbench.evaluation import metrics
from lthbench.evaluation.metrics import measure
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh

DATA = DataSettings("standin_digits", "official", Normalise(), Augment(), validation=50)
RESNET = ModelSettings.of("resnet_20", {"width": 0.25}, (1, 8, 8), 10)


@torch.no_grad()
def net():
    """A network that has seen some images, with no class that it prefers to all others."""
    made, x = fresh(RESNET, "kaiming_normal", 0, 0), split(DATA, "train").batch(slice(0, 50))
    for _ in range(3):
        made(x)
    made.linear.bias -= made.eval()(x).mean(0)
    return made.train()


def by_hand(module, name):
    """Accuracy, cross-entropy and accuracy of each class, image by image in float64."""
    part = split(DATA, name)
    with torch.no_grad():
        logits = module.double().eval()(part.batch(slice(None)).double()).numpy()
    right, losses = [], []
    for row, label in zip(logits, part.y.tolist()):
        right.append(row.argmax() == label)
        losses.append(math.log(sum(math.exp(v - row.max()) for v in row)) - (row[label] - row.max()))
    y = part.y.numpy()
    return np.mean(right), np.mean(losses), [float(np.mean(np.array(right)[y == c])) for c in range(10)]


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_accuracy_and_loss_are_their_definitions(name):
    made = measure(net(), split(DATA, name), per_class=True)
    accuracy, loss, classes = by_hand(net(), name)
    assert set(made) == {"accuracy", "loss", "per_class", "worst_class", "ece"}
    assert made["accuracy"] == accuracy
    assert math.isclose(made["loss"], loss, rel_tol=1e-5)
    assert np.allclose(made["per_class"], classes)
    assert len({round(a, 3) for a in made["per_class"]}) > 2


def test_classes_are_told_apart_only_where_asked():
    assert set(measure(net(), split(DATA, "val"))) == {"accuracy", "loss"}


@pytest.mark.parametrize("size", [1, 77, 256])
def test_the_size_of_batches_does_not_matter(size, monkeypatch):
    whole = measure(net(), split(DATA, "test"), per_class=True)
    monkeypatch.setattr(metrics, "BATCH", size)
    parts = measure(net(), split(DATA, "test"), per_class=True)
    assert parts["accuracy"] == whole["accuracy"]
    assert parts["per_class"] == whole["per_class"]
    assert math.isclose(parts["loss"], whole["loss"], rel_tol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_and_the_generator_are_left_as_they_were(training):
    module, rng = net().train(training), torch.get_rng_state()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    measure(module, split(DATA, "val"))
    assert all(m.training == training for m in module.modules())
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_none(value):
    module = net()
    with torch.no_grad():
        module.linear.bias[3] = value
    made = measure(module, split(DATA, "val"))
    assert made["loss"] is None
    assert 0 <= made["accuracy"] <= 1


def test_a_perfect_network():
    class Perfect(torch.nn.Module):
        def forward(self, x):
            match = [int((images == image).flatten(1).all(1).nonzero()[0]) for image in x]
            return 50.0 * torch.nn.functional.one_hot(labels[match], 10)

    part = split(DATA, "val")
    images, labels = part.batch(slice(None)), part.y
    made = measure(Perfect(), part, per_class=True)
    assert made["accuracy"] == 1.0
    assert made["loss"] < 1e-9
    assert made["per_class"] == [1.0] * 10
