import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import TrainingStream, split
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.training.checkpoint import Checkpoint
from lthbench.training.loop import Trajectory, _optimizer, _Update
from lthbench.training.recipe import PRECISIONS, LrSchedule, Recipe

DATA = DataSettings("standin_digits", "official", Normalise(), Augment(1, True))
LENET = ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 8, 8), 10)  # 64-30-10-10
RESNET = ModelSettings.of("resnet_20", {"width": 0.25, "shortcut": "B"}, (1, 8, 8), 10)
DROPS = ModelSettings.of("conv_2", {"width": 0.1, "dropout": 0.5}, (1, 8, 8), 10)
BATCH, PER_EPOCH = 100, 6
CONSTANT = LrSchedule("constant")
OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "lr": 0.05},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9},
    "nesterov": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam", "lr": 1e-3, "eps": 1e-4},
    "adamw": {"optimizer": "adamw", "lr": 1e-3, "eps": 1e-4},
}


def recipe(name="nesterov", schedule=CONSTANT, **values):
    return Recipe(**{"batch": BATCH, "schedule": schedule, "weight_decay": 0.01} | OPTIMIZERS[name] | values)


def stream(seed=0):
    return TrainingStream(split(DATA, "train"), DATA.augment, BATCH, PER_EPOCH, seed, (0, 0))


def dense(model=LENET, seed=0):
    return Checkpoint.of(model, fresh(model, "kaiming_normal", seed, 0), {})


def half(checkpoint):
    g = torch.Generator().manual_seed(1)
    return {n: torch.rand(w.shape, generator=g) < 0.5 for n, w in checkpoint.weights.items() if w.dim() > 1}


def trained(start, recipe, steps, moments=None, step=0, first=0):
    run = Trajectory(start, moments or {}, recipe, stream(), step, first)
    run.run(steps)
    return run


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


# ---- what is pruned stays zero


