"""The contract of a criterion, for every one that is registered, and the two that need no data."""

import pytest
import torch

from lthbench.base.errors import UserError
from lthbench.base.seeds import generator
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.criteria import CRITERIA, CriterionSettings, Subject
from lthbench.pruning.prunable import prunable

NETS = [
    ModelSettings.of("lenet_300_100", {}, (1, 8, 8), 10),
    ModelSettings.of("resnet_20", {"width": 0.25, "shortcut": "B"}, (3, 8, 8), 10),
]


def subject(model, name, seed=0):
    """A network half pruned, with gradients; in training mode but for one layer where no data can move buffers."""
    known = CRITERIA[name]
    net = fresh(model, "kaiming_normal", 1, 0).train(not known.data)
    next(net.children()).eval()
    weights = {n: w.parameter for n, w in prunable(net, "weights").items()}
    original = {n: w.detach().clone() for n, w in weights.items()}
    mask = {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()}
    for n, kept in mask.items():
        kept.view(-1)[::2] = False
        weights[n].data.mul_(kept)
    for p in net.parameters():
        p.grad = torch.full_like(p, 0.25)
    g = torch.Generator().manual_seed(4)
    batches = [(torch.randn(8, *model.shape, generator=g), torch.randint(0, 10, (8,), generator=g)) for _ in range(2)]
    initial = {n: t.clone() for n, t in fresh(model, "kaiming_normal", 0, 0).state_dict().items()}
    draws = generator(seed, "score") if known.random else None
    return net, Subject(net, model.shape, weights, mask, original, batches, initial, draws)


@pytest.mark.parametrize("model", NETS, ids=lambda m: m.name)
@pytest.mark.parametrize("name", sorted(CRITERIA))
class TestContract:
    def test_one_finite_score_a_weight(self, name, model):
        _, seen = subject(model, name)
        scores, _ = CRITERIA[name].look(seen)
        assert list(scores) == list(seen.weights)
        for n, score in scores.items():
            assert score.shape == seen.weights[n].shape
            assert score.isfinite().all()
            assert not score.requires_grad

    def test_the_same_twice(self, name, model):
        first, second = (CRITERIA[name].look(subject(model, name)[1])[0] for _ in range(2))
        assert all(torch.equal(first[n], second[n]) for n in first)

    def test_everything_is_left_as_it_was_found(self, name, model):
        net, seen = subject(model, name)
        state = {n: t.clone() for n, t in net.state_dict().items()}
        modes = [m.training for m in net.modules()]
        rng = torch.get_rng_state()
        scores, _ = CRITERIA[name].look(seen)
        for score in scores.values():
            score.add_(1.0)  # the caller's own: not the weights under another name
        assert all(torch.equal(t, state[n]) for n, t in net.state_dict().items())
        assert [m.training for m in net.modules()] == modes
        assert all(p.requires_grad for p in net.parameters())
        assert all(torch.equal(p.grad, torch.full_like(p, 0.25)) for p in net.parameters())
        assert torch.equal(torch.get_rng_state(), rng)

    def test_only_the_random_ones_depend_on_the_seed(self, name, model):
        first, second = (CRITERIA[name].look(subject(model, name, seed)[1])[0] for seed in (0, 1))
        assert all(torch.equal(first[n], second[n]) != CRITERIA[name].random for n in first)


def test_magnitude_is_the_absolute_value():
    _, seen = subject(NETS[1], "magnitude")
    for n, score in CRITERIA["magnitude"].score(seen).items():
        assert score.flatten().tolist() == [abs(w) for w in seen.weights[n].flatten().tolist()]


def test_random_scores_are_uniform():
    _, seen = subject(NETS[0], "random")
    scores = torch.cat([s.flatten() for s in CRITERIA["random"].score(seen).values()])
    n = scores.numel()
    expected = n / 20
    chi2 = float(((torch.histc(scores, 20, 0, 1) - expected) ** 2 / expected).sum())
    assert chi2 < 19 + 5 * (2 * 19) ** 0.5


def test_settings_of_a_criterion_carry_version_and_seed_if_it_draws():
    assert CriterionSettings.of("random", {}, 7) == CriterionSettings("random", 1, {}, 7)
    assert CriterionSettings.of("magnitude", {}, 7) == CriterionSettings.of("magnitude", {}, 8)
    with pytest.raises(UserError, match=r"^unknown criterion 'magntude'; did you mean 'magnitude'\?$"):
        CriterionSettings.of("magntude", {}, 0)


def test_each_criterion_says_what_it_is():
    assert all(c.what and c.version >= 1 and c.name == name for name, c in CRITERIA.items())
