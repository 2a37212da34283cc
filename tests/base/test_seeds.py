import hashlib
import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from lthbench.base.seeds import derive, generator

names = st.tuples(
    st.integers(0, 10**6), st.sampled_from(["init", "order", "augment"]), st.lists(st.integers(0, 99), max_size=3)
)


@given(names)
def test_a_stream_is_the_sha256_of_its_name(name):
    seed, purpose, index = name
    text = str(seed) + "/" + purpose + "/" + "/".join(str(i) for i in index)
    assert derive(seed, purpose, *index) == int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2


def test_streams_that_published_results_depend_on():
    assert derive(0, "init", 0) == 7615695542073086227
    assert derive(7, "order", 0, 0, 3) == 2686871489328393169
    assert derive(1, "a") == 8256634474166575357


@given(names, names)
def test_two_names_are_two_streams(one, other):
    assert (derive(one[0], one[1], *one[2]) == derive(other[0], other[1], *other[2])) == (one == other)


def test_streams_of_one_seed_are_independent():
    streams = [("init", 0), ("init", 1), ("order", 0, 0, 0), ("order", 0, 0, 1), ("augment", 0, 0), ("score",)]
    draws = torch.stack([torch.rand(4000, generator=generator(3, *name), dtype=torch.float64) for name in streams])
    correlation = torch.corrcoef(draws)
    for i, j in itertools.combinations(range(len(streams)), 2):
        assert abs(correlation[i, j]) < 5 / 4000**0.5


def test_a_stream_touches_no_other_generator():
    before = torch.get_rng_state()
    first = torch.rand(3, generator=generator(5, "order", 1))
    torch.rand(3, generator=generator(5, "init", 1))
    assert torch.equal(first, torch.rand(3, generator=generator(5, "order", 1)))
    assert torch.equal(before, torch.get_rng_state())
