"""k-means against Lloyd's algorithm written naively, and summed gradients against autograd through the codebook."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine.small_runs import DATA, MODEL, RECIPE
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2
from torch.nn import functional as F

from lthbench.base.errors import UserError
from lthbench.compress.codebook import Tied, assigned, initial, kmeans, shared
from lthbench.data.stream import split
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.training.checkpoint import Checkpoint
from lthbench.training.loop import Trajectory

WEIGHTS = st.lists(st.integers(-40, 40), min_size=8, max_size=60, unique=True).map(
    lambda values: np.array(values, np.float64) / 32 + 1 / 7
)


def naive(values, centres, rounds):
    """Every value to the nearest centre, the upper one where two are as near; every centre to the mean of its own."""
    for _ in range(rounds):
        nearest = [max(range(len(centres)), key=lambda j: (-abs(v - centres[j]), j)) for v in values]
        moved = []
        for j, centre in enumerate(centres):
            own = [v for v, to in zip(values, nearest) if to == j]
            moved.append(sum(own) / len(own) if own else centre)
        centres = moved
    return np.array(centres)


@given(WEIGHTS, st.integers(1, 7), st.sampled_from(["linear", "density", "random"]), st.integers(1, 6))
def test_kmeans_is_lloyds_algorithm(values, clusters, how, rounds):
    begin = initial(values, clusters, how, seed=3)
    assert len(begin) == clusters and (np.diff(begin) >= 0).all()
    found = kmeans(values, begin, rounds)
    expected = naive(values, list(begin), rounds)
    if not np.allclose(found, expected, atol=1e-9):  # a tie that rounding breaks: no worse than the naive one
        assert loss(values, found) <= loss(values, expected) + 1e-9


def loss(values, centres):
    return np.square(values[:, None] - centres).min(axis=1).sum()


def test_kmeans_is_scipys_and_stays_where_it_has_converged():
    values = np.random.default_rng(0).normal(size=3000)
    begin = initial(values, 15, "linear")
    found = kmeans(values, begin, 100)
    assert np.allclose(found, kmeans2(values[:, None], begin[:, None], iter=100, minit="matrix")[0][:, 0])
    settled = kmeans(values, begin, 10_000)
    assert np.array_equal(kmeans(values, settled, 1), settled)
    assert loss(values, settled) <= loss(values, begin)


def test_where_it_begins():
    values = np.array([0.0, 1.0, 2.0, 3.0, 100.0])
    assert initial(values, 3, "linear").tolist() == [0.0, 50.0, 100.0]
    assert initial(values, 1, "density").tolist() == [2.0]
    assert set(initial(values, 3, "random", seed=1)) < set(values)
    assert initial(values, 5, "random", seed=1).tolist() == values.tolist()


def net(model=MODEL, density=0.5):
    made = Checkpoint.of(model, fresh(model, "pytorch", 0, 0), {})
    draws = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(w.shape, generator=draws) < density for n, w in made.weights.items() if w.dim() > 1}
    return made.masked(masks)


def test_kept_weights_share_values_and_nothing_else_changes():
    begun, many = net(), {"conv": 8, "linear": 3}
    made = shared(begun, many, "linear", 300, None)
    for name, weight in made.weights.items():
        if name in begun.mask:
            kept = begun.mask[name]
            assert len(weight[kept].unique()) <= 7
            assert not weight[~kept].any()
            old, new = begun.weights[name][kept].double().numpy(), weight[kept].unique().double().numpy()
            nearest = new[np.abs(old[:, None] - new).argmin(axis=1)]
            assert np.allclose(weight[kept].numpy(), nearest, atol=1e-6)
        else:
            assert torch.equal(weight, begun.weights[name])
    assert made.mask.keys() == begun.mask.keys()


def test_a_random_beginning_is_drawn_by_seed():
    one, same, other = (shared(net(), {"conv": 3, "linear": 3}, "random", 2, seed) for seed in (0, 0, 1))
    assert one.digest() == same.digest() != other.digest()


def test_more_clusters_than_weights_and_divergence_are_refused():
    with pytest.raises(UserError, match=r"compress: 255 clusters for the \d+ weights of 'fc2.weight'; say fewer bits"):
        shared(net(), {"conv": 8, "linear": 8}, "linear", 10, None)
    begun = net()
    begun.weights["fc1.weight"][0, 0] = float("nan")
    with pytest.raises(UserError, match="diverged"):
        shared(begun, {"conv": 3, "linear": 3}, "linear", 10, None)


def test_a_layer_without_weights_has_nothing_to_share():
    begun = net()
    empty = begun.masked({**begun.mask, "fc3.weight": torch.zeros_like(begun.mask["fc3.weight"])})
    made = shared(empty, {"conv": 3, "linear": 3}, "linear", 10, None)
    assert not made.weights["fc3.weight"].any()


def moving(start, recipe):
    samples = split(DATA, "train", "cpu")
    stream = samples.stream(DATA.augment, recipe.batch, recipe.steps_per_epoch(DATA.train_samples), 0, (0, 0))
    return Trajectory(start, {}, recipe, stream, 0, dynamics=lambda run: Tied(None, run))


CONV = ModelSettings.of("conv_2", {"width": 0.05}, DATA.shape, DATA.classes)


@pytest.mark.parametrize("model", [MODEL, CONV], ids=["linear", "convolutions"])
def test_shared_values_are_trained_as_autograd_says(model):
    """An independent codebook: values a parameter, weights an index_select of them, SGD by hand."""
    start = shared(net(model), {"conv": 2, "linear": 2}, "linear", 50, None)
    recipe = replace(RECIPE, momentum=0.0, weight_decay=0.0, lr=1e-3)
    run = moving(start, recipe)
    module = start.network()
    books, codes = {}, {}
    for name, kept in start.mask.items():
        values, number = start.weights[name][kept].unique(return_inverse=True)
        books[name] = values.clone().requires_grad_()
        codes[name] = torch.zeros(kept.shape, dtype=torch.int64)
        codes[name][kept] = number + 1
    free = {n: p for n, p in module.named_parameters() if n not in books}
    for step in range(5):
        x, y = run.stream.batch(step)
        weights = {
            n: torch.cat([torch.zeros(1), book]).index_select(0, codes[n].flatten()).view(codes[n].shape)
            for n, book in books.items()
        }
        out = torch.func.functional_call(module, {**free, **weights}, (x,))
        leaves = [*books.values(), *free.values()]
        grads = torch.autograd.grad(F.cross_entropy(out, y), leaves)
        with torch.no_grad():
            for leaf, grad in zip(leaves, grads):
                leaf -= recipe.lr * grad
    run.run(5)
    made = run.checkpoint()
    for name, book in books.items():
        expected = torch.cat([torch.zeros(1), book.detach()])[codes[name]]
        assert torch.allclose(made.weights[name], expected, atol=1e-5), name
        assert not torch.equal(made.weights[name], start.weights[name])
    for name, parameter in free.items():
        assert torch.allclose(made.weights[name], parameter.detach(), atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_tied_weights_stay_tied_to_the_bit(optimizer):
    start = shared(net(), {"conv": 2, "linear": 2}, "linear", 50, None)
    run = moving(start, replace(RECIPE, optimizer=optimizer, lr=1e-3))
    run.run(20)
    made = run.checkpoint()
    for name, kept in start.mask.items():
        assert not made.weights[name][~kept].any()
        for value in start.weights[name][kept].unique():
            assert len(made.weights[name][kept & (start.weights[name] == value)].unique()) == 1


def test_clusters_that_meet_stay_two_when_a_run_goes_on():
    start = shared(net(), {"conv": 2, "linear": 2}, "linear", 50, None)
    run = moving(start, RECIPE)
    kept = run.dynamics.tensors()
    for name, mask in start.mask.items():
        start.weights[name][mask] = 0.1  # they have met
    again = moving(start, RECIPE)
    resumed = Tied(kept, again)
    for name, codes in resumed.tensors().items():
        assert torch.equal(codes, kept[name])


@given(WEIGHTS, st.integers(1, 5))
def test_a_value_is_its_nearest_centres(values, clusters):
    centres = kmeans(values, initial(values, clusters, "linear"), 50)
    chosen = np.abs(values - centres[assigned(values, centres)])
    assert np.allclose(chosen, np.abs(values[:, None] - centres).min(axis=1))