@pytest.mark.parametrize(
    ("name", "model", "precision"),
    [
        *((name, LENET, "float32") for name in OPTIMIZERS),
        *((name, RESNET, "float32") for name in ("nesterov", "adamw")),
        *((name, LENET, precision) for name in ("nesterov", "adam") for precision in ("bf16", "fp16")),
    ],
    ids=lambda v: getattr(v, "name", v),
)
def test_pruned_weights_and_their_moments_are_zero_after_ten_steps(name, model, precision):
    how = recipe(name, precision=precision, clip=1.0)
    before = trained(dense(model), how, 3)  # so that there are moments to mask
    mask = half(before.checkpoint())
    run = trained(before.checkpoint().masked(mask), how, 13, before.moments(), step=3)
    after, moments = run.checkpoint(), run.moments()
    states = {"sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2, "adamw": 2}[name]
    for weight, kept in mask.items():
        assert (after.weights[weight][~kept] == 0).all()
        assert (after.weights[weight][kept] != before.checkpoint().weights[weight][kept]).float().mean() > 0.9
        own = [state for key, state in moments.items() if key.startswith(weight + "/") and state.dim()]
        assert len(own) == states
        for state in own:
            assert (state[~kept] == 0).all()
            assert (state[kept] != 0).float().mean() > 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("spared", [True, False])
def test_the_update_is_the_optimisers_own_step_bit_for_bit(name, spared):
    """The library's step() on a second network is the oracle; now and then a parameter has no gradient."""
    how = recipe(name, decay="weights" if spared else "all")
    nets = [dense().network() for _ in range(2)]
    ours, theirs = (_optimizer(net, how) for net in nets)
    update = _Update(ours, how)
    g = torch.Generator().manual_seed(0)
    for i in range(6):
        for p, q in zip(nets[0].parameters(), nets[1].parameters()):
            p.grad = torch.randn(p.shape, generator=g)
            q.grad = p.grad.clone()
        if i == 3:
            nets[0].fc2.bias.grad = nets[1].fc2.bias.grad = None
        update()
        theirs.step()
    assert equal(nets[0].state_dict(), nets[1].state_dict())


def test_nothing_masked_is_the_dense_run():
    ones = {n: torch.ones_like(kept) for n, kept in half(dense()).items()}
    one, other = trained(dense(), recipe(), 8), trained(dense().masked(ones), recipe(), 8)
    assert one.checkpoint().digest() == other.checkpoint().digest()


def smaller(checkpoint, model, units):
    """The LeNet of the chosen hidden units alone."""
    first, second = units
    rows = {"fc1": first, "fc2": second, "fc3": slice(None)}
    columns = {"fc1": slice(None), "fc2": first, "fc3": second}
    weights = {}
    for layer in rows:
        weights[f"{layer}.weight"] = checkpoint.weights[f"{layer}.weight"][rows[layer]][:, columns[layer]].clone()
        weights[f"{layer}.bias"] = checkpoint.weights[f"{layer}.bias"][rows[layer]].clone()
    return Checkpoint(model, weights)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_whole_units_masked_train_as_the_smaller_network(name):
    big = ModelSettings.of("lenet_300_100", {"width": 0.2}, (1, 8, 8), 10)  # 60, 20
    g = torch.Generator().manual_seed(2)
    units = [torch.randperm(n, generator=g)[: n // 2].sort().values for n in (60, 20)]
    start = dense(big)
    keep1, keep2 = torch.zeros(60, dtype=torch.bool), torch.zeros(20, dtype=torch.bool)
    keep1[units[0]], keep2[units[1]] = True, True
    mask = {
        "fc1.weight": keep1[:, None].expand(60, 64),
        "fc2.weight": keep2[:, None] & keep1[None, :],
        "fc3.weight": keep2[None, :].expand(10, 20),
    }
    masked = trained(start.masked(mask), recipe(name), 10).checkpoint()
    small = trained(smaller(start, LENET, units), recipe(name), 10).checkpoint()
    expected = smaller(masked, LENET, units).weights
    for n, tensor in small.weights.items():
        torch.testing.assert_close(tensor, expected[n], rtol=1e-4, atol=1e-5)


# ---- the arithmetic, against a loop by hand in float64


def by_hand(start, how, steps):
    """Forward, loss, gradient and update from the formulas, parameter by parameter, in float64."""
    net = start.network().double().train()
    parameters, batches, state = dict(net.named_parameters()), stream(), {}
    for step in range(steps):
        x, y = batches.batch(step)
        log_p = net(x.double()).log_softmax(1)
        e = how.label_smoothing
        losses = -(1 - e) * log_p[torch.arange(len(y)), y] - e / log_p.shape[1] * log_p.sum(1)
        grads = dict(zip(parameters, torch.autograd.grad(losses.mean(), list(parameters.values()))))
        for n, w in parameters.items():
            if how.decay == "all" or w.dim() > 1:
                grads[n] = grads[n] + how.l1 * w.detach().sign()
        grads = {n: g * start.mask[n] if n in start.mask else g for n, g in grads.items()}
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
        if how.clip and norm > how.clip:
            grads = {n: g * how.clip / norm for n, g in grads.items()}
        lr = how.lr * how.schedule.factor(step)
        with torch.no_grad():
            for n, w in parameters.items():
                g = grads[n]
                decay = how.weight_decay if how.decay == "all" or w.dim() > 1 else 0.0
                if how.optimizer == "adamw":
                    w *= 1 - lr * decay
                else:
                    g = g + decay * w
                if how.optimizer == "sgd":
                    state[n] = how.momentum * state[n] + g if n in state else g
                    w -= lr * (g + how.momentum * state[n] if how.nesterov else state[n] if how.momentum else g)
                else:
                    b1, b2 = how.betas
                    m, v = state.get(n, (0.0, 0.0))
                    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
                    state[n] = m, v
                    w -= lr * (m / (1 - b1 ** (step + 1))) / ((v / (1 - b2 ** (step + 1))).sqrt() + how.eps)
    return {n: t.float() if t.is_floating_point() else t for n, t in net.state_dict().items()}


def same_as_by_hand(start, how, steps=8, tolerance=1e-4):
    made, expected = trained(start, how, steps).checkpoint(), by_hand(start, how, steps)
    moved = 0
    for name, tensor in made.weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=tolerance / 10)
        moved += int((tensor != start.weights[name]).sum())
    assert moved > 1000


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_is_its_formula(name):
    same_as_by_hand(dense(), recipe(name))


@pytest.mark.parametrize("name", ["nesterov", "adamw"])
def test_every_optimiser_is_its_formula_with_batchnorm(name):
    same_as_by_hand(dense(RESNET), recipe(name, lr=1e-3), 4, 1e-3)


@pytest.mark.parametrize("name", ["nesterov", "adam"])
@pytest.mark.parametrize(
    "values",
    [
        {"label_smoothing": 0.1},
        {"clip": 0.3},
        {"decay": "weights", "weight_decay": 0.5},
        {"decay": "all", "weight_decay": 0.5},
        {"l1": 0.01},
        {"l1": 0.01, "clip": 0.3, "decay": "weights"},
        {"schedule": LrSchedule("step", (3, 5), 0.5, warmup=2)},
        {"schedule": LrSchedule("cosine", warmup=1, total=8)},
    ],
    ids=lambda v: "-".join(v),
)
def test_every_setting_is_its_formula(name, values):
    same_as_by_hand(dense(), recipe(name, **values))


@pytest.mark.parametrize("values", [{}, {"clip": 0.3}, {"l1": 0.01}], ids=["plain", "clip", "l1"])
def test_masked_training_is_its_formula(values):
    start = dense()
    same_as_by_hand(start.masked(half(start)), recipe("adam", **values))


def test_decay_of_weights_alone_spares_biases_and_batchnorm():
    start = dense(RESNET)
    how = recipe("sgd", weight_decay=0.5, lr=0.1, clip=1e-12)  # no gradient to speak of
    after = trained(start, replace(how, decay="weights"), 1).checkpoint().weights
    everything = trained(start, how, 1).checkpoint().weights
    for name in dict(start.network().named_parameters()):
        w = start.weights[name]
        torch.testing.assert_close(everything[name], 0.95 * w)
        torch.testing.assert_close(after[name], (0.95 if w.dim() > 1 else 1.0) * w)


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_l1_moves_each_weight_by_its_sign(decay):
    start = dense(RESNET)
    parameters = dict(start.network().named_parameters())
    for i, name in enumerate(n for n, p in parameters.items() if p.dim() == 1):
        start.weights[name].fill_((-1) ** i)
    how = recipe("sgd", weight_decay=0.0, decay=decay)
    plain, pulled = (trained(start, replace(how, l1=l1), 1).checkpoint().weights for l1 in (0.0, 0.5))
    for name, tensor in plain.items():
        penalised = name in parameters and (decay == "all" or tensor.dim() > 1)
        expected = tensor - 0.05 * 0.5 * start.weights[name].sign() if penalised else tensor
        torch.testing.assert_close(pulled[name], expected, rtol=1e-5, atol=1e-6)


# ---- stopping and going on


CASES = [
    pytest.param(LENET, "adam", {}, False, id="lenet-adam"),
    pytest.param(LENET, "adamw", {"precision": "bf16"}, True, id="lenet-adamw-bf16"),
    pytest.param(LENET, "adam", {"precision": "fp16"}, True, id="lenet-adam-fp16"),
    pytest.param(LENET, "momentum", {"clip": 0.5, "label_smoothing": 0.1}, True, id="lenet-momentum"),
    pytest.param(LENET, "sgd", {"schedule": LrSchedule("cosine", warmup=3, total=13)}, False, id="lenet-sgd"),
    pytest.param(RESNET, "nesterov", {}, True, id="resnet-nesterov"),
    pytest.param(RESNET, "adam", {"schedule": LrSchedule("step", (4, 7))}, False, id="resnet-adam"),
    pytest.param(DROPS, "nesterov", {}, False, id="dropout-nesterov"),
]


@pytest.mark.parametrize(("model", "name", "values", "masked"), CASES)
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(model, name, values, masked):
    start, how, last = dense(model), recipe(name, **values), 13
    if masked:
        start = start.masked(half(start))
    straight = trained(start, how, last)
    expected, moments = straight.checkpoint(), straight.moments()

    @settings(max_examples=3 if model is RESNET else 6)
    @given(st.lists(st.integers(1, last - 1), max_size=2))
    def from_here(stops):
        checkpoint, kept = start, {}
        at = 0
        for stop in [*sorted(stops), last]:
            run = trained(checkpoint, how, stop, kept, step=at)
            torch.manual_seed(stop)  # nothing may hang on the global generator
            checkpoint, kept, at = Checkpoint.unpack(run.checkpoint().pack()), run.moments(), stop
        assert equal(checkpoint.weights, expected.weights)
        assert equal(checkpoint.mask, expected.mask)
        assert equal(kept, moments)
        assert run.epoch_loss() == straight.epoch_loss()

    from_here()


def test_a_run_in_pieces_is_the_run():
    run = Trajectory(dense(), {}, recipe(), stream(), 0)
    for until in (1, 6, 6, 11):
        run.run(until)
        run.checkpoint()
        run.moments()
    assert run.step == 11
    assert run.checkpoint().digest() == trained(dense(), recipe(), 11).checkpoint().digest()


def test_going_on_without_the_moments_is_another_run():
    before = trained(dense(), recipe("momentum"), 6)
    on = trained(before.checkpoint(), recipe("momentum"), 9, before.moments(), step=6)
    anew = trained(before.checkpoint(), recipe("momentum"), 9, {}, step=6)
    assert on.checkpoint().digest() == trained(dense(), recipe("momentum"), 9).checkpoint().digest()
    assert anew.checkpoint().digest() != on.checkpoint().digest()


def test_position_seed_and_schedule_count_from_the_dense_run():
    how = recipe("sgd", LrSchedule("step", (7,)))
    late = trained(dense(), how, 9, step=6, first=6)
    early = trained(dense(), how, 3)
    assert late.checkpoint().digest() != early.checkpoint().digest()
    net = dense().network()
    for step, lr in ((6, 0.05), (7, 0.005), (8, 0.005)):
        x, y = stream().batch(step)
        loss = torch.nn.functional.cross_entropy(net(x), y)
        for p, g in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters()))):
            p.data -= lr * (g + 0.01 * p.data)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(late.checkpoint().weights[name], tensor)


