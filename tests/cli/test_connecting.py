"""`lthbench connect`: two states by their runs, and the barriers of a grid."""

import csv
from pathlib import Path

import pytest

GRID = "soup=instability rewind.k=0,5 rewind.unit=iteration sparsity=0 train.epochs=1 model.width=0.1 seed=0,1 -m"


def ids():
    return sorted(path.stem for path in Path("results/out/runs").glob("*.json"))


def test_pairs_grids_and_what_is_refused(run, here):
    assert run("connect a").err == "lthbench: connect: two states make a line, not 1; see lthbench connect --help\n"
    assert run(f"connect {GRID}").err == (
        "lthbench: connect: no result of this grid has a line; run soup=instability first\n"
    )
    assert run("connect a b").err == "lthbench: no result begins with 'a' in 'results/out/runs'\n"
    assert run(f"{GRID} jobs=1").code == 0
    one, other, *_ = ids()

    said = run(f"connect {one[:12]} {other[:12]} --points 3 --splits train,test")
    assert said.code == 0 and "test barrier: " in said.out
    picture = Path(said.last)
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = run(f"connect {other} {one} --points 3 --splits train,test")
    assert [line for line in again.out.splitlines() if "barrier" in line] == [
        line for line in said.out.splitlines() if "barrier" in line
    ]
    same = run(f"connect {one} {one} --points 3")
    assert "distance 0, relative 0, angle 0 degrees" in same.out
    assert "test barrier: 0 points of error, 0 in loss" in same.out
    copies = run(f"connect '{one}:net 1.0' '{one}:net 1.1' --points 3")
    assert copies.code == 0 and "distance 0," not in copies.out

    said = run(f"connect {GRID}")
    assert said.code == 0
    page, table, picture = (Path(line) for line in said.out.splitlines()[-3:])
    head, *rows = csv.reader(table.read_text().splitlines())
    assert head[1:4] == ["sparsity", "k", "n"] and [row[1:4] for row in rows] == [["0 %", "0", "2"], ["0 %", "5", "2"]]
    assert "![barrier against k](grid.barriers.png)" in page.read_text() and picture.is_file()

    for words, message in (
        (f"{one} '{one}:net 2.0'", "has no 'net 2.0'; did you mean 'net 1.0'?"),
        (f"{one} {one} --points 1", "connect: --points 1 is less than 2, the ends of the line"),
        (f"{one} {one} --splits val", "connect: --splits: digits has no 'val' here"),
        (f"{one} {one} --recalibrate smss", "connect: argument --recalibrate: invalid choice: 'smss'"),
    ):
        said = run(f"connect {words}")
        assert said.code == 2 and said.err.count("\n") == 1 and message in said.err


@pytest.mark.parametrize("word", ["show", "report"])
def test_results_of_soups_and_pairs_can_be_shown(run, here, word):
    words = "train.epochs=1 model.width=0.1 jobs=1"
    run(f"soup=instability rewind.k=0 sparsity=0 {words}")
    run(f"soup=uniform sparsity=0.9 schedule=oneshot retrain.epochs=1 soup.m=2 {words}")
    for ident in ids():
        said = run(f"show {ident}" if word == "show" else "report")
        assert said.code == 0, said.err
        assert "digits" in said.out
