"""The demo from the command to the leaderboard: every number on a page is in a JSON, and nothing is done twice."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from lthbench.cli.main import main

DEMO = ["table=demo", "scale=smoke", "seed=0,1", "jobs=1", "out=o"]
STAGES = 60


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """A folder where the demo was run as a real command; its output is in `said`."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "lthbench", *DEMO], cwd=folder, capture_output=True, text=True, check=True
    )
    (folder / "said").write_text(done.stdout)
    return folder


@pytest.fixture
def page(demo, monkeypatch) -> Path:
    monkeypatch.chdir(demo)
    return demo / "o" / "leaderboards" / "demo.smoke"


def runs(demo: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (demo / "o" / "runs").glob("*.json")}


def test_it_ends_with_the_pages_and_the_count(demo):
    assert (demo / "said").read_text().splitlines()[-6:] == [
        "o/leaderboards/demo.smoke.md",
        "o/leaderboards/demo.smoke.csv",
        "o/leaderboards/demo.smoke.tex",
        "o/leaderboards/demo.smoke.png",
        "o/leaderboards/demo.smoke.cost.csv",
        f"stages: {STAGES} asked, {STAGES} computed, 0 reused",
    ]
    assert (demo / "o" / "leaderboards" / "demo.smoke.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert sorted(path.name for path in demo.iterdir()) == ["o", "said"]


def test_every_number_on_the_page_is_in_a_json(demo, page):
    """The CSV names the runs of each cell; mean and spread are made again here, from the JSONs alone."""
    found = runs(demo)
    lines = page.with_suffix(".smoke.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, _, *rows = table
    on_page = {(row[0], title): cell for row in rows for title, cell in zip(head[1:], row[1:]) if cell}
    used = set()
    with open(page.with_suffix(".smoke.csv")) as file:
        for cell in csv.DictReader(file):
            results = [found[ident] for ident in cell["runs"].split()]
            used |= set(cell["runs"].split())
            accuracies = [100 * r["metrics"]["test"]["accuracy"] for r in results]
            mean, sd = statistics.mean(accuracies), statistics.stdev(accuracies)
            counted = results[0]["sparsity"]["prunable"]
            title = f"{100 * counted['removed'] / counted['total']:.4g} %"
            assert on_page.pop((cell["method"], title)) == f"{mean:.2f} ± {sd:.2f}"
            assert float(cell["mean"]) == pytest.approx(mean, abs=1e-6)
            assert float(cell["sd"]) == pytest.approx(sd, abs=1e-6)
            assert float(cell["sparsity"]) == pytest.approx(counted["removed"] / counted["total"], abs=1e-6)
            assert cell["values"] == " ".join(f"{a:.4f}" for a in accuracies)
            assert int(cell["n"]) == 2
    assert on_page == {}
    assert used == set(found)


def test_the_page_says_how_it_was_made(page):
    text = page.with_suffix(".smoke.md").read_text()
    assert "**Scale smoke: not the published setting.**" in text
    assert "\n    python -m lthbench table=demo scale=smoke seed=0,1 jobs=1\n" in text
    assert f"![accuracy against sparsity]({page.name}.png)" in text
    assert "\nMade with lthbench " in text


def test_json_of_a_run(demo):
    for ident, run in runs(demo).items():
        assert run["schema"] == 1
        assert run["id"] == ident
        assert run["stages"]["result"] == ident
        assert 0 <= run["metrics"]["test"]["accuracy"] <= 1
        assert set(run["sparsity"]) == {"prunable", "weights", "parameters"}
        for count in run["sparsity"].values():
            assert 0 <= count["removed"] <= count["total"]
        assert len(run["final_weights_sha256"]) == 64
        assert run["seed"] in (0, 1)
        assert run["config"]["data"]["name"] == "standin_digits"
        assert run["environment"]["threads"] == 1
        kept = sum(layer["total"] - layer["kept"] for layer in run["layers"].values())
        assert kept == run["sparsity"]["prunable"]["removed"]


def test_again_computes_nothing_and_never_imports_torch(page):
    before = {p.name: p.read_bytes() for p in page.parent.iterdir()}
    code = (
        "import sys; from lthbench.cli.main import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ('torch imported' if 'torch' in sys.modules else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code, *DEMO], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, same = done.stderr.splitlines()  # at smoke scale an early point may be the initialisation
    assert head.startswith("Lottery tickets on digits: ") and same.startswith("4 cells mean the same run")
    assert done.stdout.splitlines()[-1] == f"stages: {STAGES} asked, 0 computed, {STAGES} reused"
    assert {p.name: p.read_bytes() for p in page.parent.iterdir()} == before


def test_report_makes_the_same_page(page, capsys):
    before = {p.name: p.read_bytes() for p in page.parent.glob("demo*")}
    for path in page.parent.iterdir():
        path.unlink()
    assert main(["report", *DEMO]) == 0
    assert {p.name: p.read_bytes() for p in page.parent.glob("demo*")} == before
    said = capsys.readouterr().out.splitlines()
    assert {f"o/leaderboards/demo.smoke.{k}" for k in ("md", "csv", "tex", "png", "cost.csv")} <= set(said)
    assert (page.parent / "index.html").is_file()


def test_report_of_everything(page, capsys):
    """With nothing named: all tables that have results (at their own seeds), and one page of all runs."""
    assert main(["report", "out=o"]) == 0
    out = capsys.readouterr().out
    assert "o/leaderboards/runs.md" in out
    assert "o/leaderboards/demo.smoke.md" in out
    assert "o/leaderboards/demo.md" not in out
    assert "lth_lenet" not in out
    assert main(["report", *DEMO]) == 0


def test_scales_do_not_mix(page, capsys):
    """The same table at another scale finds none of these runs."""
    assert main(["report", "table=demo", "out=o"]) == 0
    paper = page.with_name("demo.md")
    cells = [line for line in paper.read_text().splitlines() if line.startswith("|")][2:]
    assert all("not run" in line for line in cells)
    assert not page.with_name("demo.png").exists()
    paper.unlink()
    page.with_name("demo.csv").unlink()


def test_report_names_a_result_that_was_altered(page, capsys):
    path = next((page.parents[1] / "runs").iterdir())
    whole = path.read_text()
    path.write_text(whole.replace('"schema": 1', '"schema": 2'))
    try:
        capsys.readouterr()
        assert main(["report", *DEMO]) == 0
        assert f"passed over: 'o/runs/{path.name}' is no result of schema 1\n" in capsys.readouterr().err
    finally:
        path.write_text(whole)
