import json
import math
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.base.settings import Settings, aside, build, canonical, coerce, later
from lthbench.data.sets import Augment, DataSettings, Normalise
from lthbench.models import ModelSettings
from lthbench.pruning.allocation import Allocation
from lthbench.pruning.criteria import CriterionSettings
from lthbench.training.recipe import LrSchedule, Recipe


@dataclass(frozen=True)
class Inner(Settings):
    rate: float
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer(Settings):
    name: str
    lr: float
    inner: Inner
    count: int = 1
    flag: bool = False
    limit: float | None = None
    rates: dict[str, str] | None = None
    added: int = later(0)
    folder: str = aside("here")


def outer(**values: Any) -> Outer:
    return build(Outer, {"name": "a", "lr": 1.0, "inner": {"rate": 0.5}} | values, "outer")


def test_the_text_is_canonical_json_with_every_default_written_out():
    assert outer().text == (
        '{"count":1,"flag":false,"inner":{"rate":0.5,"steps":[]},"limit":null,"lr":1.0,"name":"a","rates":null}'
    )


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"lr": 1}, {"lr": 1.0}),
        ({"count": 2.0}, {"count": 2}),
        ({"inner": {"rate": 1, "steps": [1.0, 2]}}, {"inner": Inner(1.0, (1, 2))}),
        ({"limit": 3}, {"limit": 3.0}),
        ({"rates": {"b": 0.5, "a": "0.1"}}, {"rates": {"a": "0.1", "b": "0.5"}}),
        ({"name": 7}, {"name": "7"}),
        ({"folder": "there"}, {}),
        ({"added": 0}, {}),
    ],
)
def test_values_that_mean_the_same_have_one_text(one, same):
    assert outer(**one).text == outer(**same).text
    assert outer(**one) == outer(**same)


def test_a_later_field_is_in_the_text_once_it_is_not_neutral():
    assert "added" not in outer().spelled_out()
    assert outer(added=3).spelled_out()["added"] == 3


def test_an_aside_is_kept_and_named_nowhere():
    assert outer(folder="there").folder == "there"
    assert "folder" not in outer(folder="there").spelled_out()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 2}, "unknown key 'outer.cuont'; did you mean 'count'?"),
        ({"inner": {"rate": 1, "stepz": []}}, "unknown key 'outer.inner.stepz'; did you mean 'steps'?"),
        ({"inner": {}}, "'outer.inner.rate' is missing"),
        ({"lr": math.nan}, "outer.lr: nan is not a number"),
        ({"lr": math.inf}, "outer.lr: inf is not a number"),
        ({"lr": "fast"}, "outer.lr: 'fast' is not a number"),
        ({"lr": True}, "outer.lr: True is not a number"),
        ({"lr": None}, "outer.lr: None is not a number"),
        ({"lr": [0.1, 0.2]}, "outer.lr: [0.1, 0.2] is not a number; -m runs a list, one run a value"),
        ({"count": 1.5}, "outer.count: 1.5 is not a whole number"),
        ({"count": math.nan}, "outer.count: nan is not a whole number"),
        ({"flag": 1}, "outer.flag: 1 is not true or false"),
        ({"name": None}, "outer.name: None is not a text"),
        ({"inner": 3}, "outer.inner: 3 is not a group of settings"),
        ({"inner": {"rate": 1, "steps": 3}}, "outer.inner.steps: 3 is not a list"),
        ({"inner": {"rate": 1, "steps": [1, "x"]}}, "outer.inner.steps[1]: 'x' is not a whole number"),
        ({"rates": ["a"]}, "outer.rates: ['a'] is not a mapping"),
        ({"rates": {"a": None}}, "outer.rates.a: None is not a text"),
    ],
)
def test_bad_values_are_refused_in_one_line_that_names_the_key(values, message):
    with pytest.raises(UserError) as error:
        outer(**values)
    assert str(error.value) == message


@pytest.mark.parametrize("kind", [int, float, str])
def test_whole_numbers_too_large_for_a_float_are_refused(kind):
    with pytest.raises(UserError, match=r"^seed: 10+ is not a "):
        coerce(10**309, kind, "seed")


def test_a_missing_key_is_named():
    with pytest.raises(UserError) as error:
        build(Outer, {"name": "a", "inner": {"rate": 1}}, "outer")
    assert str(error.value) == "'outer.lr' is missing"


def test_nothing_that_is_not_a_number_gets_into_a_text():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": math.nan})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_canonical_is_compact_sorted_json(value):
    assert canonical(value) == json.dumps(value, sort_keys=True, separators=(",", ":"))


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        outer().lr = 2.0


