from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.pruning import select
from lthbench.pruning.select import Follower, keep_top

SHAPES = {"conv": (2, 3, 2, 2), "fc": (4, 5), "out": (3,)}
TOTAL = 47


def split(flat: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = flat.split([int(torch.tensor(s).prod()) for s in SHAPES.values()])
    return {name: part.view(shape) for (name, shape), part in zip(SHAPES.items(), parts)}


def flat(masks: dict[str, torch.Tensor]) -> list[bool]:
    return torch.cat([m.reshape(-1) for m in masks.values()]).tolist()


ALL = split(torch.ones(TOTAL, dtype=torch.bool))


def naive(scores: list[float], kept: int, alive: list[bool]) -> list[bool]:
    """Sorted by hand: the largest first, of equals the earlier."""
    order = sorted((i for i in range(len(scores)) if alive[i]), key=lambda i: (-scores[i], i))
    return [i in set(order[:kept]) for i in range(len(scores))]


@contextmanager
def sampled(size):
    """As if so many scores were many: the threshold is guessed from a sample of this size."""
    before, select.SAMPLE = select.SAMPLE, size
    yield
    select.SAMPLE = before


few_values = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 1.0, 3.0]), min_size=TOTAL, max_size=TOTAL)
any_values = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=TOTAL, max_size=TOTAL)
zero_heavy = st.lists(st.sampled_from([0.0] * 9 + [1.0]), min_size=TOTAL, max_size=TOTAL)
constant = st.floats(-5, 5, width=32).map(lambda v: [v] * TOTAL)
score_lists = few_values | any_values | zero_heavy | constant
alive_lists = st.lists(st.booleans(), min_size=TOTAL, max_size=TOTAL)


@given(score_lists, alive_lists, st.data())
def test_it_is_a_stable_sort_of_the_alive_weights(scores, alive, data):
    kept = data.draw(st.integers(0, sum(alive)))
    mask = keep_top(split(torch.tensor(scores)), kept, split(torch.tensor(alive)))
    assert flat(mask) == naive(scores, kept, alive)
    assert {name: tuple(m.shape) for name, m in mask.items()} == SHAPES
    assert all(m.dtype == torch.bool for m in mask.values())


@given(score_lists, alive_lists, st.sampled_from([1, 2, 5]), st.data())
def test_a_sample_only_says_where_to_look(scores, alive, size, data):
    """Right or wrong, the mask is the same; what is many is a matter of size alone."""
    kept = data.draw(st.integers(0, sum(alive)))
    with sampled(size):
        mask = keep_top(split(torch.tensor(scores)), kept, split(torch.tensor(alive)))
    assert flat(mask) == naive(scores, kept, alive)


