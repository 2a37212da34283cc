"""Claims on made-up results with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from report_runs import claim, entry, run
from scipy import stats

from lthbench.report.board import Entry
from lthbench.report.cases import names, pairs, quantity_of, understood
from lthbench.report.claims import difference, judge

HIGH, LOW = [95.0, 95.1, 94.9, 95.05, 95.0], [90.0, 90.2, 89.9, 90.1, 90.05]


def word(relation: str, left: list[float], right: list[float], **more: object) -> str:
    cells = [entry({"method": "a"}, 0.9, left), entry({"method": "b"}, 0.9, right)]
    (made,) = judge([claim({"method": "a"}, relation, {"method": "b"}, **more)], cells)
    return made.word


@pytest.mark.parametrize(
    ("relation", "left", "right", "expected"),
    [
        (">", HIGH, LOW, "supported"),
        (">", LOW, HIGH, "contradicted"),
        (">", HIGH, [x + 0.01 for x in reversed(HIGH)], "no difference"),
        (">", [95, 85, 90], [91, 88, 84], "undecided"),
        (">=", HIGH, LOW, "supported"),
        (">=", LOW, HIGH, "contradicted"),
        (">=", [x - 0.3 for x in HIGH], HIGH, "supported"),  # by less than the margin
        ("~", HIGH, [x + 0.1 for x in HIGH], "supported"),
        ("~", HIGH, LOW, "contradicted"),
        ("~", LOW, HIGH, "contradicted"),
        ("~", [95, 85, 90], [91, 88, 84], "undecided"),
        (">", [], LOW, "not run"),
        (">", HIGH, [], "not run"),
        (">", [95.0], LOW, "undecided"),
        (">", [95.0, 95.0, 95.0], [90.0, 90.0, 90.0], "undecided"),  # no spread at all
        (">", [95.0, float("nan"), 95.1], LOW, "undecided"),
    ],
)
def test_words(relation, left, right, expected):
    assert word(relation, left, right) == expected


def test_a_claim_without_evidence_is_not_judged():
    assert word(">", HIGH, LOW, evidence={"level": "unverified", "sources": []}) == "not judged"


def test_margins_are_said():
    cells = [entry({"method": "a"}, 0.9, HIGH), entry({"method": "b"}, 0.9, LOW)]
    (made,) = judge([claim({"method": "a"}, ">", {"method": "b"}, margin=2.0)], cells)
    assert made.cases[0].note == "by at least 2"
    (made,) = judge([claim({"method": "a"}, ">", {"method": "b"}, margin=9.0)], cells)
    assert (made.word, made.cases[0].note) == ("supported", "")


def test_pairing_is_by_seed_where_a_trained_stage_is_shared():
    bases = [90.0, 92.0, 94.0]
    left, right = Entry("a", "0.9"), Entry("b", "0.9")
    for cell, shift, method in ((left, 0.5, "a"), (right, 0.0, "b")):
        cell.where, cell.nominal = {"method": method}, 0.9
        order = enumerate(bases) if method == "a" else reversed(list(enumerate(bases)))
        cell.runs = [run((x + shift + 0.01 * s) / 100, s, trained=f"dense{s}") for s, x in order]
    said = claim({"method": "a"}, "~", {"method": "b"}, margin=0.6)
    (made,) = judge([said], [left, right])
    assert made.cases[0].paired
    assert made.cases[0].difference == pytest.approx(0.5)
    for one in right.runs:
        one["stages"]["final"] = f"other{one['seed']}@3"
    (made,) = judge([said], [left, right])
    assert not made.cases[0].paired
    assert made.word == "undecided"  # the seeds differ more than the methods


def test_the_arithmetic_is_scipys():
    left, right = HIGH, LOW[:4]
    d, se, df = difference(left, right, False)
    expected = stats.ttest_ind(left, right, equal_var=False)
    assert d / se == pytest.approx(expected.statistic)
    assert df == pytest.approx(expected.df)
    d, se, df = difference(HIGH, LOW, True)
    assert d / se == pytest.approx(stats.ttest_rel(HIGH, LOW).statistic)
    assert difference([1.0, 2.0, 3.0], [], False)[0] == 2


def grid() -> list[Entry]:
    made = [entry({"method": "dense", "model": m}, 0.0, HIGH) for m in ("x", "y")]
    for method in ("a", "b", "c"):
        for model in ("x", "y"):
            for sparsity in (0.2, 0.36, 0.488, 0.79, 0.8926):
                made.append(entry({"method": method, "model": model}, sparsity, LOW if method == "a" else HIGH))
    return made


@pytest.mark.parametrize(
    ("left", "right", "when", "expected"),
    [
        ({"method": "a"}, {"method": "b"}, {}, 10),  # each model and sparsity
        ({"method": "a"}, {"method": ["b", "c"]}, {}, 20),
        ({"method": "a"}, {"method": "b"}, {"model": "x"}, 5),
        ({"method": "a"}, {"method": "b"}, {"model": ["x", "z"], "sparsity": [0.2, 0.8]}, 2),
        ({"method": "a"}, {"method": "b"}, {"sparsity": {"from": 0.36, "to": 0.79}}, 6),
        ({"method": "a"}, {"method": "b"}, {"sparsity": {"from": 0.8, "to": 0.8926}}, 2),
        ({"method": "a"}, {"method": "b"}, [{"model": "x", "sparsity": 0.2}, {"model": "y", "sparsity": 0.49}], 2),
        ({"method": "a"}, {"method": "dense"}, {"sparsity": [0.2]}, 2),
        ({"method": "a"}, {"method": "b"}, {"compression_log10": {"from": 0.0, "to": 0.3}}, 6),
        ({"method": "a", "sparsity": 0.79}, {"method": "a", "sparsity": 0.2}, {}, 2),
        ({"method": "a"}, {"value": 90.0}, {"sparsity": 0.2}, 2),
        ({"method": "a", "quantity": "top-1 drop"}, {"value": 5.0}, {"sparsity": 0.2}, 2),
        ({"method": "a"}, {"method": "b"}, {"sparsity": 0.99}, 0),
        ({"method": ["a", "b"]}, {"method": ["a", "b"]}, {"sparsity": 0.2, "model": "x"}, 2),  # not with itself
    ],
)
def test_cases(left, right, when, expected):
    found = pairs(claim(left, ">", right, when), grid())
    assert len(found) == expected
    for pair in found:
        if pair.right is not None and pair.right.nominal and "sparsity" not in left:
            assert pair.left.where["model"] == pair.right.where["model"]


def test_a_quantity_against_dense():
    """Error minus the dense network's: five points, however the claim puts it."""
    said = claim({"method": "a", "quantity": "error minus dense error"}, "~", {"value": 5.0}, {"model": "x"})
    (made,) = judge([said], grid())
    assert made.word == "supported"
    assert made.cases[0].difference == pytest.approx(np.mean(HIGH) - np.mean(LOW) - 5)