# ---- what is left alone


def test_the_start_is_left_as_it_was():
    start = dense(RESNET)
    start = start.masked(half(start))
    moments = trained(start, recipe("adam"), 2).moments()
    before, copies = start.digest(), {n: t.clone() for n, t in moments.items()}
    trained(start, recipe("adam"), 8, moments, step=2)
    assert start.digest() == before
    assert equal(moments, copies)


@pytest.mark.parametrize("model", [LENET, RESNET], ids=lambda m: m.name)
def test_the_global_generator_is_left_alone(model):
    run = Trajectory(dense(model), {}, recipe(), stream(), 0)
    before = torch.get_rng_state()
    run.run(2)
    assert torch.equal(torch.get_rng_state(), before)


# ---- losses, precision, divergence


@pytest.mark.parametrize("first", [0, 4])
def test_the_loss_of_an_epoch_is_the_mean_of_its_batches(first):
    start, still = dense(), recipe("sgd", lr=0.0)
    batches, net = stream(), start.network()
    with torch.no_grad():
        losses = [torch.nn.functional.cross_entropy(net(x), y).item() for x, y in map(batches.batch, range(12))]
    run = Trajectory(start, {}, still, stream(), first, first)
    for step in range(first + 1, 13):
        run.run(step)
        begin = max(first, (step - 1) // PER_EPOCH * PER_EPOCH)
        assert math.isclose(run.epoch_loss(), sum(losses[begin:step]) / (step - begin), rel_tol=1e-5)


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "float32"])
@pytest.mark.parametrize("model", [LENET, RESNET], ids=lambda m: m.name)
def test_low_precision_is_finite_near_and_different(model, precision):
    full = trained(dense(model), recipe("momentum", lr=0.01), 6)
    low = trained(dense(model), recipe("momentum", lr=0.01, precision=precision), 6)
    assert low.checkpoint().digest() != full.checkpoint().digest()
    assert math.isclose(low.epoch_loss(), full.epoch_loss(), rel_tol=0.05)
    for name, tensor in low.checkpoint().weights.items():
        assert tensor.isfinite().all()
        assert tensor.dtype == full.checkpoint().weights[name].dtype


