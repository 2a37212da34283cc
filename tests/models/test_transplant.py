"""Weights and masks put into another network."""

import pytest
import torch
from engine.small_runs import DATA, MODEL

from lthbench.base.errors import UserError
from lthbench.models import ModelSettings, initialise
from lthbench.models.transplant import transplanted

OTHER = ModelSettings.of("lenet_300_100", {"width": 0.1}, DATA.shape, 7)
WIDER = ModelSettings.of("lenet_300_100", {"width": 0.2}, DATA.shape, 10)


def parts(seed=0):
    weights = initialise.fresh(MODEL, "glorot_normal", seed, 0).state_dict()
    return weights, {n: w.abs() > w.abs().median() for n, w in weights.items() if w.dim() > 1}


@pytest.mark.parametrize("model", [MODEL, OTHER], ids=["as many classes", "other classes"])
def test_all_but_the_output_layer_is_the_tickets(model):
    weights, mask = parts()
    own, kept = transplanted(model, weights, mask, ("pytorch", 5))
    drawn = initialise.fresh(model, "pytorch", 5, 0).state_dict()
    for name, tensor in own.items():
        assert torch.equal(tensor, drawn[name] if name.startswith("fc3.") else weights[name])
    assert kept.keys() == {"fc1.weight", "fc2.weight"}
    assert all(torch.equal(kept[n], mask[n]) for n in kept)


def test_kept_whole():
    weights, mask = parts()
    own, kept = transplanted(MODEL, weights, mask, None)
    assert all(torch.equal(own[n], weights[n]) for n in weights) and kept.keys() == mask.keys()


def test_what_does_not_fit_is_named():
    weights, mask = parts()
    with pytest.raises(
        UserError, match=r"'fc3\.bias' is \(10,\) in the ticket, \(7,\) in lenet_300_100; ticket_output=fresh"
    ):
        transplanted(OTHER, weights, mask, None)
    with pytest.raises(UserError, match=r"'fc1\.bias' is \(30,\) in the ticket, \(60,\) in lenet_300_100$"):
        transplanted(WIDER, weights, mask, ("pytorch", 0))
    with pytest.raises(UserError, match=r"'extra' is in the ticket only"):
        transplanted(MODEL, weights | {"extra": torch.zeros(1)}, mask, None)