RECIPE = Recipe("sgd", 0.1, 128, LrSchedule("step", (80, 120)), momentum=0.9)
CHANGES = [  # for each kind of settings: one other value for every field that names a result
    (
        LrSchedule("step", (80,)),
        {
            "kind": "cosine",
            "milestones": (81,),
            "gamma": 0.2,
            "warmup": 1,
            "total": 5,
            "rise": "none",
            "floor": 0.1,
            "of": LrSchedule("constant"),
            "length": 7,
        },
    ),
    (
        RECIPE,
        {
            "optimizer": "adam",
            "lr": 0.2,
            "batch": 129,
            "schedule": LrSchedule("constant"),
            "momentum": 0.8,
            "nesterov": True,
            "betas": (0.8, 0.999),
            "eps": 1e-7,
            "weight_decay": 1e-4,
            "decay": "weights",
            "label_smoothing": 0.1,
            "clip": 1.0,
            "l1": 1e-5,
            "l1_scales": 1e-5,
            "drop_last": True,
            "precision": "bf16",
            "compile": True,
        },
    ),
    (Normalise(), {"kind": "image", "mean": (0.4,), "std": (0.4,)}),
    (Augment(), {"pad": 4, "flip": True, "rotate": 15.0}),
    (Augment(0, True, (0.1, 1.0), (0.5, 2.0)), {"scale": (0.2, 1.0), "ratio": (0.8, 1.2)}),
    (
        DataSettings("cifar10", "official", Normalise(), Augment()),
        {
            "name": "standin_cifar10",
            "version": "rebuilt",
            "normalise": Normalise("unit"),
            "augment": Augment(4),
            "validation": 5000,
            "train_images": 100,
            "split_seed": 1,
        },
    ),
    (
        DataSettings("own.npz", "0123", Normalise(), Augment(), shape=(1, 8, 8), classes=10, samples=100),
        {"shape": (3, 8, 8), "classes": 9, "samples": 101},
    ),
    (
        DataSettings(
            "photos", "0123", Normalise(), Augment(), shape=(3, 8, 8), classes=2, samples=9, size=8, resize=10
        ),
        {"size": 7, "resize": 9},
    ),
    (
        ModelSettings("resnet_20", 1, {"width": 1.0}, (3, 32, 32), 10),
        {"name": "lenet_300_100", "version": 2, "args": {"width": 0.5}, "shape": (1, 32, 32), "classes": 100},
    ),
    (Allocation("by_kind", {"conv": "0.1"}), {"rates": {"conv": "0.2"}}),
    (Allocation("global", {}), {"name": "uniform"}),
    (Allocation("threshold", {}, quality="0.5"), {"quality": "0.6", "layers": {"conv": "0.3"}}),
    (Allocation("smart_ratio", {}, linear="0.3"), {"linear": "0.4", "vgg": True}),
    (
        CriterionSettings("random", 1, {}, 3),
        {"name": "magnitude", "version": 2, "args": {"power": 2}, "seed": None, "source": "a" * 64},
    ),
]
PARTLY = {Augment, DataSettings, Allocation}  # whose fields are shared between the cases above


@pytest.mark.parametrize(("settings", "changes"), CHANGES, ids=lambda v: type(v).__name__)
def test_every_field_of_the_identity_moves_the_text(settings, changes):
    if type(settings) not in PARTLY:
        assert set(changes) == {f.name for f in fields(settings) if not f.metadata.get("aside")}
    texts = {replace(settings, **{name: value}).text for name, value in changes.items()}
    assert len(texts | {settings.text}) == len(changes) + 1


def test_the_shared_cases_together_change_every_field():
    for kind in PARTLY:
        changed = {name for settings, changes in CHANGES if type(settings) is kind for name in changes}
        assert changed == {f.name for f in fields(kind) if not f.metadata.get("aside")}


def test_where_data_lies_names_no_result():
    data = DataSettings("mnist", "official", Normalise(), Augment())
    assert replace(data, root="/elsewhere", download=True).text == data.text


def test_texts_that_ids_are_made_of():
    assert RECIPE.text == (
        '{"batch":128,"betas":[0.9,0.999],"clip":0.0,"decay":"all","drop_last":false,"eps":1e-08,'
        '"label_smoothing":0.0,"lr":0.1,"momentum":0.9,"nesterov":false,"optimizer":"sgd","precision":"float32",'
        '"schedule":{"gamma":0.1,"kind":"step","milestones":[80,120],"total":0,"warmup":0},"weight_decay":0.0}'
    )
    assert DataSettings("mnist", "official", Normalise("channel", (0.1307,), (0.3081,)), Augment()).text == (
        '{"augment":{"flip":false,"pad":0},"classes":10,"name":"mnist",'
        '"normalise":{"kind":"channel","mean":[0.1307],"std":[0.3081]},'
        '"samples":60000,"shape":[1,28,28],"split_seed":0,"validation":0,"version":"official"}'
    )
    assert ModelSettings.of("lenet_300_100", {"width": 1.0}, (1, 28, 28), 10).text == (
        '{"args":{"width":1.0},"classes":10,"name":"lenet_300_100","shape":[1,28,28],"version":1}'
    )
    assert CriterionSettings.of("magnitude", {}, 3).text == '{"args":{},"name":"magnitude","seed":null,"version":1}'
    assert CriterionSettings.of("random", {}, 3).text == '{"args":{},"name":"random","seed":3,"version":1}'
    assert Allocation("by_kind", {"linear": "1/5"}).text == '{"name":"by_kind","rates":{"linear":"1/5"}}'


@pytest.mark.parametrize(("settings", "_"), CHANGES, ids=lambda v: type(v).__name__)
def test_spelled_out_settings_build_the_same_settings(settings, _):
    built = build(type(settings), settings.spelled_out(), "x")
    assert built == settings
    assert built.text == settings.text
