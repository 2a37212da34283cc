import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.base.seeds import derive, generator
from lthbench.data import stream as room
from lthbench.data.read import load
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import TrainingStream, draws, hashed, normalised, rotated, split

CIFAR = DataSettings("standin_cifar10", "official", Normalise("channel", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), Augment())
CROPS = replace(CIFAR, augment=Augment(4, True))


def stream(data=CIFAR, size=100, seed=3, index=(0, 0), drop_last=False):
    train = split(data, "train")
    steps = len(train) // size if drop_last else -(-len(train) // size)
    return TrainingStream(train, data.augment, size, steps, seed, index)


def epoch(s, number=0):
    """The batches of an epoch, images and labels."""
    steps = range(number * s.steps_per_epoch, (number + 1) * s.steps_per_epoch)
    xs, ys = zip(*(s.batch(step) for step in steps))
    return torch.cat(xs), torch.cat(ys)


def naive_normalise(image, how):
    """One uint8 image (H, W, C) -> float64, from the definitions."""
    pixels = image.astype(np.float64)
    if how.kind == "channel":
        return (pixels / 255 - np.array(how.mean)) / np.array(how.std)
    if how.kind == "unit":
        norm = np.sqrt((pixels**2).sum())
        return pixels / max(norm, 1e-12)
    pixels /= 255
    return (pixels - pixels.mean()) / max(pixels.std(), 1 / np.sqrt(pixels.size))


# ---- hash and draws


def by_hand(key, epoch, sample, purpose):
    """The hash in Python's whole numbers: four words through the mix, from the low one of the key."""

    def mix(h):
        h ^= h >> 16
        h = h * 0x7FEB352D % 2**32
        h ^= h >> 15
        h = h * 0x846CA68B % 2**32
        return h ^ (h >> 16)

    h = sample ^ key % 2**32
    for word in (key >> 32, epoch, purpose):
        h = mix(h) ^ word % 2**32
    return mix(h)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**20), st.integers(0, 2**31), st.integers(0, 5))
def test_the_hash_is_exact_integer_arithmetic(key, epoch, sample, purpose):
    assert hashed(key, epoch, torch.tensor([sample]), purpose).item() == by_hand(key, epoch, sample, purpose)


def test_draws_that_published_results_depend_on():
    assert hashed(derive(0, "augment", 0, 0), 3, torch.arange(5), 1).tolist() == [
        2651009036, 3829741082, 1163050579, 3923196824, 2703710971,
    ]  # fmt: skip


@given(st.integers(0, 2**63 - 1), st.integers(0, 500), st.permutations(range(20)), st.integers(1, 20))
def test_a_draw_depends_on_the_sample_and_not_on_its_company(key, epoch, order, count):
    some = torch.tensor(order[:count])
    alone, together = draws(key, epoch, some, Augment(4, True)), draws(key, epoch, torch.arange(20), Augment(4, True))
    assert all(torch.equal(a, t[some]) for a, t in zip(alone, together))


@pytest.mark.parametrize("pad", [1, 2, 4])
def test_crops_and_flips_are_uniform_and_independent(pad):
    n, places = 40000, 2 * pad + 1
    dy, dx, flip = draws(derive(1, "augment", 0, 0), 2, torch.arange(n), Augment(pad, True))
    cells = (dy * places + dx) * 2 + flip
    assert cells.min() >= 0
    assert cells.max() < 2 * places**2
    expected = n / (2 * places**2)
    chi2 = float(((torch.bincount(cells, minlength=2 * places**2) - expected) ** 2 / expected).sum())
    freedom = 2 * places**2 - 1
    assert abs(chi2 - freedom) < 5 * (2 * freedom) ** 0.5


def test_epochs_keys_and_neighbours_are_independent():
    n, crop = 20000, Augment(4, True)
    key = derive(1, "augment", 0, 0)
    first = draws(key, 0, torch.arange(n), crop)
    others = [
        draws(key, 1, torch.arange(n), crop),
        draws(key + 1, 0, torch.arange(n), crop),
        draws(derive(1, "augment", 0, 1), 0, torch.arange(n), crop),
        draws(key, 0, torch.arange(n) + 1, crop),
    ]
    for other in others:
        for a, b in zip(first, other):
            correlation = torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1]
            assert abs(correlation) < 5 / n**0.5


def test_what_is_switched_off_is_not_drawn():
    dy, dx, flip = draws(5, 0, torch.arange(1000), Augment(0, True))
    assert not dy.any()
    assert not dx.any()
    assert 400 < flip.sum() < 600
    assert not draws(5, 0, torch.arange(1000), Augment(4, False))[2].any()


# ---- splits


