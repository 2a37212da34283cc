"""Critical compression: the search, and what SynFlow's paper says of layers that collapse."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.evaluation.critical import STEPS, search
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CRITERIA, CriterionSettings, Subject
from lthbench.pruning.density import Density
from lthbench.pruning.prune import prune
from lthbench.pruning.scoring import Scoring
from lthbench.pruning.select import keep_top
from lthbench.training.checkpoint import Checkpoint

GLOBAL = Allocation("global", {})
STANDIN = DataSettings(
    "standin_cifar10", "official", Normalise("channel", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), Augment()
)
SYNFLOW = Scoring(rounds=100, dtype="float64")


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 400), min_size=2, max_size=5))
def test_the_search_finds_what_trying_all_finds(seed, sizes):
    draws = torch.Generator().manual_seed(seed)
    scores = {str(i): torch.randn(n, generator=draws) + i for i, n in enumerate(sizes)}
    everything = {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    total = sum(sizes)

    def take(density):
        return keep_top(scores, density.kept(total), everything)

    found = search(take, total, len(sizes), lambda mask: True)
    i = 0
    while all(m.any() for m in take(Density(Fraction(round(total / 10 ** ((i + 1) / STEPS)), total))).values()):
        i += 1
    assert found.log10 == i / STEPS
    assert found.kept == round(total / 10 ** (i / STEPS))
    assert all(m.any() for m in take(Density(Fraction(found.kept, total))).values())


def start(name, **arguments):
    model = ModelSettings.of(name, arguments, (3, 32, 32), 10)
    return Checkpoint.of(model, fresh(model, "kaiming_normal", 0, 0), {})


def collapsed(mask):
    return [name for name, m in mask.items() if not m.any()]


def synflow_holds(net, exponents):
    """Exact counts, and no empty layer at each compression but projections: the other way round a block is open."""
    criterion = CriterionSettings.of("synflow", {}, 0)
    for exponent in exponents:
        density = Density(Fraction(1, 10**exponent))
        mask = prune(net, criterion, GLOBAL, "weights", density, scoring=SYNFLOW)
        total = sum(m.numel() for m in mask.values())
        assert sum(int(m.sum()) for m in mask.values()) == density.kept(total)
        assert [name for name in collapsed(mask) if ".downsample." not in name] == []


def test_synflow_keeps_every_layer_of_a_narrow_vgg():
    synflow_holds(start("vgg_11", width=0.0625), (1, 3))


@pytest.mark.slow  # two minutes: a hundred passes for each compression; results/critical has VGG-16 at full width
@pytest.mark.parametrize(
    ("name", "arguments"), [("vgg_11", {"width": 0.5}), ("vgg_16", {"width": 0.5}), ("resnet_18", {})]
)
def test_synflow_keeps_every_layer(name, arguments):
    synflow_holds(start(name, **arguments), (1, 2, 3))


def flows(name, arguments):
    """The sum of SynFlow's scores over each layer."""
    net = start(name, **arguments).network().double().eval()
    weights = {n: p for n, p in net.named_parameters() if p.dim() > 1}
    mask = {n: torch.ones_like(p, dtype=torch.bool) for n, p in weights.items()}
    subject = Subject(net, (3, 32, 32), weights, mask, {n: p.detach().clone() for n, p in weights.items()})
    return {n: float(s.sum()) for n, s in CRITERIA["synflow"].score(subject).items()}


@pytest.mark.parametrize(("name", "arguments"), [("vgg_11", {"width": 0.25}), ("vgg_16", {"width": 0.125})])
def test_synflow_sums_to_the_flow_in_every_layer(name, arguments):
    sums = list(flows(name, arguments).values())
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-12)


@pytest.mark.parametrize(("name", "arguments"), [("resnet_18", {}), ("resnet_20", {"shortcut": "B"})])
def test_synflow_splits_between_a_block_and_its_shortcut(name, arguments):
    sums = flows(name, arguments)
    flow, last = sums.pop("conv1.weight"), sums.popitem()[1]
    assert last == pytest.approx(flow, rel=1e-12)
    blocks = {n.removesuffix(".conv1.weight"): s for n, s in sums.items() if n.endswith(".conv1.weight")}
    projected = 0
    for block, inner in blocks.items():
        assert sums.pop(f"{block}.conv2.weight") == pytest.approx(sums.pop(f"{block}.conv1.weight"), rel=1e-12)
        around = next((n for n in sums if n.startswith(f"{block}.")), None)
        if around is None:
            assert 0 < inner < flow  # the rest runs past it
        else:
            assert inner + sums.pop(around) == pytest.approx(flow, rel=1e-12)
            projected += 1
    assert not sums and projected == {"resnet_18": 3, "resnet_20": 2}[name]


def one_shot(name, net):
    """A criterion's mask-taker with its scores of one look."""
    how = {"magnitude": Scoring(), "snip": Scoring(data=STANDIN, seed=0, batch=32)}
    how["grasp"] = Scoring(data=STANDIN, seed=0, batch=20, mode="train")
    how["synflow"] = SYNFLOW
    criterion = CriterionSettings.of(name, {}, 0)
    return lambda density: prune(net, criterion, GLOBAL, "weights", density, scoring=how[name])


def total_of(net):
    return sum(w.numel() for n, w in net.weights.items() if n.endswith("weight") and w.dim() > 1)


@pytest.mark.parametrize("name", ["magnitude", "snip", "grasp"])
def test_one_look_empties_a_layer(name):
    """Where SynFlow still keeps all (above)."""
    assert collapsed(one_shot(name, start("vgg_11", width=0.0625))(Density(Fraction(1, 1000))))


def searched(net, methods):
    """The critical compression of each method, and the most that any mask can reach."""
    layers, total = sum(1 for n, w in net.weights.items() if n.endswith("weight") and w.dim() > 1), total_of(net)
    return {name: search(one_shot(name, net), total, layers, lambda mask: None) for name in methods}


def goes_furthest(found):
    """SynFlow ends where there are fewer weights than layers; methods of one look have emptied a layer before."""
    far = found.pop("synflow")
    assert far.empty == [] and far.kept >= far.layers > round(far.total / 10 ** (far.log10 + 1 / STEPS))
    for critical in found.values():
        assert critical.empty and critical.log10 < far.log10


def test_synflow_goes_as_far_as_a_mask_can():
    goes_furthest(searched(start("vgg_11", width=0.0625), ("synflow", "magnitude", "snip")))


@pytest.mark.slow  # a minute: a search of SynFlow is eight times a hundred passes
def test_synflow_goes_as_far_as_a_mask_can_on_vgg_16():
    goes_furthest(searched(start("vgg_16", width=0.25), ("synflow", "magnitude", "snip", "grasp")))


@pytest.mark.slow  # a minute: a whole network, searched
def test_one_look_empties_a_layer_of_resnet_18():
    """In the blocks themselves, which SynFlow keeps (above), and while there are far more weights than layers."""
    for critical in searched(start("resnet_18"), ("magnitude", "snip", "grasp")).values():
        assert critical.empty and critical.kept > 50 * critical.layers
