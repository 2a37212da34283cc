"""Ids that must not move.

A change here renames results: everything computed before is orphaned. If numbers moved, raise the version of the
part that moved them; if a setting was added, give it `later(neutral)`. Only then is a new id right, and only for
what really changed.
"""

import pytest
from engine.small_runs import small, stages

from lthbench.programs import experiment

KINDS = {
    "init": "29ec5ddadaaae02c023358e39c1f0e30",
    "train": "4ad9f16dfecc37c4a84dc6a88831ad81",
    "prune": "e223b52a91fdeabb4d138f2de6c936e8",
    "evaluate": "80b423fe487c624479a248b3a00ce43a",
    "control": "48a4688aecd01d8af3cb9097699753b6",
}
PROGRAMS = {
    "iterative": (small("init", "0.9", schedule="iterative"), "bacd629a5d9938e0bc6cdda8ff28a45b"),
    "one-shot": (small("init", "0.9"), "8f00571f9c78aa121f91caea7bae3fbe"),
    "geometric": (small("init", "0.9", schedule="geometric", rounds=3), "c1e24b2a16cb4b7a3133222f206274a9"),
    "early": (small("early", "0.9"), "3a69bdcda337d7df2fe34c3c78e4b281"),
    "learning-rate rewinding": (small("lr", "0.9"), "a13e58de2df02acc56bc1045dfdc6eb1"),
    "fine-tuning": (small("finetune", "0.9"), "8691c9268e8631b9a5d7f27b05deff27"),
    "reinit": (small("init", "0.9", control="reinit"), "6ef62d14aae41f0f8173be31ab7e74f0"),
    "shuffle": (small("init", "0.9", control="shuffle"), "1aa53da5d984321aca52436ea028e75e"),
    "inverted": (small("init", "0.9", control="invert"), "1b5ead4e58cf13b275306ae11ccc792c"),
    "narrowed": (small("init", "0.9", control="small_dense"), "d0c745c3a65c8f2c90a524895cb7475a"),
    "best validation loss": (
        small("init", "0.9", select="best_val_loss", every=10),
        "32fb80e5f21afaef9cb16eaac144e4af",
    ),
    "best test accuracy": (small("init", "0.9", select="best_test", every=10), "2815256f8e841258195f10604f4679d9"),
    "random": (small("init", "0.9", criterion="random"), "f00da650858076586044444a7cbbca7e"),
    "by kind": (
        small("init", "level:2", schedule="iterative", allocation="by_kind", rates={"linear": "1/5", "output": "1/10"}),
        "1cebcf395be11dcbd5ea7eaf87e4eae3",
    ),
    "at initialisation": (small(program="at_init"), "5a3f61bc19853ef182bd1f68b765284e"),
    "dense": (small(sparsity="0"), "73bdda453f6b5bb47a53eee4804c5a42"),
    "given weights": (small("finetune", weights="a" * 64), "c1236119ebe8136ed079c5a085b9b2d6"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_id_of_a_kind(kind):
    assert stages(small(control="shuffle" if kind == "control" else "none"), kind=kind)[0].id == KINDS[kind]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_id_of_a_program(name):
    run, ident = PROGRAMS[name]
    assert experiment(run).id == ident