def test_validation_images_are_held_out_and_come_back_in_order():
    data = replace(CIFAR, validation=100, split_seed=4)
    train, val, test = (split(data, name) for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (412, 100, 256)
    assert sorted(train.samples.tolist() + val.samples.tolist()) == list(range(512))
    assert train.samples.tolist() == sorted(train.samples.tolist())
    arrays = load(data)
    assert np.array_equal(val.x, arrays.x_train[val.samples])
    assert np.array_equal(train.y, arrays.y_train[train.samples])
    assert np.array_equal(test.x, arrays.x_test)


def test_only_the_split_seed_moves_the_split():
    data = replace(CIFAR, validation=100, split_seed=4)
    held_out = split(data, "val").samples
    torch.manual_seed(99)
    for other in (replace(data, augment=Augment(4)), replace(data, normalise=Normalise())):
        assert torch.equal(split(other, "val").samples, held_out)
    for seed in (0, 1):
        assert torch.equal(stream(data, seed=seed).split.samples, split(data, "train").samples)
    assert not torch.equal(split(replace(data, split_seed=5), "val").samples, held_out)


def test_a_validation_image_is_never_trained_on():
    data = replace(CROPS, validation=100, split_seed=4)
    s = stream(data, 64)
    _, y = epoch(s)
    assert len(y) == 412
    assert torch.equal(y.bincount(), split(data, "train").y.bincount())


def test_of_what_is_left_the_first_drawn_are_trained_on():
    data = replace(CIFAR, validation=100, split_seed=4)
    few, more = (split(replace(data, train_images=n), "train").samples.tolist() for n in (50, 200))
    assert len(few) == 50 and set(few) < set(more) < set(split(data, "train").samples.tolist())
    assert few == sorted(few)
    assert torch.equal(split(replace(data, train_images=50), "val").samples, split(data, "val").samples)
    assert replace(data, train_images=50).train_samples == 50
    assert replace(data, train_images=412).train_samples == data.train_samples


# ---- normalisation


@pytest.mark.parametrize(
    "how",
    [
        Normalise("channel", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)),
        Normalise("channel", (0.5,), (0.25,)),
        Normalise("image"),
        Normalise("unit"),
    ],
    ids=lambda how: f"{how.kind}{len(how.mean)}",
)
def test_normalisation_is_its_definition(how):
    x = load(CIFAR).x_test[:40].copy()
    x[0], x[1], x[2] = 0, 255, 7  # constant images
    x[3, 0, 0, 0] = x[3].min() + 1
    made = normalised(torch.from_numpy(x), how).double().numpy()
    expected = np.stack([naive_normalise(image, how) for image in x])
    assert made.shape == x.shape
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["channel", "image", "unit"])
def test_data_normalised_once_has_the_bits_of_data_normalised_by_the_batch(kind, monkeypatch):
    data = replace(CIFAR, normalise=Normalise(kind))
    made = split.__wrapped__(data, "test")
    index = torch.tensor([5, 200, 5, 0])
    ready = made.batch(index), made.batch(slice(10, 60))
    monkeypatch.setattr(room, "READY_BYTES", 0)
    fresh = split.__wrapped__(data, "test")
    assert torch.equal(fresh.batch(index), ready[0])
    assert torch.equal(fresh.batch(slice(10, 60)), ready[1])


# ---- the stream


