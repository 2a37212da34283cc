"""The file: codes against the entropy and a naive coder, gaps counted by hand, round trips, damage."""

from __future__ import annotations

import heapq
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lthbench.compress
from lthbench.base.errors import UserError
from lthbench.compress import huffman, packed
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.training.checkpoint import Checkpoint

STREAMS = st.lists(st.integers(0, 255), max_size=300).map(lambda numbers: np.array(numbers, np.uint8))
SKEWED = st.lists(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 7, 9, 255]), min_size=1, max_size=300).map(
    lambda numbers: np.array(numbers, np.uint8)
)
BITS = {"conv": 8, "linear": 5}


def naive_bits(numbers):
    """Bits of an optimal prefix code: each merge of the two rarest subtrees puts one bit before all below it."""
    heap = list(Counter(numbers.tolist()).values())
    if len(heap) == 1:
        return heap[0]
    heapq.heapify(heap)
    spent = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        spent += merged
        heapq.heappush(heap, merged)
    return spent


@given(st.one_of(STREAMS, SKEWED))
def test_codes_are_optimal_and_what_is_coded_is_read(numbers):
    table, coded = huffman.encode(numbers)
    assert np.array_equal(huffman.decode(table, coded.tobytes(), len(numbers)), numbers)
    if not len(numbers):
        assert (table, len(coded)) == (b"\0", 0)
        return
    assert len(coded) == naive_bits(numbers)
    shares = np.array(list(Counter(numbers.tolist()).values())) / len(numbers)
    entropy = -(shares * np.log2(shares)).sum()
    assert entropy - 1e-9 <= len(coded) / len(numbers) < entropy + 1 + 1e-9
    lengths = np.frombuffer(table, "<u2", table[0], 1)
    kraft = sum(int(count) * 2.0 ** -(length + 1) for length, count in enumerate(lengths))
    assert kraft == (0.5 if len(shares) == 1 else 1.0)


def test_a_stream_that_ends_early_is_no_stream():
    table, coded = huffman.encode(np.array([1, 2, 3, 1, 1, 1, 1, 1, 1, 1], np.uint8))
    with pytest.raises(ValueError, match="ends after"):
        huffman.decode(table, coded.tobytes()[:1], 100)


def naive_gaps(positions, bits):
    """Walk along; where a gap is too long for its bits, put a zero as far away as they reach."""
    at, made, real = -1, [], []
    for position in positions:
        while position - at > 2**bits:
            made.append(2**bits - 1)
            real.append(False)
            at += 2**bits
        made.append(position - at - 1)
        real.append(True)
        at = position
    return made, [i for i, is_real in enumerate(real) if is_real]


@given(st.sets(st.integers(0, 400), max_size=40), st.integers(1, 8))
def test_gaps_and_padding_zeros(positions, bits):
    where = np.array(sorted(positions), np.int64)
    made, ends = packed.gaps(where, bits)
    expected, real = naive_gaps(where.tolist(), bits)
    assert (made.tolist(), ends.tolist()) == (expected, real)


def test_the_papers_example_of_padding():
    """Figure 2: weights at 1, 4 and 15 with 3 bits; the gap of 11 is cut after 8 by a padding zero at 12."""
    made, ends = packed.gaps(np.array([1, 4, 15]), 3)
    assert (made + 1).tolist() == [2, 3, 8, 3]  # its first index counts from 0, ours from before the first weight
    assert ends.tolist() == [0, 1, 3]


def some(model, density, distinct, seed):
    """A network of few distinct weights, some of its layers without a mask, one of them perhaps empty."""
    made = Checkpoint.of(model, fresh(model, "pytorch", seed, 0), {})
    draws = np.random.default_rng(seed)
    weights, mask = dict(made.weights), {}
    for number, (name, w) in enumerate(made.weights.items()):
        if w.dim() > 1 and name.endswith("weight"):
            values = draws.normal(size=distinct).astype(np.float32)
            weights[name] = torch.from_numpy(draws.choice(values, w.shape))
            if number or density == 1:
                mask[name] = torch.from_numpy(draws.random(w.shape) < density)
    made = Checkpoint(model, weights, {}, 3 if seed % 2 else None).masked(mask)
    for name, kept in mask.items():
        made.weights[name][~kept] = 0.0  # not -0
    return made


