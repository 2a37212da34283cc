"""Families of timm build at a small input, are pruned by magnitude to 90 %, and train a step."""

from fractions import Fraction
from importlib.metadata import version

import pytest
import torch
from torch.nn.functional import cross_entropy

from lthbench.base.errors import UserError
from lthbench.models import ModelSettings, check
from lthbench.models.initialise import fresh
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.density import Density
from lthbench.pruning.prunable import prunable
from lthbench.pruning.prune import prune
from lthbench.training.checkpoint import Checkpoint

SAMPLE = ["regnetx_002", "mobilenetv3_small_050", "vit_tiny_patch16_224", "mobilevit_xxs"]  # the quick suite's
CONVOLUTIONAL = [
    "resnet10t", "resnext26ts", "regnetx_002", "regnety_002", "mobilenetv2_035", "mobilenetv3_small_050",
    "tinynet_e", "mnasnet_small", "densenet121", "convnext_atto", "convnextv2_atto", "ghostnet_050",
    "hardcorenas_a", "lcnet_035", "repvgg_a0", "dla46_c", "hrnet_w18_small", "fbnetc_100", "rexnet_100",
    "mobileone_s0", "ese_vovnet19b_dw", "inception_next_atto", "efficientnet_lite0",
]  # fmt: skip
OTHERS = [
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224",
    "resmlp_12_224", "poolformer_s12", "mobilevit_xxs", "levit_128s", "edgenext_xx_small",
    "xcit_nano_12_p16_224", "cait_xxs24_224", "pit_ti_224", "coat_lite_tiny", "convit_tiny", "fastvit_t8",
    "efficientvit_b0", "gmlp_ti16_224",
]  # fmt: skip
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in CONVOLUTIONAL + OTHERS if name not in SAMPLE]


def timm(name: str) -> ModelSettings:
    return ModelSettings.of("timm", {"name": name, "version": version("timm")}, (3, 64, 64), 10)


@pytest.mark.parametrize("name", [*SAMPLE, *SLOW])
def test_a_family_builds_is_pruned_and_trains(name):
    model = timm(name)
    dense = Checkpoint.of(model, fresh(model, "pytorch", 0, 0), {})
    magnitude = CriterionSettings.of("magnitude", {}, 0)
    mask = prune(dense, magnitude, Allocation("global", {}), "weights", Density(Fraction(1, 10)))
    total = sum(w.parameter.numel() for w in prunable(dense.network(), "weights").values())
    removed = (2 * 9 * total + 10) // 20  # round half up
    assert sum(int(kept.sum()) for kept in mask.values()) == total - removed
    net = dense.masked(mask).network().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loss = cross_entropy(net(torch.randn(4, 3, 64, 64)), torch.arange(4))
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and all(p.isfinite().all() for p in net.parameters())


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"timm has no 'resnet10x'; did you mean 'resnet10t'\?"):
        check(timm("resnet10x"))