def test_training_learns():
    run = trained(dense(), recipe("adam", lr=1e-2), PER_EPOCH)
    before = run.epoch_loss()
    run.run(15 * PER_EPOCH)
    assert run.epoch_loss() < 0.85 * before


def test_divergence_is_noted_at_the_end_of_an_epoch():
    run = trained(dense(), recipe("momentum", lr=1e9), PER_EPOCH)
    assert run.diverged_at is None
    run.check()
    assert run.checkpoint().diverged_at == PER_EPOCH
    again = Trajectory(run.checkpoint(), {}, recipe(), stream(), PER_EPOCH)
    assert again.diverged_at == PER_EPOCH
    run.step = 2 * PER_EPOCH
    run.check()
    assert run.diverged_at == PER_EPOCH


@pytest.mark.parametrize("stop", range(1, 13))
def test_a_run_that_diverges_ends_in_the_same_state_wherever_it_was_stopped(stop):
    """Driven as stages/train.py does: what has diverged is not trained on."""

    def go_on(run, until):
        for step in range(run.step + 1, until + 1):
            if run.diverged_at is None:
                run.run(step)
            run.step = step
            if step % PER_EPOCH == 0:
                run.check()
        return run

    how = recipe("momentum", lr=1e4)
    straight = go_on(Trajectory(dense(), {}, how, stream(), 0), 2 * PER_EPOCH + 1).checkpoint()
    before = go_on(Trajectory(dense(), {}, how, stream(), 0), stop)
    after = Trajectory(Checkpoint.unpack(before.checkpoint().pack()), before.moments(), how, stream(), stop)
    resumed = go_on(after, 2 * PER_EPOCH + 1).checkpoint()
    assert straight.diverged_at is not None
    assert resumed.diverged_at == straight.diverged_at
    assert resumed.digest() == straight.digest()


def test_a_run_that_goes_well_has_not_diverged():
    run = trained(dense(), recipe(), PER_EPOCH)
    run.check()
    assert run.diverged_at is None