def alike(one, other):
    assert one.model == other.model and one.diverged_at == other.diverged_at
    assert list(one.weights) == list(other.weights) and one.mask.keys() == other.mask.keys()
    for name, tensor in one.weights.items():
        mine, theirs = tensor.contiguous(), other.weights[name].contiguous()
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        assert mine.numpy().tobytes() == theirs.numpy().tobytes(), name  # also the sign of a zero
    for name, kept in one.mask.items():
        assert torch.equal(kept, other.mask[name])


MODELS = [
    ModelSettings.of("lenet_300_100", {"width": 0.05}, (1, 8, 8), 10),
    ModelSettings.of("resnet_20", {"width": 0.25}, (3, 8, 8), 10),  # BatchNorm's statistics, an integer among them
]


@settings(max_examples=25)
@given(st.sampled_from(MODELS), st.sampled_from([0.0, 0.02, 0.3, 1.0]), st.integers(1, 31), st.integers(0, 9))
def test_what_is_written_is_read_bit_for_bit(model, density, distinct, seed):
    net = some(model, density, distinct, seed)
    for index_bits in (1, 5):
        alike(packed.unpack(packed.pack(net, BITS, index_bits)[0]), net)


def test_what_bytes_are_spent_on():
    """Counted again from the network alone."""
    net = some(MODELS[0], 0.1, 20, 0)
    data, told = packed.pack(net, BITS, 3)
    for name, layer in told["layers"].items():
        weight = net.weights[name].flatten()
        kept = net.mask[name].flatten() if name in net.mask else torch.ones(len(weight), dtype=torch.bool)
        steps, real = naive_gaps(kept.nonzero()[:, 0].tolist(), 3)
        values = weight[kept].unique()
        numbers = np.zeros(len(steps), np.uint8)
        numbers[real] = torch.searchsorted(values, weight[kept]).numpy() + 1
        assert layer["total"], layer["kept"] == (len(weight), int(kept.sum()))
        assert layer["padded"] == len(steps) - int(kept.sum())
        coded = naive_bits(numbers), naive_bits(np.array(steps))
        assert layer["weight_bits_huffman"] == coded[0] / len(steps)
        assert layer["index_bits_huffman"] == coded[1] / len(steps)
        assert layer["codebook"] == 4 * len(values)
        assert layer["bytes"]["dense"] == 4 * len(weight)
        assert layer["bytes"]["pruned"] == math.ceil(len(steps) * 35 / 8)
        assert layer["bytes"]["shared"] == math.ceil(len(steps) * 8 / 8) + 4 * len(values)
        streams = sum(math.ceil(bits / 8) for bits in coded)
        assert layer["bytes"]["huffman"] == streams + layer["codebook"] + layer["tables"]
    biases = sum(4 * t.numel() for n, t in net.weights.items() if n.endswith("bias"))
    for stage in ("dense", "pruned", "shared", "huffman"):
        assert told["bytes"][stage] == biases + sum(layer["bytes"][stage] for layer in told["layers"].values())
    assert told["bytes"]["dense"] == 4 * sum(t.numel() for t in net.weights.values())
    assert told["bytes"]["file"] == len(data) > told["bytes"]["huffman"]
    assert told["rate"]["file"] == told["bytes"]["dense"] / len(data)


def test_too_many_distinct_weights_are_refused():
    with pytest.raises(UserError, match=r"'fc1.weight' has 40 distinct weights; 5 bits tell 31 apart"):
        packed.pack(some(MODELS[0], 1.0, 40, 0), BITS, 5)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_seen(where, change):
    whole = bytearray(DATA)
    whole[where % len(whole)] ^= change
    with pytest.raises(UserError, match=r"is damaged|is no compressed network"):
        packed.unpack(bytes(whole))


DATA = packed.pack(some(MODELS[0], 0.2, 9, 0), BITS, 5)[0]


def test_a_file_is_written_read_and_refused_in_one_line(tmp_path):
    net, path = some(MODELS[0], 0.2, 9, 0), tmp_path / "net.bin"
    told = lthbench.compress.write(path, net, BITS, 5)
    assert path.stat().st_size == told["bytes"]["file"]
    alike(lthbench.compress.read(path), net)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="is damaged"):
        lthbench.compress.read(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is no compressed network"):
        lthbench.compress.read(path)
    with pytest.raises(UserError, match="No such file"):
        lthbench.compress.read(tmp_path / "nothing")