def test_shares():
    cells = [entry({"method": "a", "model": m}, 0.5, LOW if m in "uv" else HIGH) for m in "uvwxyz"]
    cells += [entry({"method": "b", "model": m}, 0.5, [92.0, 92.1, 91.9, 92.05, 91.95]) for m in "uvwxyz"]
    for share, expected in ((0.6, "supported"), (0.67, "contradicted"), (1.0, "contradicted")):
        (made,) = judge([claim({"method": "a"}, ">", {"method": "b"}, share=share)], cells)
        assert (made.count("supported"), made.count("contradicted"), made.word) == (4, 2, expected)
    cells[0].runs = []  # a case that was not run does not count
    (made,) = judge([claim({"method": "a"}, ">", {"method": "b"}, share=0.8)], cells)
    assert made.word == "supported"


def test_holm_over_the_papers_claims():
    """One claim at p = 0.02 stands alone, not among twenty."""
    draw = np.random.default_rng(0)
    cells, claims = [], []
    for i in range(20):
        cells.append(entry({"method": f"a{i}"}, 0.5, list(90 + draw.normal(0, 0.3, 3))))
        cells.append(entry({"method": f"b{i}"}, 0.5, list(90 + draw.normal(0, 0.3, 3))))
        claims.append(claim({"method": f"a{i}"}, ">", {"method": f"b{i}"}, margin=0.0))
    alone = [judge([c], cells)[0] for c in claims]
    together = judge(claims, cells)
    assert any(c.word in ("supported", "contradicted") for c in alone)
    assert all(c.word == "undecided" for c in together)
    assert any("alone" in c.note for c in together)


def test_early_stopping_is_read_from_the_curves():
    curves = {"val": {"100": {"loss": 0.3}, "200": {"loss": 0.1}, "300": {"loss": None}, "400": {"loss": 0.1}}}
    slow = {"val": {"900": {"loss": 0.1}}}
    left, right = entry({"method": "a"}, 0.5, HIGH), entry({"method": "b"}, 0.5, HIGH)
    for one in left.runs:
        one["curves"] = curves
    for one in right.runs:
        one["curves"] = slow
    said = claim({"method": "b"}, ">", {"method": "a"}, {"metric": "early_stop_iteration"}, margin=100.0)
    (made,) = judge([said], [left, right])
    assert made.quantity == "early_stop_iteration"
    assert (made.cases[0].difference, made.cases[0].note) == (700, "no spread at all")


def test_what_a_claim_names():
    said = claim(
        {"method": ["a", "b"], "share_": {"from": 1}}, ">", {"method": "c", "share_": "same"}, {"metric": "bleu"}
    )
    assert names(said) == [("method", "a"), ("method", "b"), ("method", "c")]
    assert quantity_of(said) == "bleu"
    assert not understood(said)
