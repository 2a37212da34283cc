"""`lthbench trace`: the course of training of a grid's runs."""

import csv
from pathlib import Path

import pytest
from cli.conftest import Command


def values(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_a_grid_is_traced_and_nothing_is_done_twice(run: Command, here: Path):
    grid = (
        "trace pruner=random,rigl sparsity=0,0.9 schedule=oneshot train.epochs=2 train.batch=20 -m --points 3 out=out"
    )
    said = run(f"{grid} --images 50 --kernel 5")
    assert said.code == 0, said.err
    found = values(here / "out" / "leaderboards" / "grid.trace.csv")
    assert {row["method"] for row in found} == {"dense", "pruner=random", "pruner=rigl"}
    by = {name: [row for row in found if row["method"] == name] for name in ("dense", "pruner=random", "pruner=rigl")}
    for rows in by.values():
        assert [int(row["step"]) for row in rows] == [0, 48, 96, 144]
        assert [float(rows[0][q]) for q in ("distance", "churn")] == [0, 0]
        assert float(rows[0]["kernel_change"]) == pytest.approx(0, abs=1e-9)
        assert all(float(r["gradient_flow"]) == pytest.approx(float(r["gradient_norm"]) ** 2) for r in rows)
        assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert {float(row["churn"]) for row in by["pruner=random"]} == {0}, "its mask stays"
    page = (here / "out" / "leaderboards" / "grid.trace.md").read_text()
    assert "trace pruner=random,rigl" in page and "grid.trace.png" in page
    again = run(f"{grid} --images 50 --kernel 5")
    assert " 0 computed" in again.last
    assert page == (here / "out" / "leaderboards" / "grid.trace.md").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--points 0", "--points 0 is less than 1"),
        ("--kernel 1", "--kernel 1 is not between 2 and --images 512"),
        ("--images 5000", "--images 5000 of 1437 training images"),
        ("soup=uniform sparsity=0.5", "has no last training (soup=none)"),
    ],
)
def test_what_cannot_be_traced_is_refused(run: Command, here: Path, words: str, says: str):
    said = run(f"trace {words} out=out")
    assert said.code == 2
    assert says in said.err
    assert not (here / "out" / "runs").exists()
