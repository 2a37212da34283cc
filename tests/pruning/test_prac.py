"""PrAC against the same rules written without tensors: when a round is over, what is forgotten, which images matter."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pruning.in_training import DATA, INDEX, LENET, RECIPE, SEED, equal, sparsify, start, stream

from lthbench.data.stream import TrainingStream, split
from lthbench.pruning.dynamics.prac import settled
from lthbench.pruning.dynamics.trained import dynamics
from lthbench.stages.examples import apart, hard
from lthbench.training.checkpoint import part
from lthbench.training.loop import Trajectory

SAID = {"begin": 0, "epsilon": 0.02, "queue": 2, "stop": True, "forgotten": 0, "differing": True}
ROWS = torch.arange(0, 512, 2)  # of the 512 stand-in images


def prac(density="4/5", **said):
    return sparsify("prac", density, "global", **(SAID | said))


def fewer():
    return TrainingStream(split(DATA, "train").part(ROWS), DATA.augment, 100, 3, SEED, INDEX)


def begun(how, batches, length=18, mask=None):
    net = start(LENET) if mask is None else start(LENET).masked(mask)
    return Trajectory(net, {}, RECIPE, batches, 0, 0, "cpu", partial(dynamics, how, SEED, INDEX, None), length=length)


def resumed(run, how, batches):
    moments = run.moments()
    makes = partial(dynamics, how, SEED, INDEX, part(moments, "x"))
    return Trajectory(run.checkpoint(), moments, RECIPE, batches, run.step, 0, "cpu", makes, length=run.length)


# ---- when a round is over


def naive(distances, epsilon, queue):
    """The released code's queue: it begins full of ones, and takes nothing before the first distance above epsilon."""
    entries, recording = [1.0] * queue, False
    for i, distance in enumerate(distances):
        recording = recording or distance > epsilon
        if recording:
            entries = [*entries[1:], distance]
        if max(entries) < epsilon:
            return i
    return None


@given(st.lists(st.sampled_from([0.0, 0.04, 0.07, 0.08, 0.5]), max_size=15), st.integers(1, 5))
def test_a_round_is_over_where_the_queue_says(distances, queue):
    over = [settled(distances[: i + 1], 0.07, queue) for i in range(len(distances))]
    assert (over.index(True) if True in over else None) == naive(distances, 0.07, queue)


def test_distances_are_of_the_masks_of_epochs():
    how, batches = prac(epsilon=1e-9), fewer()
    run = begun(how, batches)
    masks = []
    for step in (3, 6, 9, 12):
        run.run(step)
        w = run.checkpoint().weights
        flat = torch.cat([w[n].abs().flatten() for n in run.dynamics.net.weights])
        kept = torch.zeros(len(flat), dtype=torch.bool)
        kept[flat.argsort(descending=True, stable=True)[: len(flat) * 4 // 5]] = True
        masks.append(kept)
    expected = [int((a != b).sum()) / len(a) for a, b in zip(masks[1:], masks)]
    assert run.dynamics.distances == expected


def test_what_is_gone_stays_gone_and_is_not_counted():
    masked = {n: torch.rand(w.shape, generator=torch.Generator().manual_seed(0)) < 0.9
              for n, w in start(LENET).weights.items() if n.endswith("weight")}  # fmt: skip
    run = begun(prac("1/2", epsilon=1e-9), fewer(), mask=masked)
    run.run(9)
    made = run.checkpoint()
    assert all(torch.equal(made.mask[n], kept) for n, kept in masked.items())
    assert all(not made.weights[n][~kept].any() for n, kept in masked.items())
    lost = ~torch.cat([masked[n].flatten() for n in run.dynamics.net.weights])
    assert not run.dynamics.last[lost].any()


# ---- what is forgotten


def test_forgetting_is_counted_batch_by_batch():
    run = begun(prac(stop=False), fewer())
    seen = []
    saw = run.dynamics.saw

    def watch(logits, labels):
        seen.append((run.stream.chosen.tolist(), (logits.argmax(1) == labels).tolist()))
        saw(logits, labels)

    run.dynamics.saw = watch
    run.run(18)
    right, forgets, learned = {}, dict.fromkeys(range(len(ROWS)), 0), set()
    for rows, outcomes in seen:
        for row, good in zip(rows, outcomes):
            forgets[row] += right.get(row, False) and not good
            right[row] = good
            learned |= {row} if good else set()
    assert run.dynamics.forgets.tolist() == [forgets[i] for i in range(len(ROWS))]
    assert set(run.dynamics.learned.nonzero().flatten().tolist()) == learned
    assert sum(forgets.values()) > 0 and len(seen) == 18


def test_right_wrong_right_wrong_is_forgotten_twice():
    run = begun(prac(), fewer())
    one, labels = torch.eye(10), torch.arange(10)
    run.stream.chosen = torch.arange(10)
    for good in (True, False, True, False):
        run.dynamics.saw(one if good else one.roll(1, 0), labels)
    assert run.dynamics.forgets[:10].tolist() == [2] * 10 and run.dynamics.learned[:10].all()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=20), st.integers(0, 4))
def test_the_critical_images_on_made_up_counts(images, more_than):
    forgets, learned = (torch.tensor(side) for side in zip(*images))
    expected = [count > more_than or not ever for count, ever in images]
    assert hard(forgets, learned, more_than).tolist() == expected


def test_what_two_networks_tell_apart():
    images = split(DATA, "train")
    one, other = (
        start(LENET).network(),
        start(LENET).masked({"fc1.weight": torch.zeros(30, 64, dtype=torch.bool)}).network(),
    )
    found = apart(one, other, images)
    sides = [n.eval()(images.batch(slice(0, 512))).argmax(1).tolist() for n in (one, other)]
    assert found.tolist() == [a != b for a, b in zip(*sides)] and found.any()
    assert not apart(one, one, images).any()


# ---- what is shared with other searches


@pytest.mark.parametrize("stop", [False, True])
def test_wherever_it_is_stopped_it_ends_in_the_same_bits(stop):
    how = prac(stop=stop)
    whole, pieces = begun(how, fewer()), begun(how, fewer())
    whole.run(20)
    for step in (1, 2, 3, 5, 6, 7, 11, 12, 15, 18, 20):
        pieces.run(step)
        pieces = resumed(pieces, how, fewer())
    assert equal(pieces.checkpoint().weights, whole.checkpoint().weights)
    assert equal(pieces.moments(), whole.moments())


def test_it_ends_where_its_images_are_used_up():
    run = begun(prac(stop=False), fewer(), length=9)
    run.run(30)
    assert run.over and run.dynamics.news[9]["drawn"] == "at the limit" and run.dynamics.news[9]["images"] == len(ROWS)
    plain = Trajectory(start(LENET), {}, RECIPE, fewer(), 0)
    plain.run(9)
    assert equal(run.checkpoint().weights, plain.checkpoint().weights)


def test_all_images_are_a_part_too():
    part_of, whole = split(DATA, "train").part(torch.arange(512)), split(DATA, "train")
    assert torch.equal(part_of.samples, whole.samples) and torch.equal(
        part_of.batch(slice(0, 9)), whole.batch(slice(0, 9))
    )
    some = TrainingStream(whole.part(ROWS), DATA.augment, 100, 3, SEED, INDEX)
    some.batch(0)
    assert len(some.chosen) == 100 and some.chosen.max() < len(ROWS)
    assert stream().steps_per_epoch == 6
