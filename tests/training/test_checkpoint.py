import hashlib
import json
from dataclasses import replace

import pytest
import torch

from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.training.checkpoint import Checkpoint, part

MODEL = ModelSettings.of("resnet_20", {"width": 0.25, "shortcut": "B"}, (3, 8, 8), 10)


def net(seed=0):
    made = fresh(MODEL, "kaiming_normal", seed, 0)
    made(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))  # running statistics of its own
    return made


def half(module):
    g = torch.Generator().manual_seed(1)
    return {n: torch.rand(p.shape, generator=g) < 0.5 for n, p in module.named_parameters() if p.dim() > 1}


def dense():
    return Checkpoint.of(MODEL, net(), {})


def test_it_is_a_copy():
    module = net()
    made = Checkpoint.of(MODEL, module, {})
    before = made.digest()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(1)
    assert made.digest() == before
    assert not any(t.requires_grad for t in made.weights.values())


def test_the_network_comes_back():
    module, x = net().eval(), torch.randn(2, 3, 8, 8)
    restored = Checkpoint.of(MODEL, module, {}).network().eval()
    assert torch.equal(restored(x), module(x))
    assert list(restored.state_dict()) == list(module.state_dict())


@pytest.mark.parametrize("diverged_at", [None, 12])
@pytest.mark.parametrize("masked", [False, True])
def test_packing_and_unpacking(masked, diverged_at):
    made = replace(dense().masked(half(net())) if masked else dense(), diverged_at=diverged_at)
    tensors, meta = made.pack()
    back = Checkpoint.unpack((tensors, json.loads(json.dumps(meta))))
    assert back.model == made.model
    assert back.diverged_at == diverged_at
    assert list(back.weights) == list(made.weights)
    assert all(torch.equal(back.weights[n], t) and back.weights[n].dtype == t.dtype for n, t in made.weights.items())
    assert list(back.mask) == list(made.mask)
    assert all(torch.equal(back.mask[n], m) and m.dtype == torch.bool for n, m in made.mask.items())
    assert back.digest() == made.digest()


def test_a_mask_makes_zeros_and_leaves_the_rest():
    before, mask = dense(), half(net())
    after = before.masked(mask)
    for name, tensor in after.weights.items():
        kept = mask.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor[kept], before.weights[name][kept])
        assert (tensor[~kept] == 0).all()
    assert after.mask.keys() == mask.keys() and all(after.mask[name] is kept for name, kept in mask.items())
    assert before.mask == {}


def by_hand(weights):
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        array = tensor.numpy()
        digest.update(f"{name}|torch.{array.dtype}|".encode() + (array + array.dtype.type(0)).tobytes())
    return digest.hexdigest()


def test_the_digest_is_sha256_over_names_dtypes_and_bytes():
    made = dense()
    assert made.digest() == by_hand(made.weights)
    assert "bn1.running_mean" in made.weights
    assert "bn1.num_batches_tracked" in made.weights


def test_minus_zero_is_zero():
    made = dense()
    name = "linear.weight"
    plus, minus = (dict(made.weights) | {name: torch.full((10, 16), zero)} for zero in (0.0, -0.0))
    assert minus[name].signbit().all()
    assert replace(made, weights=plus).digest() == replace(made, weights=minus).digest()


def test_the_digest_sees_every_number_name_and_type():
    made = dense()
    digests = {made.digest()}
    for name, tensor in made.weights.items():
        changed = tensor.clone()
        changed.view(-1)[-1] += 1
        digests.add(replace(made, weights=made.weights | {name: changed}).digest())
    first = next(iter(made.weights))
    renamed = {("x" if n == first else n): t for n, t in made.weights.items()}
    retyped = made.weights | {first: made.weights[first].double()}
    digests |= {replace(made, weights=w).digest() for w in (renamed, retyped)}
    assert len(digests) == len(made.weights) + 3


def test_the_digest_sees_neither_order_nor_memory_format_nor_mask():
    made = dense()
    turned = {
        n: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for n, t in reversed(made.weights.items())
    }
    assert replace(made, weights=turned).digest() == made.digest()
    assert replace(made, mask=half(net()), diverged_at=3).digest() == made.digest()


def test_a_part_is_what_lies_below_a_name():
    tensors = {name: torch.zeros(1) for name in ("a/x", "a/y/z", "ab/x", "a")}
    assert list(part(tensors, "a")) == ["x", "y/z"]
