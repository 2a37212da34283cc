"""GMP, SET and RigL against the same rules written without tensors, and what their papers say of them."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from pruning.in_training import RECIPE, SAID, begun, draws, equal, sparsify

from lthbench.pruning.density import Density
from lthbench.pruning.dynamics import left


def counts(run):
    return {name: int(kept.sum()) for name, kept in run.checkpoint().mask.items()}


# ---- GMP


def test_the_cubic_schedule_is_that_of_the_paper():
    """Ten prunings to 0.9 (METHODS D10), and the ends, exactly."""
    steps = [float(Fraction(9, 10) * (1 - left(t, 100, 1100))) for t in range(200, 1101, 100)]
    table = [0.2439, 0.4392, 0.5913, 0.7056, 0.7875, 0.8424, 0.8757, 0.8928, 0.8991, 0.9]
    assert steps == pytest.approx(table, abs=5e-5)
    assert [left(t, 100, 1100) for t in (0, 100, 1100, 5000)] == [1, 1, 0, 0]
    risen = [1 - left(t, 3, 17) for t in range(20)]
    assert risen == sorted(risen)
    assert left(4, 4, 4) == 0  # at once


def test_gmp_keeps_what_the_schedule_says_and_never_takes_back():
    run = begun(sparsify("gmp", "1/10", every=3, begin=2, end=9, allocation="global"))
    masks, total = [], 2320
    for step in range(1, 14):
        run.run(step)
        masks.append(torch.cat([kept.flatten() for kept in run.checkpoint().mask.values()]))
        due = [t for t in (2, 5, 8, 9) if t <= step]
        density = Fraction(1, 10) + Fraction(9, 10) * left(due[-1], 2, 9) if due else Fraction(1)
        assert int(masks[-1].sum()) == Density(density).kept(total)
    assert all(not (later & ~earlier).any() for earlier, later in pairwise(masks))


def test_gmp_takes_the_smallest_after_the_step():
    how = sparsify("gmp", "1/4", begin=0, end=8, every=4)
    run = begun(how)
    run.run(3)
    before = run.checkpoint()
    plain = begun(sparsify("gmp", "1/4", begin=9, end=9))  # the same training, not yet pruned
    plain.run(4)
    run.run(4)
    density = Fraction(1, 4) + Fraction(3, 4) * left(4, 0, 8)
    made = run.checkpoint()
    sizes = {name: kept.numel() for name, kept in made.mask.items()}
    whole = Density(density).kept(sum(sizes.values()))
    for name, kept in made.mask.items():
        assert before.mask[name].all()
        trained = plain.checkpoint().weights[name].flatten()
        ranked = sorted(range(len(trained)), key=lambda i: (-abs(float(trained[i])), i))
        assert abs(int(kept.sum()) - whole * sizes[name] / 2320) < 1
        assert set(kept.flatten().nonzero().flatten().tolist()) == set(ranked[: int(kept.sum())])
        assert torch.equal(made.weights[name][kept], trained.view(kept.shape)[kept])


def test_a_first_pruning_at_the_beginning():
    run = begun(sparsify("gmp", "1/4", begin=0, end=8, initial="0.5"))
    assert sum(counts(run).values()) == 1160
    run.run(8)
    assert sum(counts(run).values()) == 580


# ---- SET and RigL


@pytest.mark.parametrize("name", ["set", "rigl"])
def test_as_many_weights_in_each_layer_throughout(name):
    run = begun(sparsify(name, "1/5", allocation="erk"))
    first, masks = counts(run), []
    for step in range(1, 14):
        run.run(step)
        masks.append(run.checkpoint().mask)
        assert counts(run) == first
    changes = [step for step, (a, b) in enumerate(pairwise(masks), 2) if not equal(a, b)]
    assert changes == ([4, 8] if name == "set" else [5, 9])  # set: after steps 4 and 8; rigl: in steps 4 and 8


def test_rigl_leaves_a_step_out_where_it_changes_the_mask():
    run = begun(sparsify("rigl"))
    run.run(4)
    before, moments = run.checkpoint(), run.moments()
    run.run(5)
    after = run.checkpoint()
    for name, kept in after.mask.items():
        old = before.mask[name]
        assert torch.equal(after.weights[name][kept & old], before.weights[name][kept & old])
        new = kept & ~old
        assert new.any() and not after.weights[name][new].any()
        assert not run.moments()[f"{name}/momentum_buffer"][new].any()
        stays = run.moments()[f"{name}/momentum_buffer"][kept & old]
        assert torch.equal(stays, moments[f"{name}/momentum_buffer"][kept & old])
    for name, weight in after.weights.items():
        assert name in after.mask or torch.equal(weight, before.weights[name])


def test_rigl_on_made_up_gradients():
    """Against lists: the smallest weights go, then the largest gradients come, of all that are not there by then."""
    run = begun(sparsify("rigl", "1/3"))
    run.run(2)
    parameters, g = dict(run.net.named_parameters()), torch.Generator().manual_seed(0)
    for name in run.mask:
        made = torch.randint(-9, 10, parameters[name].shape, generator=g).float()  # with many ties
        parameters[name].grad = made
    weights = {n: parameters[n].detach().flatten().tolist() for n in run.mask}
    grads = {n: parameters[n].grad.flatten().tolist() for n in run.mask}
    masks = {n: kept.flatten().tolist() for n, kept in run.mask.items()}
    assert run.dynamics.backward(4) is False
    share = 0.3 / 2 * (1 + math.cos(math.pi * 4 / 12))
    for name, old in masks.items():
        there = [i for i, kept in enumerate(old) if kept]
        goes = int(share * len(there))
        stays = sorted(there, key=lambda i: (-abs(weights[name][i]), i))[: len(there) - goes]
        others = [i for i in range(len(old)) if i not in set(stays)]
        comes = sorted(others, key=lambda i: (-abs(grads[name][i]), i))[:goes]
        assert goes > 5
        assert run.mask[name].flatten().nonzero().flatten().tolist() == sorted(stays + comes)
        kept = set(stays) | (set(comes) & set(there))
        expected = [w if i in kept else 0.0 for i, w in enumerate(weights[name])]
        assert parameters[name].detach().flatten().tolist() == expected


def test_the_share_that_rigl_exchanges():
    run = begun(sparsify("rigl"))
    share = run.dynamics.share
    assert share(0) == pytest.approx(0.3) and share(12) == pytest.approx(0) and share(6) == pytest.approx(0.15)


def test_set_takes_the_weights_next_to_zero_of_each_sign():
    how = sparsify("set", "1/3", every=5)
    run, plain = begun(how), begun(sparsify("set", "1/3", every=13, end=13))
    run.run(4)
    plain.run(5)
    assert equal(plain.checkpoint().mask, run.checkpoint().mask)
    old, trained = run.checkpoint().mask, plain.checkpoint().weights
    run.run(5)
    made, chance = run.checkpoint(), draws("grow", 5)
    for name, kept in made.mask.items():
        values = trained[name].flatten().tolist()
        there = [i for i, k in enumerate(old[name].flatten().tolist()) if k]
        positive = sorted((i for i in there if values[i] > 0), key=lambda i: (-values[i], i))
        negative = sorted((i for i in there if values[i] < 0), key=lambda i: (values[i], i))
        stays = [side[: len(side) - int(0.3 * len(side))] for side in (positive, negative)]
        stays = set(stays[0] + stays[1])
        drawn = torch.rand(kept.shape, generator=chance).flatten().tolist()
        others = sorted((i for i in range(len(values)) if i not in stays), key=lambda i: -drawn[i])
        comes = set(others[: len(there) - len(stays)])
        assert set(kept.flatten().nonzero().flatten().tolist()) == stays | comes
        expected = [v if i in stays else 0.0 for i, v in enumerate(values)]
        assert made.weights[name].flatten().tolist() == expected


def test_a_dense_layer_of_set_is_left_alone():
    run = begun(sparsify("set", "9/10", allocation="erk"))
    full = [name for name, kept in run.mask.items() if kept.all()]
    assert full
    plain = begun(sparsify("set", "9/10", allocation="erk", every=13, end=13))
    run.run(4)
    plain.run(4)
    assert equal({n: run.checkpoint().weights[n] for n in full}, {n: plain.checkpoint().weights[n] for n in full})


def test_random_starts_differ_by_seed_alone():
    one, other = begun(sparsify("rigl")), begun(sparsify("set"))
    assert equal(one.mask, other.mask)
    assert SAID["rigl"]["end"] > 0 and RECIPE.momentum
