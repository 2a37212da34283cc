"""Every criterion scores a sample of timm's families, prunes to 90 %, and a training step stays finite."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from models.test_timm_families import CONVOLUTIONAL, OTHERS, timm
from torch.nn.functional import cross_entropy

from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CRITERIA, CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable
from lthbench.pruning.prune import prune
from lthbench.pruning.scoring import Scoring
from lthbench.training.checkpoint import Checkpoint

DATA = DataSettings("digits", "official", Normalise("image"), Augment())  # in place of its images: see `batches`
SAMPLE = ["mobilenetv3_small_050", "mobilevit_xxs", "lcnet_035"]  # the quick suite's: the smallest
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in [*CONVOLUTIONAL, *OTHERS] if name not in SAMPLE]
CHEAP = {"magnitude", "random", "lamp", *(name for name in CRITERIA if "init" in name or "final" in name)}
HOW = {
    "synflow": {"rounds": 2, "dtype": "float64"},
    "force": {"rounds": 2, "regrow": True, "mode": "train"},
    "grasp": {"mode": "train"},
    "prospr": {"mode": "train"},
}
ARGS = {"obd": {"labels": "given"}, "obs": {"block": 4}, "prospr": {"steps": 1}}
CANNOT = (
    r"criterion (grasp|prospr) cannot score timm: derivative for aten::\w+ is not implemented"  # PyTorch's
    r"|criterion bn_scale: no BatchNorm follows [\w.]+"
    r"|criterion synflow: scores of [\w.]+ are not finite"  # attention that divides by sums, with all weights positive
)


@pytest.fixture(autouse=True)
def batches(monkeypatch):
    """Two batches of four images of the network's size, from their own stream each time."""

    def draw(scoring, number):
        draws = torch.Generator().manual_seed(number)
        dtype = getattr(torch, scoring.dtype)
        x = torch.randn(8, 3, 64, 64, generator=draws).to(dtype)
        return [(x[:4], torch.arange(4)), (x[4:], torch.arange(4, 8))]

    monkeypatch.setattr("lthbench.pruning.prune.draw", draw)


@pytest.mark.parametrize("name", [*SAMPLE, *SLOW])
def test_every_criterion_scores_a_family(name):
    model = timm(name)
    dense = Checkpoint.of(model, fresh(model, "pytorch", 0, 0), {})
    initial = fresh(model, "pytorch", 1, 0).state_dict()
    total = sum(w.parameter.numel() for w in prunable(dense.network(), "weights").values())
    for criterion in CRITERIA:
        data = {"data": DATA, "seed": 0} if CRITERIA[criterion].data else {}
        how = Scoring(**{"batch": 4, "batches": 2} | data | HOW.get(criterion, {}))
        named = CriterionSettings.of(criterion, ARGS.get(criterion, {}), 0)
        target = Density(Fraction(1, 10))
        try:
            mask = prune(dense, named, Allocation("global", {}), "weights", target, 1, how, initial)
        except ValueError as error:
            assert re.fullmatch(CANNOT, str(error))
            continue
        kept = sum(int(m.sum()) for m in mask.values() if m.dtype == torch.bool)
        assert kept == target.kept(total), criterion
        if criterion in CHEAP - {"magnitude"}:  # what trains is tested once for masks of this kind
            continue
        net = dense.masked(mask).network().train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        loss = cross_entropy(net(torch.randn(4, 3, 64, 64)), torch.arange(4))
        loss.backward()
        optimizer.step()
        assert loss.isfinite() and all(p.isfinite().all() for p in net.parameters()), criterion


def test_what_cannot_be_scored_says_why_in_one_line(monkeypatch):
    def once(net):
        return torch.autograd.grad(torch.zeros(3).sum(), list(net.weights.values()))

    def undefined(net):
        return {n: torch.full_like(w, float("nan") if n == "conv2.weight" else 1.0) for n, w in net.weights.items()}

    model = ModelSettings.of("lenet_5_caffe", {"width": 0.1}, (1, 28, 28), 10)
    net = Checkpoint.of(model, fresh(model, "pytorch", 0, 0), {})
    snip = CRITERIA["magnitude"]
    for score, message in (
        (once, "criterion magnitude cannot score lenet_5_caffe: element 0 of tensors does not require grad"),
        (undefined, "criterion magnitude: scores of conv2.weight are not finite"),
    ):
        monkeypatch.setitem(CRITERIA, "magnitude", replace(snip, score=score))
        with pytest.raises(ValueError) as error:
            prune(
                net,
                CriterionSettings.of("magnitude", {}, 0),
                Allocation("global", {}),
                "weights",
                Density(Fraction(1, 2)),
            )
        assert str(error.value).startswith(message) and "\n" not in str(error.value)
