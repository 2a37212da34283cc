"""Tables on the command line: run, listed, and refused in one line where something is wrong with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from cli.conftest import Command
from conf_files import GROUPS

from lthbench.cli.compose import composer
from lthbench.cli.tables import read

SAMPLE = ("snip_mnist", "lth_lenet")  # run at smoke scale in the quick suite


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_runs_at_smoke_scale(name, run: Command, here: Path):
    said = run(f"table={name} scale=smoke out=out")
    assert said.code == 0, said.err
    page = (here / "out" / "leaderboards" / f"{name}.smoke.md").read_text()
    assert "**Scale smoke: not the published setting.**" in page
    assert "made-up images; numbers mean nothing" in page
    words = set(re.findall(r"(reproduced|differs|supported|contradicted)", page.split("## Claims")[1]))
    assert not words - {"reproduced"}, "nothing is judged on made-up data"
    again = run(f"table={name} scale=smoke out=out")
    assert " 0 computed" in again.last


@pytest.mark.slow  # minutes in all: the grid of every table, at smoke scale
@pytest.mark.parametrize("name", GROUPS["table"])
def test_every_table_runs_at_smoke_scale(name, shell: Command, here: Path):
    with composer(None) as compose:
        if needs := read(compose, name).needs:
            pytest.skip(f"not yet runnable: {needs}")
    said = shell(f"table={name} scale=smoke out=out")
    assert said.code == 0, said.err[-2000:]
    costs = [json.loads(path.read_text())["cost"] for path in (here / "out" / "runs").glob("*.json")]
    assert costs
    assert max(cost["peak_memory"] for cost in costs) < 3 * 2**30


# ---- what is listed


def test_tables_are_listed_with_what_they_need(run: Command):
    text = " ".join(run("list tables").out.split())
    for name in GROUPS["table"]:
        assert name in text
    assert "Frankle and Carbin 2019: 1 published table(s), 5 claim(s) 25 cells" in text
    assert "75 runs; 4,089 epochs, 33,043 were nothing shared" in text
    assert "mnist: not in 'data'" in text
    assert "not yet runnable: learned masks" in text


def test_papers_are_listed(run: Command):
    text = " ".join(run("list papers").out.split())
    assert "Lee et al. 2019: SNIP" in text
    assert "5 tables (75 verified)" in text


# ---- bad input

PAPER = {
    "paper": "mine", "title": "Mine", "authors": [], "venue": None, "year": None, "arxiv": None, "code": None,
    "tables": [], "claims": [],
}  # fmt: skip
CLAIM = {
    "id": "mine_c1", "place": "here", "statement": "so it is", "left": {"method": "snip"}, "relation": ">",
    "right": {"method": "random"}, "when": {}, "margin": 0.5, "evidence": {"level": "verified", "sources": ["me"]},
}  # fmt: skip

JOY = CLAIM | {"right": {"value": 1}, "when": {"metric": "joy"}}


def own(here: Path, table: dict[str, object], **paper: object) -> None:
    for folder in ("table", "published"):
        (here / "own" / folder).mkdir(parents=True, exist_ok=True)
    rows = {"rows": [{"label": "SNIP", "pruner": "snip", "where": {"method": "snip"}}]}
    (here / "own" / "table" / "mine.yaml").write_text(yaml.safe_dump(rows | table))
    (here / "own" / "published" / "mine.yaml").write_text(yaml.safe_dump(PAPER | paper))


@pytest.mark.parametrize(
    ("table", "paper", "line"),
    [
        ({"paper": "mine", "claims": ["mine_c1"]}, {"claims": [CLAIM]},
         "table mine: claim mine_c1: no row has method 'random'; choose from snip"),
        ({"paper": "mine", "claims": ["mine_c2"]}, {"claims": [CLAIM]},
         "paper mine has no claim 'mine_c2'; did you mean 'mine_c1'?"),
        ({"paper": "mine", "claims": ["mine_c1"]}, {"claims": [JOY]},
         "table mine: claim mine_c1 is about joy, which results do not hold"),
        ({"paper": "mine"}, {"claims": [CLAIM | {"margin": "much"}]},
         "mine.yaml: mine_c1.margin: 'much' is not a number"),
        ({"paper": "mine"}, {"clams": []}, "mine.yaml: unknown key 'paper.clams'; did you mean 'claims'?"),
        ({"paper": "yours"}, {}, "no published numbers of a paper 'yours'; "),
        ({"paper": "mine", "published": ["t1"]}, {}, "table mine: published numbers need a margin above 0"),
        ({"published": ["t1"]}, {}, "table mine: published and claims need a paper"),
        ({"quantity": "accuracies"}, {}, "table mine: quantity: unknown 'accuracies'; did you mean 'accuracy'?"),
        ({"counted": "weight"}, {}, "table mine: counted: unknown 'weight'; did you mean 'weights'?"),
        ({"margin": "0.5"}, {}, "table mine.margin: '0.5' is not a number"),
        ({"needs": "more time"}, {}, "table mine is not yet runnable: more time"),
        ({"paper": "snip", "published": ["snip_tabel1"], "margin": 1}, {},
         "paper snip has no table 'snip_tabel1'; did you mean 'snip_table1'?"),
        ({"paper": "lth", "published": ["lth_fig4a_iter"], "margin": 1}, {},
         "table mine: lth_fig4a_iter holds iterations (count), not accuracy"),
        ({"defaults": ["snip_mnits"]}, {}, "no option 'snip_mnits' in group 'table'; did you mean 'snip_mnist'?"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_its_paper(table, paper, line, here, refused):
    own(here, table, **paper)
    said = refused("--config-dir own table=mine")
    assert said == line if line[-1] != " " else said.startswith(line)


def test_a_list_says_what_is_wrong_with_a_file(here, run: Command):
    own(here, {"paper": "mine"}, clams=[])
    for what in ("tables", "papers"):
        text = " ".join(run(f"list {what} --config-dir own").out.split())
        assert "wrong: mine.yaml: unknown key 'paper.clams'; did you mean 'claims'?" in text


def test_unknown_table(refused):
    assert refused("table=lth_lente") == "no option 'lth_lente' in group 'table'; did you mean 'lth_lenet'?"


def test_results_that_are_something_else_are_refused_by_name(run: Command, here: Path):
    """An older schema is never misread; foreign files among the results are passed over."""
    assert run("table=snip_batch scale=smoke out=out").code == 0
    results = sorted((here / "out" / "runs").glob("*.json"))
    (here / "out" / "runs" / "notes.txt").write_text("mine")
    (here / "out" / "runs" / "list.json").write_text("[]")
    assert run("report table=snip_batch scale=smoke out=out").code == 0
    old = json.loads(results[0].read_text()) | {"schema": 0}
    results[0].write_text(json.dumps(old))
    said = run("report table=snip_batch scale=smoke out=out")
    assert said.code == 0
    assert f"passed over: '{results[0].relative_to(here)}' is no result of schema 1" in said.err
