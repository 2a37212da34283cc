"""Ids that must not move.

A change here renames results: everything computed before is orphaned. If numbers moved, raise the version of the
part that moved them; if a setting was added, give it `later(neutral)`. Only then is a new id right, and only for
what really changed.
"""

import pytest
from engine.small_runs import EPOCH, STEPS, small, stages
from programs.test_instability import pair
from programs.test_soups import souped

from lthbench.programs import experiment
from lthbench.programs.compressing import Compression
from lthbench.pruning.dynamics import METHODS
from lthbench.stages.prune import Pruner

DURING = {
    "gmp": {"begin": 10, "end": 30, "every": 5, "initial": "0"},
    "movement": {"begin": 4, "end": 32, "initial": "0", "score_optimizer": "adam", "score_lr": 0.01},
    "l0": {"penalty": 125.0, "bias": 2.197, "score_optimizer": "adam", "score_lr": 0.1},
}
DEEP = Compression("deep", 3, 3, 3, "linear", 50, 1.0, 1e-3)


def during(name):
    said = {"unit": "iteration", "every_unit": "iteration"} | DURING[name]
    return small(pruner=Pruner(METHODS[name].settings(said, STEPS, EPOCH), "during_training"))


KINDS = {
    "init": "29ec5ddadaaae02c023358e39c1f0e30",
    "train": "4ad9f16dfecc37c4a84dc6a88831ad81",
    "prune": "e223b52a91fdeabb4d138f2de6c936e8",
    "evaluate": "da7f996524e5e038ee3fa094ffc6a6ae",
    "control": "48a4688aecd01d8af3cb9097699753b6",
    "average": "e93a7b297cc606cc0d9b16590f34c951",
    "share": "6a34401c0c18e205133fb416b764d0be",
    "pack": "b0182c53f4a8c26181150ff6f5fa4aac",
    "connect": "b2ccbd027e05aa1ead0aa58116b49435",
}
PROGRAMS = {
    "iterative": (small("init", "0.9", schedule="iterative"), "c271d1901eb87904561f5135c3dfb5a2"),
    "one-shot": (small("init", "0.9"), "c58cafb316e0c8097e7cd1bcd51d1700"),
    "geometric": (small("init", "0.9", schedule="geometric", rounds=3), "b9da4cc7afff4b57408d9790454fe8cd"),
    "early": (small("early", "0.9"), "d45cf0410dbb5456f0521ca0a746711f"),
    "learning-rate rewinding": (small("lr", "0.9"), "23a99a8f8107ad07bf888b0a6d8b7592"),
    "fine-tuning": (small("finetune", "0.9"), "ef35708167188a826aaf84fe555e8950"),
    "reinit": (small("init", "0.9", control="reinit"), "36f6d17f09094a781e625e47be80ae05"),
    "shuffle": (small("init", "0.9", control="shuffle"), "a8677d346edc4db4f446acaedbaec5d3"),
    "inverted": (small("init", "0.9", control="invert"), "c9117157e754316fcf7b67604779533f"),
    "narrowed": (small("init", "0.9", control="small_dense"), "193fb3672283eb7aee747385af002256"),
    "best validation loss": (
        small("init", "0.9", select="best_val_loss", every=10),
        "c427516bf2cb0717a2bbd548c18bf322",
    ),
    "best test accuracy": (small("init", "0.9", select="best_test", every=10), "0e6a635b3f6eff5b36d13909be136ea9"),
    "random": (small("init", "0.9", criterion="random"), "79476b2ecc87a01ae641c33a33ad1302"),
    "by kind": (
        small("init", "level:2", schedule="iterative", allocation="by_kind", rates={"linear": "1/5", "output": "1/10"}),
        "865386a35e4fd6c9546c10899d8dfca8",
    ),
    "at initialisation": (small(program="at_init"), "05c8659a4cee21da7382af2f8e33e28f"),
    "gradual magnitude": (during("gmp"), "f81c9b85deb594e1c864765c40c8b78a"),
    "movement": (during("movement"), "837f3457566dacae6845aad30c6b5ad2"),
    "l0": (during("l0"), "22a6eb57257bc422f1cc99ba794f95a1"),
    "dense": (small(sparsity="0"), "bf7e37cfa204c4f9a1b6cac7249cc965"),
    "given weights": (small("finetune", weights="a" * 64), "fc9dec9a54d178da5d0f2c7b0da13340"),
    "uniform soup": (souped("uniform", rounds=2), "ad5ee251a046b21475c04763a006aed8"),
    "greedy soup": (souped("greedy", rounds=2), "c03b1e4132ae4f1011b707f2589862db"),
    "best soup": (souped("best", rounds=2), "44c6b5e9424b4742228fedda8ff0cf6a"),
    "mean soup": (souped("mean", rounds=2), "be8c2d1d9a4c0863cc2c63cd52803988"),
    "ensemble soup": (souped("ensemble", rounds=2), "faf0ccf5cfe4329cf2cd307cdf875e7e"),
    "reprune soup": (souped("reprune", rounds=2), "573ea9f6f290fcfe3df590d410fb68b1"),
    "instability": (pair(), "139595ef20e1aba61816c828a9bc6f79"),
    "deep compression": (small("init", "0.9", compression=DEEP), "7ee5c7b137b2252dfe9274522363ede9"),
    "slr": (small("lr", "0.9", retrain="slr"), "535ce95274a659cab6c1ba1e8f78ab8a"),
    "clr": (small("lr", "0.9", retrain="clr"), "bd82392891c6267dda829b35262d8959"),
    "llr": (small("lr", "0.9", retrain="llr"), "9bd40df2de1ac5cddb90b8015d8aec18"),
    "allr": (small("lr", "0.9", retrain="allr"), "ba84c4457a411762f765b8a5568ce555"),
    "cosine": (small("lr", "0.9", retrain="cosine"), "f811627a00c3ad467ee107aa4c248535"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_id_of_a_kind(kind):
    runs = {"average": souped(rounds=2), "connect": pair(), "control": small(control="shuffle")}
    runs |= dict.fromkeys(("share", "pack"), small(compression=DEEP))
    assert stages(runs.get(kind, small()), kind=kind)[0].id == KINDS[kind]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_id_of_a_program(name):
    run, ident = PROGRAMS[name]
    assert experiment(run).id == ident
