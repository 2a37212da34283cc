from fractions import Fraction

import pytest
import torch

from lthbench.base.errors import UserError
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.data.stream import split
from lthbench.pruning.density import Density, rooted
from lthbench.pruning.scoring import Scoring, draw

DATA = DataSettings("standin_digits", "official", Normalise(), Augment(2, True))  # 41 images of class 0


def scoring(**values):
    return Scoring(**{"data": DATA, "seed": 3, "batches": 2, "batch": 30} | values)


def test_densities_of_equal_factors():
    steps = Scoring(rounds=4).densities(Density(Fraction(1, 16)))
    assert [str(s) for s in steps] == ["1/2", "1/4", "1/8", "1/16"]
    irrational = Scoring(rounds=3).densities(Density(Fraction(1, 10)))
    assert irrational == [rooted(Fraction(1, 10), 1, 3), rooted(Fraction(1, 10), 2, 3), Density(Fraction(1, 10))]


def test_densities_of_equal_steps():
    steps = Scoring(rounds=4, spacing="linear").densities(Density(Fraction(1, 5)))
    assert [str(s) for s in steps] == ["4/5", "3/5", "2/5", "1/5"]
    with pytest.raises(UserError, match=r"^pruner\.spacing=linear needs a plain density"):
        Scoring(rounds=2, spacing="linear").densities(rooted(Fraction(1, 10), 1, 3))


def test_one_round_is_the_target_itself():
    target = rooted(Fraction(1, 10), 1, 3)
    assert Scoring().densities(target) == [target]
    assert Scoring(rounds=5).densities(None) == [None]


def test_batches_are_training_images_unaugmented_and_all_different():
    train, batches = split(DATA, "train"), draw(scoring(), 0)
    assert [len(y) for _, y in batches] == [30, 30]
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    everything = train.batch(slice(None))
    rows = [int((everything == image).flatten(1).all(1).nonzero()[0]) for image in x]
    assert len(set(rows)) == 60
    assert torch.equal(train.y[rows], y)


def test_batches_follow_seed_and_round_and_nothing_else():
    first = draw(scoring(), 0)
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for one, other in zip(first, draw(scoring(), 0)) for a, b in zip(one, other))
    assert not torch.equal(first[0][0], draw(scoring(), 1)[0][0])
    assert not torch.equal(first[0][0], draw(scoring(seed=4), 0)[0][0])


def test_balanced_batches_have_so_many_of_each_class():
    batches = draw(scoring(per_class=10, batches=3), 0)
    assert [y.bincount(minlength=10).tolist() for _, y in batches] == [[10] * 10] * 3
    images = torch.cat([x for x, _ in batches]).flatten(1)
    assert len(images.unique(dim=0)) == 300


@pytest.mark.parametrize(("per_class", "batches"), [(42, 1), (21, 2)])
def test_a_class_with_too_few_images_is_named(per_class, batches):
    with pytest.raises(ValueError, match=f"^class 0 has 41 images, {per_class * batches} are asked for$"):
        draw(scoring(per_class=per_class, batches=batches), 0)


def test_without_data_there_are_no_batches():
    assert draw(Scoring(), 0) == []


def test_batches_in_float64():
    assert draw(scoring(dtype="float64"), 0)[0][0].dtype == torch.float64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"spacing": "cubic"}, "pruner.spacing: unknown choice 'cubic'; choose from exponential, linear, halving"),
        ({"mode": "test"}, "pruner.mode: unknown choice 'test'; choose from eval, train"),
        ({"dtype": "bf16"}, "pruner.dtype: unknown choice 'bf16'; choose from float32, float64"),
        ({"rounds": 0}, "pruner.rounds: 0 is less than 1"),
        ({"batches": 18}, "pruner.batch: 540 images are asked for, 512 are there"),
        ({"per_class": 52, "batches": 1}, "pruner.per_class: 520 images are asked for, 512 are there"),
    ],
)
def test_scoring_that_cannot_be_is_refused_in_one_line(values, message):
    with pytest.raises(UserError) as error:
        scoring(**values)
    assert str(error.value) == message
