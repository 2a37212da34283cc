"""Two spellings of one run have one id and one identity; two runs have two of each."""

import itertools
import random
from dataclasses import replace

from engine.small_runs import MODEL, RECIPE, STEPS, small
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.base.settings import canonical
from lthbench.models import ModelSettings
from lthbench.programs import experiment
from lthbench.programs.candidates import Recalibration, Soup
from lthbench.programs.compressing import Compression
from lthbench.programs.controls import CONTROLS
from lthbench.programs.identity import identity
from lthbench.programs.teaching import Teacher
from lthbench.training.recipe import Distill, LrSchedule

RESNET = ModelSettings.of("resnet_20", {"width": 0.25}, MODEL.shape, MODEL.classes)
CONSTANT = replace(RECIPE, schedule=LrSchedule("constant"))
DEEP = Compression("deep", 3, 3, 3, "linear", 50, 1.0, 1e-3)
CHOICES = {
    "rewind": ["init", "early", "lr", "finetune"],
    "sparsity": ["0.36", "0", "0.2", "0.360", "level:0", "level:1", "level:2", "1/2"],
    "k": [0.25, 0.0, 0.5, 1.0, 10.0],
    "unit": ["ratio", "epoch", "iteration"],
    "retrain": [None, "replay", "lrw", "finetune", "llr", "slr", "allr"],
    "warmup": [None, 0.1, 0.0],
    "weight_decay": [None, 1e-4, 5e-4],
    "budget": [1, 2],
    "total": [None, 2, 3],
    "share": ["round", "total"],
    "soup": [
        Soup(),
        Soup("uniform", 1),
        Soup("uniform", 2),
        Soup("reprune", 2),
        Soup("greedy", 2, accept="gt"),
        Soup("greedy", 2),
        Soup("mean", 2),
        Soup("instability", 2),
        Soup("instability", 2, points=9),
        Soup("uniform", 2, "weight_decay", (1e-4, 5e-4)),
        Soup("uniform", 2, "weight_decay", (5e-4, 1e-4)),
        Soup("uniform", 2, "retrain_length", (1, 1)),
        Soup("uniform", 2, "lr", (), (0.01, 0.1)),
        Soup("uniform", 2, "retrain_schedule", ("llr", "cosine")),
    ],
    "recalibration": [Recalibration(), Recalibration("sms"), Recalibration("cumulative")],
    "model": [MODEL, RESNET],
    "epochs": [None, 1, 1.5],
    "moments": ["default", "zero", "restore", "keep"],
    "lr": [None, 0.001, 0.1],
    "schedule": ["oneshot", "iterative", "geometric"],
    "rate": ["0.2", "0.4"],
    "rounds": [1, 2],
    "criterion": ["magnitude", "random"],
    "program": ["after_training", "at_init"],
    "control": [*CONTROLS],
    "select": ["last", "best_val_loss"],
    "every": [10, 20],
    "recipe": [RECIPE, CONSTANT, replace(RECIPE, weight_decay=0.0)],
    "steps": [STEPS, STEPS + 10],
    "initialiser": ["pytorch", "glorot_normal"],
    "weights": [None, "a" * 64],
    "weights_as": ["dense", "init"],
    "weights_output": ["kept", "fresh"],
    "teacher": [None, Teacher("dense", Distill(0.5, 2.0)), Teacher("b" * 64, Distill(0.5, 2.0))],
    "prunable": ["weights", "no_output"],
    "compression": [
        None,
        DEEP,
        replace(DEEP, lr=1e-4),
        replace(DEEP, epochs=0.0),
        replace(DEEP, epochs=0.0, lr=1e-4),
        replace(DEEP, epochs=0.0, init="random"),
        replace(DEEP, index_bits=4),
    ],
    "seed": [0, 1],
}


def names(words):
    """The id and the identity of a run; None where the settings contradict each other."""
    try:
        run = small(**words)
    except UserError:
        return None
    if run.given_dense and run.rounds and run.pruner.program == "after_training" and not run.first_round.first:
        return None  # given weights, pruned once and trained for the whole schedule: the same run as at initialisation
    return experiment(run).id, canonical(identity(run))


