"""Every field of every stage's settings is in its id, but for those that are set aside."""

import copy
import dataclasses
from dataclasses import replace

import pytest
from engine.small_runs import DATA, MODEL, RECIPE

from lthbench.base.settings import Settings
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.engine.graph import stage
from lthbench.evaluation.settings import Corruptions
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.pruning.dynamics import Sparsify
from lthbench.pruning.scoring import Scoring
from lthbench.pruning.structure import Structure
from lthbench.soups.settings import Recalibrate
from lthbench.stages.average import Average
from lthbench.stages.connect import Connect
from lthbench.stages.evaluate import Evaluate, evaluate
from lthbench.stages.init import Init, given, init
from lthbench.stages.pack import Pack
from lthbench.stages.prune import Prune
from lthbench.stages.share import Share
from lthbench.stages.train import Train, train
from lthbench.training.recipe import Distill, LrSchedule
from lthbench.training.schedules import Adaptive

FILE = DataSettings("own.npz", "abc", Normalise("image"), Augment(), 5, 0, (1, 8, 8), 10, 1437, "data", False)
COMPRESSED = LrSchedule("compressed", warmup=2, total=20, rise="cosine", floor=0.1, of=LrSchedule("step"), length=9)
GMP = CriterionSettings("gmp", 1, {"begin": 10, "end": 30, "every": 10, "initial": "0"})
GRADUAL = Sparsify(GMP, "weights", Allocation("uniform", {}), "1/10")
SETTINGS = [
    Init(MODEL, "pytorch", 0, 0, None, None),
    Train(RECIPE, FILE, 0, (0, 0), 0),
    Prune(CriterionSettings("magnitude", 1, {}, None), Allocation("by_kind", {"conv": "1/5"}), "weights", "1/2", None),
    Prune(CriterionSettings("snip", 1, {}, None), Allocation("global", {}), "weights", "1/2", None, Scoring(data=FILE)),
    Evaluate(FILE, "weights", "mean", Corruptions("cifar_c", "computed")),
    Train(replace(RECIPE, schedule=COMPRESSED), FILE, 0, (1, 2), 0, Adaptive("round", 0.5)),
    Connect(FILE, ("test",), 30, Recalibrate("sms", 1.0, 60, FILE, 0)),
    Average("greedy", Recalibrate("sms", 1.0, 60, FILE, 0), FILE, "ge"),
    Train(RECIPE, FILE, 0, (0, 0), 0, tied=True),
    Share(8, 5, "random", 300, 0),
    Pack(8, 5, 5),
    Train(RECIPE, FILE, 0, (0, 0), 0, None, GRADUAL),
    Train(RECIPE, replace(FILE, train_images=50), 0, (0, 0), 0, distill=Distill(0.5, 2.0)),
    Train(
        RECIPE,
        FILE,
        0,
        (0, 0),
        0,
        None,
        Sparsify(GMP, "weights", Allocation("uniform", {}), "1/10", Scoring(data=FILE), Structure("filter", least=1)),
    ),
]


def with_other(settings, name):
    """A copy with another value in a field, valid or not: what may be said is tested elsewhere."""
    value = getattr(settings, name)
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, (int, float)):
        other = value + 1
    elif isinstance(value, dict):
        other = {**value, "another": "1/7"}
    else:
        other = (*value, 7) if isinstance(value, tuple) else f"{value}, or another"
    return with_value(settings, name, other)


def with_value(settings, name, value):
    made = copy.copy(settings)
    vars(made).pop("text", None)  # computed once from the old value
    object.__setattr__(made, name, value)
    return made


def changed(settings: Settings):
    """Each field's path, whether it is set aside, and the settings with another value there."""
    for f in dataclasses.fields(type(settings)):
        value = getattr(settings, f.name)
        if isinstance(value, Settings):
            for inner, apart, other in changed(value):
                yield inner, apart, with_value(settings, f.name, other)
        else:
            apart = bool(f.metadata.get("aside"))
            yield f"{type(settings).__name__}.{f.name}", apart, with_other(settings, f.name)


CASES = {f"{i}.{path}": (s, apart, other) for i, s in enumerate(SETTINGS) for path, apart, other in changed(s)}


@pytest.mark.parametrize("path", CASES)
def test_a_field_is_in_the_id_unless_it_is_set_aside(path):
    settings, apart, other = CASES[path]
    ids = {stage("kind", 1, s, {}).id for s in (settings, other)}
    assert len(ids) == (1 if apart else 2)


def test_only_places_and_means_are_set_aside():
    apart = {path.split(".", 1)[1] for path, (_, apart, _) in CASES.items() if apart}
    assert "Init.path" in apart
    assert apart <= {
        "Init.path",
        "DataSettings.root",
        "DataSettings.download",
        "DataSettings.workers",
        "Corruptions.root",
    }


def test_how_one_scores_is_in_the_id_unless_it_is_one_look_at_the_weights():
    ids = {stage("prune", 1, dataclasses.replace(SETTINGS[2], scoring=how), {}).id for how in (None, Scoring())}
    assert len(ids) == 2
    assert '"scoring"' not in SETTINGS[2].text  # it came later: ids from before it stand


def test_every_input_is_in_the_id():
    start, mask = init(MODEL, "pytorch", 0), init(MODEL, "pytorch", 5)
    dense = train(start, RECIPE, DATA, 0)
    made = [
        dense,
        train(start, RECIPE, DATA, 0, mask=mask),
        train(dense.at(10), RECIPE, DATA, 0, mask=mask),
        train(dense.at(11), RECIPE, DATA, 0, mask=mask),
        train(dense.at(10), RECIPE, DATA, 0, mask=mask, moments=dense.at(10)),
        train(dense.at(10), RECIPE, DATA, 0, mask=mask, moments=dense.at(11)),
        train(dense.at(10), RECIPE, DATA, 0, mask=mask, moments=dense.at(10), first=10),
        train(dense.at(10), RECIPE, DATA, 0, mask=mask, moments=dense.at(10), first=10, index=(1, 0)),
        train(dense.at(10), RECIPE, DATA, 0, moments=dense.at(10), first=10, sparsify=GRADUAL),
        train(start, RECIPE, DATA, 0, teacher=(dense.at(10), Distill(0.5, 2.0))),
        train(start, RECIPE, DATA, 0, teacher=(dense.at(11), Distill(0.5, 2.0))),
    ]
    assert len({s.id for s in made}) == len(made)


def test_where_weights_lie_is_no_matter_but_what_they_are():
    assert given(MODEL, "a" * 64, "here") is given(MODEL, "a" * 64, "there")
    assert given(MODEL, "a" * 64, "here") is not given(MODEL, "b" * 64, "here")


def test_augmentation_is_no_matter_to_an_evaluation():
    net = train(init(MODEL, "pytorch", 0), RECIPE, DATA, 0).at(40)
    flipped = dataclasses.replace(DATA, augment=Augment(pad=1, flip=True))
    assert evaluate([net], flipped, "weights") is evaluate([net], DATA, "weights")
    assert train(net, RECIPE, flipped, 0) is not train(net, RECIPE, DATA, 0)
