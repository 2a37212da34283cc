"""The papers' numbers: every file is read and checked, and its numbers mean what its README says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lthbench.base.errors import UserError
from lthbench.published import Table, alike, is_at, known, load
from lthbench.published.load import HERE
from lthbench.published.paper import expected_range

PAPERS = sorted(known())


def test_all_papers_are_there():
    papers = [load(name) for name in PAPERS]
    assert len(papers) == 34
    assert sum(len(p.claims) for p in papers) == 202
    rows = [t.evidence.level for p in papers for t in p.tables if t.trials is None for _ in t.rows]
    counts = {level: rows.count(level) for level in dict.fromkeys(rows)}
    assert counts == {"verified": 4484, "plot": 1515, "secondary": 28, "unverified": 493}


@pytest.mark.parametrize("name", PAPERS)
def test_a_file_says_where_its_numbers_are_from(name):
    paper = load(name)
    for part in (*paper.tables, *paper.claims):
        assert part.evidence.sources, part.id
    for table in paper.tables:
        for cell in table.cells:
            if table.quantity == "accuracy":
                assert 0 <= table.published(cell).value <= 100


def test_errors_are_turned_into_accuracies():
    table = load("snip").table("snip_table1")
    cell = table.find({"model": "lenet_300_100", "method": "snip"}, 0.98)
    assert [table.published(c).value for c in cell] == [pytest.approx(97.6)]
    assert table.published(cell[0]).rounding == pytest.approx(0.1**2 / 12)


def test_ranges_become_standard_deviations():
    lth = load("lth").table("lth_fig4b")
    cell = lth.find({"model": "lenet_300_100", "method": "imp_reset"}, 0.7893)
    made = lth.published(cell[0])
    assert (made.value, made.low, made.high, made.n) == (98.27, 97.87, 98.46, 5)
    assert made.sd == pytest.approx((98.46 - 97.87) / 2.326, rel=1e-3)
    assert made.rounding > 0.01**2  # read off a figure


@pytest.mark.parametrize(("n", "width"), [(3, 1.69), (5, 2.33), (10, 3.08)])
def test_expected_ranges(n, width):
    assert expected_range(n) == pytest.approx(width, abs=0.006)


def table(kind: str | None, n: int | None, **row: object) -> Table:
    cell = {"method": "a", "sparsity": 0.9, "value": 90.0, **row}
    evidence = {"level": "verified", "sources": ["here"]}
    from lthbench.base.settings import build

    return build(
        Table,
        {
            "id": "t", "place": "p", "what": "w", "metric": "test_accuracy", "unit": "percent", "statistic": "mean",
            "n": n, "spread": kind, "sparsity_of": None, "setting": {}, "not_stated": [], "evidence": evidence,
            "columns": list(cell), "rows": [list(cell.values())],
        },
        "t",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "n", "row", "sd"),
    [
        ("std", 3, {"spread": 0.5}, 0.5),
        ("std", None, {"spread": 0.5}, 0.5),
        ("stderr", 4, {"spread": 0.5}, 1.0),
        ("stderr", None, {"spread": 0.5}, None),
        ("ci95", 3, {"spread": 4.302653}, math.sqrt(3)),
        ("minmax", 3, {"spread": 0.5}, 1 / 1.6926),
        ("minmax", 3, {"min": 89.0, "max": 91.0}, 2 / 1.6926),
        ("minmax", None, {"min": 89.0, "max": 91.0}, None),
        (None, 3, {"spread": 0.5}, None),
    ],
)
def test_spreads(kind, n, row, sd):
    made = table(kind, n, **row)
    found = made.published(made.cells[0]).sd
    assert found is None if sd is None else found == pytest.approx(sd, rel=1e-3)


def test_rendas_trials_are_their_csv(tmp_path):
    import csv

    renda = load("renda").table("renda_runs")
    with open(HERE / "renda_runs.csv", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["network"] == "20" and line["retrain_time"] == "90"]
    chosen = [li for li in lines if (li["prune"], li["iterative"], li["method"]) == ("0", "1", "2")]
    line = next(li for li in chosen if li["density"].startswith("0.10"))
    trials = [100 * float(line[f"test{i}"]) for i in (1, 2, 3)]
    where = {
        "model": "resnet_20",
        "prune": "unstructured",
        "iterative": True,
        "method": "lr_rewind",
        "retrain_epochs": 90,
    }
    (cell,) = renda.find(where, 1 - float(line["density"]))
    assert renda.published(cell).value == pytest.approx(sum(trials) / 3, abs=1e-4)
    assert cell["n"] == 3


@given(st.floats(0, 0.9999), st.floats(1, 1.5))
def test_alike_is_about_what_stays(sparsity, factor):
    other = 1 - (1 - sparsity) / factor
    if abs(factor - 1.02) > 1e-6:
        assert alike(sparsity, other) == alike(other, sparsity) == (factor < 1.02)


def test_places():
    assert is_at({"method": ["a", "b"]}, "method", "b")
    assert not is_at({"method": ["a", "b"]}, "method", "c")
    assert is_at({}, "method", "c")
    assert not is_at({"iterative": False}, "iterative", True)


# ---- a user's file, right and wrong

MINE = {
    "paper": "mine", "title": "Mine", "authors": ["A. Uthor"], "venue": None, "year": 2026, "arxiv": None, "code": None,
    "tables": [
        {
            "id": "mine_table", "place": "Table 1", "what": "all", "metric": "test_accuracy", "unit": "percent",
            "statistic": "mean", "n": 3, "spread": "std", "sparsity_of": "all weights", "setting": {}, "not_stated": [],
            "evidence": {"level": "verified", "sources": ["me"]}, "columns": ["method", "sparsity", "value", "spread"],
            "rows": [["mine", 0.9, 91.2, 0.1]],
        }
    ],
    "claims": [
        {
            "id": "mine_c1", "place": "here", "statement": "mine is best", "left": {"method": "mine"}, "relation": ">",
            "right": {"method": "snip"}, "when": {}, "margin": 0.5,
            "evidence": {"level": "verified", "sources": ["me"]},
        }
    ],
}  # fmt: skip


def written(folder: Path, **change: object) -> str:
    (folder / "published").mkdir(exist_ok=True)
    (folder / "published" / "mine.yaml").write_text(yaml.safe_dump(MINE | change))
    return str(folder)


def changed(part: str, **change: object) -> dict[str, object]:
    return {part: [MINE[part][0] | change]}


def test_a_file_of_ones_own(tmp_path):
    own = written(tmp_path)
    assert "mine" in known(own)
    assert load("mine", own).table("mine_table").find({"method": "mine"}, 0.9)[0]["value"] == 91.2
    assert load("mine", own).reference == "Uthor 2026"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"tabels": []}, "unknown key 'paper.tabels'; did you mean 'tables'?"),
        (changed("tables", colums=[]), "unknown key 'mine_table.colums'; did you mean 'columns'?"),
        (changed("tables", rows=[["mine", 0.9, "91.2", 0.1]]), "mine_table: row 1, value: '91.2' is not a number"),
        (changed("tables", rows=[["mine", 0.9, float("nan"), 0.1]]), "mine_table: row 1, value: nan is not a number"),
        (changed("tables", rows=[["mine", 0.9, 91.2]]), "mine_table: row 1 does not have the 4 columns"),
        (changed("tables", spread="sd"), "mine_table.spread: unknown 'sd'; did you mean 'std'?"),
        (changed("tables", statistic="avg"),
         "mine_table.statistic: unknown 'avg'; choose from best, mean, median, single"),
        (changed("tables", n="three"), "mine_table.n: 'three' is not a whole number"),
        (changed("tables", evidence={"level": "sure", "sources": []}),
         "evidence.level: unknown 'sure'; choose from plot, secondary, unverified, verified"),
        (changed("claims", relation="<"), "mine_c1.relation: unknown '<'; choose from >, >=, ~"),
        (changed("claims", margin="0.5"), "mine_c1.margin: '0.5' is not a number"),
        (changed("claims", share=2), "mine_c1.share: 2.0 is not a share"),
        (changed("claims", when=[3]), "mine_c1.when: not a mapping or a list of mappings"),
        ({"claims": MINE["claims"] * 2}, "'mine_c1' stands twice"),
        ({"paper": "other"}, "paper: 'other' is not the file's name"),
        ({"tables": 3}, "tables: missing, or not a list"),
        ({"year": "soon"}, "paper.year: 'soon' is not a whole number"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_line(change, line, tmp_path):
    with pytest.raises(UserError) as error:
        load("mine", written(tmp_path, **change))
    assert str(error.value) == f"mine.yaml: {line}"


def test_what_is_no_yaml(tmp_path):
    own = written(tmp_path)
    (tmp_path / "published" / "mine.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"mine\.yaml: while parsing") as error:
        load("mine", own)
    assert "\n" not in str(error.value)


def test_unknown_paper():
    with pytest.raises(UserError, match="no published numbers of a paper 'lht'; did you mean 'lth'"):
        load("lht")
