"""What layers of a transformer are for: rates of their own, counted exactly, and shown together."""

from fractions import Fraction

import pytest
import torch

from lthbench.base.errors import UserError
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation, Layer, groups
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable, role, roles
from lthbench.pruning.prune import prune
from lthbench.report.layers import table
from lthbench.training.checkpoint import Checkpoint

VIT = {"name": "vit_tiny_patch16_224", "version": "0", "depth": 2, "embed_dim": 48, "num_heads": 3}
RATES = {"attention": "1/4", "mlp": "1/2", "embedding": "0", "head": "1/10"}


def vit():
    """Two blocks of width 48: per block 4 x 48^2 weights of attention and 8 x 48^2 of the MLP."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        how = {key: VIT[key] for key in ("depth", "embed_dim", "num_heads")}
        return timm.create_model(VIT["name"], img_size=32, num_classes=10, **how)


def test_rates_by_role_on_a_vision_transformer():
    found = prunable(vit(), "weights")
    layers = {n: Layer(w.kind, w.parameter.numel(), w.parameter.numel(), role=w.role) for n, w in found.items()}
    kept = {n: k for (n,), k in groups(Allocation("by_kind", RATES), layers, None, 2)}
    d2 = 48 * 48
    for name, count in kept.items():
        what = role(name, found[name].kind)
        share = {"attention": Fraction(9, 16), "mlp": Fraction(1, 4), "embedding": Fraction(1)}.get(what)
        if what != "head":
            assert count == share * layers[name].total
    assert kept["blocks.1.attn.qkv.weight"] == 3 * d2 * 9 // 16
    assert kept["blocks.0.mlp.fc1.weight"] == 4 * d2 // 4
    assert kept["patch_embed.proj.weight"] == 48 * 3 * 16 * 16
    assert kept["head.weight"] == 480 - 48 - 43  # a tenth of 480, then of 432, to even


def test_a_role_is_before_a_kind_and_a_kind_is_enough():
    layers = {
        "blocks.0.attn.qkv.weight": Layer("linear", 100, 100, role="attention"),
        "fc.weight": Layer("linear", 100, 100),
    }
    both = groups(Allocation("by_kind", {"linear": "1/2", "attention": "1/10"}), layers, None, 1)
    assert [k for _, k in both] == [90, 50]
    assert [k for _, k in groups(Allocation("by_kind", {"linear": "1/2"}), layers, None, 1)] == [50, 50]
    given = Allocation("given", {}, {"linear": "1", "attention": "1/3"})
    assert [k for _, k in groups(given, layers, Density(Fraction(1, 2)), 1)] == [25, 75]
    with pytest.raises(UserError, match="has no rate for 'linear' layers"):
        groups(Allocation("by_kind", {"mlp": "1/2"}), layers, None, 1)


def test_a_timm_model_is_pruned_by_role_and_shown_by_role(monkeypatch):
    import lthbench.models as models

    monkeypatch.setattr(models, "create", lambda model: vit())
    monkeypatch.setattr("lthbench.training.checkpoint.create", lambda model: vit())
    model = ModelSettings.of("timm", {"name": VIT["name"], "version": "0"}, (3, 32, 32), 10)
    start = Checkpoint.of(model, vit(), {})
    magnitude = CriterionSettings.of("magnitude", {}, 0)
    mask = prune(start, magnitude, Allocation("by_kind", RATES), "weights", None)
    lost = {what: sum(int((~mask[n]).sum()) for n in names) for what, names in roles(mask).items()}
    assert lost == {"embedding": 0, "attention": 2 * 48 * 48, "mlp": 8 * 48 * 48, "head": 48}
    layers = {n: {"kept": int(m.sum()), "total": m.numel()} for n, m in mask.items()}
    made = table({"layers": layers})
    cells = [list(column.cells) for column in made.columns]
    shown = {name: (kept, of) for name, kept, of in zip(*cells[:3])}
    assert shown["all attention"] == (f"{6 * 48 * 48:,}", f"{8 * 48 * 48:,}")
    assert shown["all mlp"] == (f"{8 * 48 * 48:,}", f"{16 * 48 * 48:,}")


def test_other_networks_have_no_roles():
    net = fresh(ModelSettings.of("resnet_20", {}, (3, 32, 32), 10), "pytorch", 0, 0)
    found = prunable(net, "weights")
    assert roles(found) is None
    assert {w.role for w in found.values()} == {"conv", "head"}
