"""A leaderboard beside its paper: which cells are judged, and that a page says what the results say."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from report_runs import claim, run

from lthbench.base.settings import build
from lthbench.published import Paper, Table
from lthbench.report import write
from lthbench.report.board import Board, board
from lthbench.report.compare import Comparison, Part, Place, compare, deviations

EVIDENCE = {"level": "verified", "sources": ["me"]}
NEAR = [0.9000, 0.9011, 0.8992]


def paper(**change: Any) -> Paper:
    table = {
        "id": "t1", "place": "Table 1", "what": "all", "metric": "test_accuracy", "unit": "percent",
        "statistic": "mean",
        "n": 3, "spread": "std", "sparsity_of": None, "setting": {}, "not_stated": [], "evidence": EVIDENCE,
        "columns": ["method", "sparsity", "value", "spread"],
        "rows": [["a", 0.9, 90.0, 0.1], ["b", 0.9, 80.0, 0.1], ["dense", 0.0, 95.0, None]],
    } | change  # fmt: skip
    about = {"paper": "p", "title": "P", "authors": ["A. Uthor", "B. Uthor"], "year": 2020}
    return build(
        Paper,
        about | {"venue": None, "arxiv": None, "code": None, "tables": (build(Table, table, "t1"),), "claims": ()},
        "paper",
    )


def compared(runs: list[dict[str, Any] | None], scale: str = "paper", **change: Any) -> Board:
    """Cells a (the runs), b and dense beside the paper's."""
    cells = [("a", "0.9", one) for one in runs]
    cells += [("b", "0.9", run(x, s, removed=900)) for s, x in enumerate(NEAR)]
    cells += [("dense", "0", run(x, s)) for s, x in enumerate((0.95, 0.951, 0.9495))]
    made = board("t", "T", cells, "python -m lthbench table=t", scale)
    places = {
        ("a", "0.9"): Place({"method": "a"}, 0.9),
        ("b", "0.9"): Place({"method": "b"}, 0.9),
        ("dense", "0"): Place({"method": "dense"}, 0.0),
    }
    source = paper(**change)
    claims = (claim({"method": "dense"}, ">", {"method": ["a", "b"]}),)
    tables = tuple(Part({}, table) for table in source.tables)
    compare(made, Comparison(source, tables, claims, "accuracy", 1.0, "prunable", places))
    made.assumptions, made.deviations = ["it is assumed"], deviations(made)
    return made


def said(made: Board, label: str = "a") -> tuple[str, str]:
    verdict = next(e for e in made.entries if e.label == label).verdict
    assert verdict is not None
    return verdict.word, verdict.note


def near(**more: Any) -> list[dict[str, Any] | None]:
    return [run(x, s, **({"removed": 900} | more)) for s, x in enumerate(NEAR)]


def test_words():
    made = compared(near())
    assert said(made) == ("reproduced", "")
    assert said(made, "b") == ("differs", "")
    assert said(made, "dense") == ("reproduced", "")  # without a printed spread: ours
    assert made.judged() == {"reproduced": 2, "differs": 1}
    assert [c.word for c in made.claims] == ["supported"]


def test_missing_seeds_are_said():
    assert said(compared([*near(), None])) == ("reproduced", "3 of 4 seeds")
    assert said(compared([None, None])) == ("not run", "")


@pytest.mark.parametrize("level", ["unverified"])
def test_the_unverified_is_never_judged(level):
    made = compared(near(), evidence=EVIDENCE | {"level": level})
    assert said(made) == said(made, "b") == ("not judged", "unverified")
    assert "(90.00 ± 0.10 (n = 3))" in write.markdown(made)


@pytest.mark.parametrize("scale", ["small", "smoke"])
def test_other_scales_show_numbers_and_claims_only(scale):
    made = compared(near(), scale)
    assert {said(made, label) for label in ("a", "b", "dense")} == {("not judged", f"scale {scale}")}
    assert made.claims[0].word == "supported"
    assert any(scale in text for text in made.deviations)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"version": "rebuilt"}, ("reproduced", "rebuilt data")),
        ({"version": "pooled"}, ("not judged", "other data")),
        ({"version": "partial"}, ("not judged", "other data")),
        ({"name": "standin_mnist"}, ("not judged", "other data")),
    ],
)
def test_data_that_is_not_the_papers(data, expected):
    made = compared(near(data=data))
    assert said(made) == expected
    assert len(made.deviations) == 1
    assert made.claims[0].word == ("not judged" if "name" in data else "supported")


