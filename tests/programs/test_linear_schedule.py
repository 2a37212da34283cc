"""BERT tickets' rounds: a share of the original weights each, by any network's counts."""

from fractions import Fraction

import pytest
from engine.small_runs import compute, small
from hypothesis import given
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.engine.store import Store
from lthbench.programs import experiment
from lthbench.programs.schedules import Schedule


def bases(schedule, target):
    return [density.base for density in schedule.densities(target)]


@given(st.fractions(Fraction(1, 100), Fraction(99, 100)), st.fractions(Fraction(1, 50), Fraction(9, 10)))
def test_each_round_removes_the_rate_of_the_original(target, rate):
    made = bases(Schedule("linear", str(rate)), target)
    steps = [a - b for a, b in zip([Fraction(1), *made], made)]
    assert all(step == rate for step in steps[:-1]) and 0 < steps[-1] <= rate
    assert made[-1] == 1 - target


def test_as_the_published_code_counts():
    """Round i prunes 1 / (10 - i) of what is left, i from 0 on."""
    left, expected = Fraction(1), []
    for i in range(9):
        left -= left * Fraction(1, 10 - i)
        expected.append(left)
    assert bases(Schedule("linear", "1/10"), 9) == expected
    assert bases(Schedule("linear", "1/10"), Fraction(9, 10)) == expected
    assert bases(Schedule("linear", "1/10", until=2), 9) == expected[:2]


def test_rounds_rewind_to_the_given_weights_and_are_shared(tmp_path):
    run = small("init", "0.3", schedule="linear", rate="1/10", rounds=1)
    deeper = small("init", "0.5", schedule="linear", rate="1/10", rounds=1)
    roles, more = experiment(run).roles, experiment(deeper).roles
    assert [role for role in roles if role.startswith("mask")] == ["mask 1", "mask 2", "mask 3"]
    assert all(more[role] == roles[role] for role in ("mask 1", "mask 2", "mask 3"))
    assert all(roles[f"net {n}"].stage.inputs["start"] == roles["init"] for n in (1, 2, 3))
    store = Store(tmp_path)
    assert not compute(store, run).failed
    counted = store.output(experiment(run).result)["sparsity"]["prunable"]
    assert counted["removed"] == (6 * counted["total"] + 10) // 20


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"sparsity": "level:10", "rate": "0.1"}, "sparsity: 10 rounds of schedule.rate=0.1 leave nothing"),
        ({"sparsity": "0.9", "rate": "0.0001"}, "sparsity: 0.9 takes more than 1000 rounds of schedule.rate=0.0001"),
        (
            {"sparsity": "level:3", "allocation": "by_kind", "rates": {"linear": "1/5", "output": "1/5"}},
            "allocation=by_kind needs schedule=iterative or oneshot: its rates count the rounds",
        ),
    ],
)
def test_what_means_nothing_is_refused(words, line):
    with pytest.raises(UserError) as error:
        run = small("init", schedule="linear", **words)
        experiment(run)
    assert str(error.value) == line