@given(st.integers(1, 600), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_is_a_permutation(size, number, seed):
    size = min(size, 512)
    s = stream(size=size, seed=seed)
    for step in range(number * s.steps_per_epoch, (number + 1) * s.steps_per_epoch):
        s.batch(step)
    assert s._order.sort().values.tolist() == list(range(512))
    assert torch.equal(s._order, torch.randperm(512, generator=generator(seed, "order", 0, 0, number)))


def test_batches_follow_the_order_and_the_last_one_is_short():
    s, arrays = stream(), load(CIFAR)
    order = torch.randperm(512, generator=generator(3, "order", 0, 0, 1))
    for position in range(6):
        x, y = s.batch(6 + position)
        chosen = order[position * 100 : position * 100 + 100]
        assert len(x) == len(y) == (12 if position == 5 else 100)
        assert np.array_equal(y, arrays.y_train[chosen])
        expected = np.stack([naive_normalise(arrays.x_train[i], CIFAR.normalise) for i in chosen])
        np.testing.assert_allclose(x.permute(0, 2, 3, 1).numpy(), expected, rtol=1e-5, atol=1e-5)
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64


def test_an_epoch_can_leave_out_its_last_short_batch():
    s = stream(drop_last=True)
    assert s.steps_per_epoch == 5
    assert all(len(s.batch(step)[1]) == 100 for step in range(10))
    assert len(epoch(s, 1)[1]) == 500


def crop_and_flip(image, pad, dy, dx, flip):
    """One image by hand: pad with zeros, cut out at (dy, dx), mirror."""
    height, width, channels = image.shape
    padded = np.zeros((height + 2 * pad, width + 2 * pad, channels), np.uint8)
    for i in range(height):
        padded[pad + i, pad : pad + width] = image[i]
    cut = padded[dy : dy + height, dx : dx + width]
    return cut[:, ::-1] if flip else cut


@pytest.mark.parametrize("kind", ["channel", "image", "unit"])
@pytest.mark.parametrize("augment", [Augment(4, True), Augment(2, False), Augment(0, True)], ids=str)
def test_augmentation_is_a_crop_and_a_flip_of_each_image(augment, kind):
    data = replace(CIFAR, augment=augment, normalise=Normalise(kind), validation=12)
    s = stream(data, 70, seed=6, index=(2, 1))
    x, y = s.batch(s.steps_per_epoch * 3 + 1)
    order = torch.randperm(500, generator=generator(6, "order", 2, 1, 3))[70:140]
    arrays, samples = load(data), split(data, "train").samples[order]
    dy, dx, flip = draws(derive(6, "augment", 2, 1), 3, samples, augment)
    for row, sample in enumerate(samples.tolist()):
        image = crop_and_flip(arrays.x_train[sample], augment.pad, int(dy[row]), int(dx[row]), bool(flip[row]))
        expected = naive_normalise(image, data.normalise).transpose(2, 0, 1)
        np.testing.assert_allclose(x[row].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(y, arrays.y_train[samples])
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("data", [CIFAR, CROPS], ids=["plain", "crops"])
def test_the_size_of_batches_changes_no_image(data):
    whole = epoch(stream(data, 512), 2)
    for size in (7, 100, 511):
        parts = epoch(stream(data, size), 2)
        assert torch.equal(whole[0], parts[0])
        assert torch.equal(whole[1], parts[1])


def test_a_batch_can_be_asked_for_in_any_order():
    forward, s = stream(CROPS), stream(CROPS)
    expected = {step: forward.batch(step) for step in range(14)}
    for step in (13, 2, 7, 6, 2, 0):
        x, y = s.batch(step)
        assert torch.equal(x, expected[step][0])
        assert torch.equal(y, expected[step][1])


@pytest.mark.parametrize("other", [{"seed": 4}, {"index": (0, 1)}, {"index": (1, 0)}])
def test_seed_and_index_move_order_and_augmentation(other):
    one, two = stream(CROPS), stream(CROPS, **other)
    assert not torch.equal(one.batch(0)[1], two.batch(0)[1])
    assert not torch.equal(one._dy, two._dy)
    assert not torch.equal(one._flip, two._flip)


def test_epochs_differ():
    s = stream(CROPS)
    first, _ = epoch(s, 0)
    order, dy = s._order, s._dy
    second, _ = epoch(s, 1)
    assert not torch.equal(order, s._order)
    assert not torch.equal(dy, s._dy)
    assert not torch.equal(first, second)


def test_a_stream_leaves_images_and_the_global_generator_alone():
    before, rng = load(CROPS).digest(), torch.get_rng_state()
    x, _ = stream(CROPS).batch(0)
    x.zero_()
    y, _ = stream().batch(0)
    y.zero_()
    assert load(CROPS).digest() == before
    assert stream().batch(0)[0].any()
    assert torch.equal(torch.get_rng_state(), rng)


# ---- rotation


@pytest.mark.parametrize("shape", [(32, 32), (8, 11)])
def test_rotation_is_torchvisions(shape):
    from torchvision.transforms import functional as transforms

    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (40, *shape, 3), generator=g, dtype=torch.uint8)
    angle = (torch.rand(40, generator=g, dtype=torch.float64) - 0.5) * math.pi
    turned = rotated(x, angle)
    theirs = [transforms.rotate(i.permute(2, 0, 1), math.degrees(a)) for i, a in zip(x, angle.tolist())]
    same = (turned.permute(0, 3, 1, 2) == torch.stack(theirs)).float().mean()
    assert same > 0.999  # their float32 rounds a pixel on the border of two the other way, now and then
    assert torch.equal(rotated(x, torch.zeros(40, dtype=torch.float64)), x)


def test_rotations_lie_within_their_bound_and_differ_by_image_and_epoch():
    turning = stream(replace(CIFAR, augment=Augment(rotate=15.0)))
    angles = []
    for step in (0, turning.steps_per_epoch):
        turning.batch(step)
        angles.append(turning._angle)
    bound = math.radians(15)
    assert all((a.abs() <= bound).all() and a.max() > 0.95 * bound and a.min() < -0.95 * bound for a in angles)
    assert (angles[0] != angles[1]).float().mean() > 0.99
    with pytest.raises(UserError, match="rotate"):
        Augment(rotate=-1.0)