@pytest.mark.parametrize("kept", [1, 1000, 150_000, 299_999, 300_000])
def test_many_scores_of_layers_that_differ(kept):
    """Scores in order of size, where a sample with a stride is at its worst, and layers of different scale."""
    scores = {"a": torch.arange(200_000) / 7.0, "b": torch.rand(100_000) * 1e-3, "c": torch.zeros(50_000)}
    alive = {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    alive["c"][:] = False
    with sampled(2**10):
        mask = keep_top(scores, kept, alive)
    assert all(torch.equal(mask[name], m) for name, m in keep_top(scores, kept, alive).items())
    assert sum(int(m.sum()) for m in mask.values()) == kept


@given(score_lists, st.integers(0, TOTAL), st.integers(0, TOTAL))
def test_masks_of_one_score_are_nested(scores, one, other):
    small, large = sorted((one, other))
    scores = split(torch.tensor(scores))
    inner, outer = flat(keep_top(scores, small, ALL)), flat(keep_top(scores, large, ALL))
    assert sum(inner) == small
    assert sum(outer) == large
    assert all(o or not i for i, o in zip(inner, outer))


@given(score_lists, score_lists, st.integers(0, TOTAL), st.integers(0, TOTAL))
def test_what_is_pruned_never_returns(first, second, one, other):
    later, earlier = sorted((one, other))
    alive = keep_top(split(torch.tensor(first)), earlier, ALL)
    again = keep_top(split(torch.tensor(second)), later, alive)
    assert all(before or not after for before, after in zip(flat(alive), flat(again)))
    assert sum(flat(again)) == later


@given(few_values, st.integers(0, TOTAL), st.sampled_from([0.5, 2.0, 1024.0]))
def test_exact_scaling_changes_nothing(scores, kept, factor):
    scores = torch.tensor(scores)
    assert flat(keep_top(split(scores * factor), kept, ALL)) == flat(keep_top(split(scores), kept, ALL))


@given(any_values, st.integers(0, TOTAL))
def test_the_order_of_the_parameters_matters_for_ties_only(scores, kept):
    forward = split(torch.tensor(scores))
    backward = dict(reversed(forward.items()))
    one, other = keep_top(forward, kept, ALL), keep_top(backward, kept, ALL)
    moved = [s for s, a, b in zip(scores, flat(one), flat({n: other[n] for n in SHAPES})) if a != b]
    assert len(set(moved)) <= 1


def test_literal_scores():
    scores = {"a": torch.tensor([[1.0, 2.0], [2.0, 0.0]]), "b": torch.tensor([2.0, 3.0])}
    alive = {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    mask = keep_top(scores, 3, alive)
    assert mask["a"].tolist() == [[False, True], [True, False]]
    assert mask["b"].tolist() == [False, True]


@given(few_values, st.integers(0, TOTAL), st.integers(0, TOTAL))
def test_memory_format_does_not_matter(scores, kept, lost):
    plain, alive = split(torch.tensor(scores)), keep_top(split(torch.arange(TOTAL) % 7 / 1.0), lost, ALL)
    kept = min(kept, lost)
    strided = plain | {
        "conv": plain["conv"].to(memory_format=torch.channels_last),
        "fc": plain["fc"].t().contiguous().t(),
    }
    assert not strided["conv"].is_contiguous()
    assert not strided["fc"].is_contiguous()
    strided_alive = alive | {"conv": alive["conv"].to(memory_format=torch.channels_last)}
    assert flat(keep_top(strided, kept, strided_alive)) == flat(keep_top(plain, kept, alive))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("scores", [torch.zeros(TOTAL), torch.arange(TOTAL) % 5 - 2.0])
def test_the_device_does_not_matter(scores):
    for kept in range(TOTAL + 1):
        there = keep_top({n: s.cuda() for n, s in split(scores).items()}, kept, ALL)
        assert flat(there) == flat(keep_top(split(scores), kept, ALL))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_refused_by_name(bad):
    scores = split(torch.zeros(TOTAL))
    scores["fc"][1, 2] = bad
    with pytest.raises(ValueError, match=r"^scores of fc are not finite$"):
        keep_top(scores, 10, ALL)


@pytest.mark.parametrize("kept", [-1, 41])
def test_more_than_is_alive_cannot_be_kept(kept):
    alive = split(torch.arange(TOTAL) < 40)
    with pytest.raises(ValueError, match=f"^cannot keep {kept} of 40 weights$"):
        keep_top(split(torch.zeros(TOTAL)), kept, alive)


def test_neither_scores_nor_masks_are_written_to():
    scores, alive = split(torch.arange(TOTAL) / 1.0), split(torch.arange(TOTAL) < 40)
    copies = {n: s.clone() for n, s in scores.items()}, {n: a.clone() for n, a in alive.items()}
    keep_top(scores, 5, alive)
    assert all(torch.equal(scores[n], copies[0][n]) and torch.equal(alive[n], copies[1][n]) for n in SHAPES)


# ---- scores that move a little


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.integers(20, 400), st.sampled_from([1e-4, 1e-2, 1.0]))
def test_a_follower_keeps_what_keep_top_keeps(seed, n, pace):
    """With ties, jumps, counts that change, scores that are no numbers, and again thereafter."""
    g = torch.Generator().manual_seed(seed)
    scores = {"a": torch.randn(n, generator=g), "b": torch.randn(n // 2, 3, generator=g)}
    everything = {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    total, follower = sum(s.numel() for s in scores.values()), Follower()
    for step in range(12):
        kept = total - step * total // 14
        scores = {
            name: (s + pace * torch.randn(s.shape, generator=g)).mul(64).round().div(64) for name, s in scores.items()
        }
        if step == 5:
            scores = {name: s * 1000 for name, s in scores.items()}
        seen = dict(scores)
        if step == 7:
            seen["a"] = torch.where(torch.arange(n) % 5 == 0, torch.nan, scores["a"])
        numbers = {name: s.nan_to_num(0.0, 0.0, 0.0) for name, s in seen.items()}
        expected = keep_top(numbers, kept, everything)
        made = follower.keep_top(seen, kept)
        assert all(torch.equal(made[name], expected[name]) for name in scores)


def test_a_follower_looks_at_few():
    g = torch.Generator().manual_seed(0)
    score, follower, whole = torch.randn(20000, generator=g), Follower(), 0
    anew = follower._anew

    def counted(*how):
        nonlocal whole
        whole += 1
        return anew(*how)

    follower._anew = counted
    for step in range(100):
        score += 1e-3 * torch.randn(20000, generator=g)
        follower.keep_top({"a": score}, 12000 - 20 * step)
    assert whole < 5
