"""Accuracy on corrupted images; calibration and the worst class."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import Split, split
from lthbench.evaluation.corruptions import corrupted
from lthbench.evaluation.metrics import calibration_error, ensemble, measure
from lthbench.evaluation.robustness import robustness
from lthbench.evaluation.settings import Corruptions
from lthbench.models import ModelSettings, create

DATA = DataSettings("standin_cifar10", "official", Normalise(), Augment())
FEW = Corruptions("cifar_c", "computed", ("fog", "contrast"), (1, 3), 20)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create(ModelSettings.of("resnet_20", {"width": 0.25}, DATA.shape, DATA.classes))


def test_the_mean_and_each_corruption_by_severity(net):
    found = robustness(net, DATA, FEW, "cpu")
    assert set(found["by_corruption"]) == {"fog", "contrast"}
    every = [a for each in found["by_corruption"].values() for a in each]
    assert len(every) == 4 and found["accuracy"] == pytest.approx(sum(every) / 4)
    assert found == robustness(net, DATA, FEW, "cpu")
    more = robustness(net, DATA, replace(FEW, corruptions=("contrast",)), "cpu")
    assert more["by_corruption"]["contrast"] == found["by_corruption"]["contrast"]


def test_it_is_the_accuracy_on_images_that_are_corrupted_by_their_number(net):
    clean = split(DATA, "test")
    all_of_them = robustness(net, DATA, replace(FEW, images=None), "cpu")
    x = corrupted(clean.x.numpy(), range(len(clean)), "fog", 3, 0, "data")
    there = Split(torch.from_numpy(x), clean.y, clean.samples, DATA.normalise)
    assert all_of_them["by_corruption"]["fog"][1] == measure(net, there)["accuracy"]


def test_published_files_are_read_where_they_are(net, tmp_path):
    clean = split(DATA, "test")
    known = replace(DATA, name="standin_cifar10")
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    stored = np.random.default_rng(0).integers(0, 256, (5 * len(clean), 32, 32, 3), np.uint8)
    np.save(folder / "fog.npy", stored)
    np.save(folder / "labels.npy", clean.y.numpy().repeat(1).astype(np.uint8))
    how = Corruptions("cifar_c", "official", ("fog",), (2,), None, 0, str(tmp_path))
    import lthbench.evaluation.settings as settings

    settings.FOLDERS["standin_cifar10"] = "CIFAR-10-C"
    try:
        found = robustness(net, known, how, "cpu")
        there = Split(torch.from_numpy(stored[len(clean) : 2 * len(clean)]), clean.y, clean.samples, DATA.normalise)
        assert found["accuracy"] == measure(net, there)["accuracy"]
        np.save(folder / "labels.npy", (clean.y.numpy() + 1) % 10)
        with pytest.raises(ValueError, match="are not the labels"):
            robustness(net, known, how, "cpu")
    finally:
        del settings.FOLDERS["standin_cifar10"]


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_calibration_error_is_its_definition(samples, bins):
    total = 0.0
    for k in range(bins):
        inside = [(c, r) for c, r in samples if k / bins < c <= (k + 1) / bins or (k == 0 and c == 0)]
        if inside:
            right = sum(r for _, r in inside) / len(inside)
            total += len(inside) / len(samples) * abs(right - sum(c for c, _ in inside) / len(inside))
    confidence, right = (torch.tensor([s[i] for s in samples]) for i in (0, 1))
    edges = any(abs(c * bins - round(c * bins)) < 1e-6 for c, _ in samples)
    if not edges:
        assert calibration_error(confidence.float(), right.bool(), bins) == pytest.approx(total, abs=1e-6)


def test_calibration_error_at_the_edges():
    right = torch.tensor([True, True, False, False])
    assert calibration_error(torch.tensor([1.0, 1.0, 0.0, 0.0]), right) == 0.0
    assert calibration_error(torch.ones(4), right) == 0.5
    assert calibration_error(torch.tensor([float("nan"), 1, 1, 1]), right) is None


def test_the_worst_class_and_calibration_of_a_network(net):
    found = measure(net, split(DATA, "test"), per_class=True)
    assert found["worst_class"] == min(found["per_class"])
    assert 0 <= found["ece"] <= 1
    assert set(measure(net, split(DATA, "test"))) == {"accuracy", "loss"}


def test_an_ensemble_of_one_network_is_the_network(net):
    """I.21."""
    one = measure(net, split(DATA, "test"), per_class=True)
    for m in (1, 3):
        found = measure(ensemble([net] * m), split(DATA, "test"), per_class=True)
        assert found["accuracy"] == one["accuracy"] and found["per_class"] == one["per_class"]
        assert found["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert found["ece"] == pytest.approx(one["ece"], abs=1e-5)