def test_a_seed_that_is_not_used():
    made = compared(near(final_weights_sha256="same"))
    assert said(made) == ("undecided", "identical runs: the seed is not used")


def test_collapsed_runs_are_told_apart():
    runs = near()
    runs[1] = run(0.11, 1, removed=900)
    made = compared(runs)
    assert said(made) == ("undecided", "collapsed 1/3")
    (against_a, against_b) = made.claims[0].cases
    assert (against_a.word, against_b.word) == ("undecided", "supported"), "half of a mean is no number to compare"
    assert "collapsed 1/3" in against_a.note
    all_fallen = [run(x, s, removed=900) for s, x in enumerate((0.10, 0.11, 0.105))]
    assert said(compared(all_fallen))[0] == "differs"


def test_wrong_denominators():
    assert said(compared(near(removed=700)))[1] == "sparsity 0.7, published for 0.9"
    runs = near()
    runs[1] = run(0.9, 1, removed=450, total=500)
    assert said(compared(runs)) == ("undecided", "runs that count different weights")


def test_what_is_not_finite():
    runs = near()
    runs[2] = run(None, 2, removed=900)
    assert said(compared(runs)) == ("undecided", "a result is not finite")


def test_one_run_leans_on_its_neighbours():
    cells = [("a", str(s), run(0.9 + 0.001 * i, i, removed=round(1000 * s))) for s in (0.8, 0.95) for i in range(3)]
    cells.append(("a", "0.9", run(0.9, 0, removed=900)))
    made = board("t", "T", cells, "")
    places = {("a", str(s)): Place({"method": "a"}, s) for s in (0.8, 0.9, 0.95)}
    source = paper()
    tables = tuple(Part({}, table) for table in source.tables)
    compare(made, Comparison(source, tables, (), "accuracy", 1.0, "prunable", places))
    assert said_at(made, "0.9") == "reproduced"


def said_at(made: Board, asked: str) -> str:
    entry = made.cell("a", asked)
    assert entry is not None
    assert entry.verdict is not None
    return entry.verdict.word


def test_the_csv_is_deterministic_and_holds_what_is_published():
    made = compared(near())
    rows = list(csv.DictReader(io.StringIO(write.table_csv(made))))
    assert rows[0]["published"] == "90.0"
    assert (rows[0]["published_sd"], rows[0]["published_n"], rows[0]["evidence"]) == ("0.1", "3", "verified")
    assert (rows[0]["verdict"], rows[1]["verdict"]) == ("reproduced", "differs")
    assert "seconds" not in write.table_csv(made)
    cost = list(csv.DictReader(io.StringIO(write.cost_csv(made))))
    assert len(cost) == 9
    assert {row["train_seconds"] for row in cost} == {"1.5"}


def test_every_number_of_a_page_is_in_the_results():
    """What stands under `ours`: each a mean or a standard deviation of the accuracies in the JSONs."""
    import statistics

    made = compared(near())
    page = write.markdown(made)
    known = {
        f"{f(100 * r['metrics']['test']['accuracy'] for r in e.runs):.2f}"
        for e in made.entries
        for f in (statistics.fmean, lambda xs: statistics.stdev(list(xs)))
    }
    beside = page.split("| --- |")[-1] if "Claims" not in page else page.split("## Claims")[0]
    ours = re.findall(r"^\| [^|]+%? \| (\d+\.\d+) ± (\d+\.\d+) \|", beside, re.M)
    assert len(ours) >= 3
    assert {number for pair in ours for number in pair} <= known
    assert "- it is assumed" in page
    assert "A. Uthor" not in page
    assert "Uthor and Uthor 2020" in page