@settings(max_examples=250)
@given(st.fixed_dictionaries({word: st.sampled_from(values) for word, values in CHOICES.items()}), st.data())
def test_ids_are_equal_exactly_where_identities_are(words, data):
    others = data.draw(st.lists(st.sampled_from(sorted(CHOICES)), min_size=1, max_size=3, unique=True))
    one = names(words)
    other = names(words | {word: data.draw(st.sampled_from(CHOICES[word])) for word in others})
    if one and other:
        assert (one[0] == other[0]) == (one[1] == other[1])


def test_no_two_of_many_runs_share_an_id_without_sharing_an_identity():
    """All pairs of a sample: one text an id, one id a text."""
    chosen = random.Random(0)
    ids, texts = {}, {}
    for _ in range(4000):
        words = {word: values[0] for word, values in CHOICES.items()}
        for word in chosen.sample(sorted(CHOICES), chosen.randint(1, 6)):
            words[word] = chosen.choice(CHOICES[word])
        if found := names(words):
            ids.setdefault(found[0], {}).setdefault(found[1], words)
            texts.setdefault(found[1], {}).setdefault(found[0], words)
    assert len(ids) > 400
    split = [spelled for one in (ids, texts) for spelled in one.values() if len(spelled) > 1]
    assert not split, different(*list(split[0].values())[:2])


def different(one, other):
    """In what two settings differ."""
    return {word: (one[word], other[word]) for word in one if one[word] != other[word]}, one


def alike(*spellings):
    found = {names(words) for words in spellings}
    assert None not in found
    return len(found) == 1


def test_rewinding_to_step_0_is_rewinding_to_the_start():
    assert alike({"rewind": "early", "k": 0.0}, {"rewind": "init"}, {"rewind": "init", "k": 0.7})
    assert not alike({"rewind": "early"}, {"rewind": "init"})


def test_k_in_any_unit():
    assert alike(
        *({"rewind": "early", "k": k, "unit": u} for k, u in ((0.25, "ratio"), (0.5, "epoch"), (10, "iteration")))
    )


def test_one_round_is_one_shot():
    for sparsity in ("0.2", "0.1", "level:1"):
        assert alike(*({"sparsity": sparsity, "schedule": s} for s in ("oneshot", "iterative")))
    assert alike({"sparsity": "0.5", "schedule": "geometric", "rounds": 1}, {"sparsity": "0.5", "schedule": "oneshot"})
    assert alike({"sparsity": "level:2", "schedule": "oneshot"}, {"sparsity": "0.36", "schedule": "oneshot"})
    assert not alike({"sparsity": "0.21", "schedule": "oneshot"}, {"sparsity": "0.21", "schedule": "iterative"})


def test_a_control_in_one_shot_knows_no_rewinding():
    each = [{"control": "reinit", "rewind": rewind, "k": k} for rewind in CHOICES["rewind"] for k in (0.25, 0.5)]
    assert alike(*each)
    assert not alike(*({**words, "sparsity": "0.5", "schedule": "iterative"} for words in each))


def test_pruning_at_initialisation_knows_neither_rewinding_nor_rounds():
    product = itertools.product(CHOICES["rewind"], ("oneshot", "iterative", "geometric"), (None, 1))
    assert alike(*({"program": "at_init", "rewind": r, "schedule": s, "epochs": e} for r, s, e in product))


def test_a_dense_run_knows_no_pruner():
    product = itertools.product(
        ("0", "0.0", "level:0"),
        ("magnitude", "random"),
        ("after_training", "at_init"),
        ("none", "reinit"),
        ("init", "finetune"),
    )
    words = ("sparsity", "criterion", "program", "control", "rewind")
    assert alike(*(dict(zip(words, values)) for values in product))


def test_a_sparsity_is_exact_text():
    assert alike(*({"sparsity": text} for text in ("0.9", "0.90", "9e-1", "9/10", " .9")))
    assert not alike({"sparsity": "0.9"}, {"sparsity": "0.9000000000000001"})


def test_fine_tuning_without_a_schedule_is_not_rewinding_the_learning_rate():
    """The numbers of the recipe are the same, the batches are not."""
    one, other = (names({"rewind": rewind, "k": 0.0, "recipe": CONSTANT}) for rewind in ("finetune", "lr"))
    assert one[0] != other[0] and one[1] != other[1]


def test_the_smallest_learning_rate_may_be_said_or_meant():
    assert alike({"rewind": "finetune"}, {"rewind": "finetune", "lr": RECIPE.lr_at(STEPS - 1)})
