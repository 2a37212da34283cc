"""Leaderboards: cells from results, what a page says of them, in every form."""

from __future__ import annotations

import csv
import io
import math

import pytest
from rich.console import Console

from lthbench.report import html, write
from lthbench.report.board import Board, board
from lthbench.report.latex import latex
from lthbench.report.plot import plot


def result(accuracy: float, removed: int = 0, diverged: int | None = None, ident: str = "a") -> dict:
    """What a page needs of a run's JSON."""
    return {
        "id": ident,
        "metrics": {"test": {"accuracy": accuracy}},
        "sparsity": {"prunable": {"removed": removed, "total": 1000}},
        "diverged_at": diverged,
        "seed": 0,
        "cost": {"train_seconds": 1.5, "peak_memory": 7},
        "environment": {"lthbench": "1", "torch": "2", "device": "cpu", "processor": "P", "threads": 1},
    }


@pytest.fixture
def small() -> Board:
    return board(
        "small",
        "A small one",
        [
            ("dense", "0", result(0.98, ident="d0")),
            ("dense", "0", result(0.96, ident="d1")),
            ("ticket", "0.5", result(0.99, 500, ident="t0")),
            ("ticket", "0.5", result(0.95, 500, ident="t1")),
            ("ticket", "0.9", result(0.90, 900, ident="t2")),
            ("ticket", "0.9", None),
            ("random", "0.5", result(0.10, 500, diverged=7, ident="r0")),
            ("random", "0.5", result(0.30, 500, ident="r1")),
            ("random", "0.9", None),
            ("random", "0.9", None),
        ],
        "python -m lthbench table=small",
    )


def test_cells(small):
    texts = {(e.label, e.asked): e.text() for e in small.entries}
    assert texts == {
        ("dense", "0"): "97.00 ± 1.41",
        ("ticket", "0.5"): "97.00 ± 2.83",
        ("ticket", "0.9"): "90.00 (n = 1 of 2)",
        ("random", "0.5"): "20.00 ± 14.14 †1",
        ("random", "0.9"): "not run",
    }


def test_spread_of_one_run_is_unknown(small):
    entry = small.cell("ticket", "0.9")
    assert entry.mean == 90
    assert math.isnan(entry.sd)
    assert math.isnan(small.cell("random", "0.9").mean)
    assert small.cell("random", "0") is None


def test_columns_are_ordered_by_what_was_removed():
    made = board("x", "X", [("a", asked, result(0.5, removed)) for asked, removed in (
        ("level:2", 360), ("level:10", 893), ("0", 0), ("level:1", 200))], "")  # fmt: skip
    assert made.columns == ["0", "level:1", "level:2", "level:10"]
    assert [made.column_title(c) for c in made.columns] == ["0 %", "20 %", "36 %", "89.3 %"]


def test_a_column_without_results_bears_what_was_asked(small):
    assert board("x", "X", [("a", "0.9", None)], "").column_title("0.9") == "sparsity=0.9"


def test_markdown(small):
    assert write.markdown(small) == (
        "# A small one\n\n"
        "Test accuracy in percent, mean ± standard deviation over seeds (n = 1 to 2). "
        "Sparsity is the share of the prunable weights that was removed.\n\n"
        "| method | 0 % | 50 % | 90 % |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| dense | 97.00 ± 1.41 |  |  |\n"
        "| ticket |  | 97.00 ± 2.83 | 90.00 (n = 1 of 2) |\n"
        "| random |  | 20.00 ± 14.14 †1 | not run |\n\n"
        "![accuracy against sparsity](small.png)\n\n"
        "† runs whose training diverged\n\n"
        "    python -m lthbench table=small\n\n"
        "Made with lthbench 1, torch 2, cpu (P, 1 thread(s)).\n"
    )


def budget(**epochs: list[float]) -> Board:
    """Methods at 50 and 90 %, with the epochs that their runs rest on."""
    cells = [(label, asked, result(0.9, 500)) for label in epochs for asked in ("0.5", "0.9")]
    made = board("x", "X", cells, "")
    for entry in made.entries:
        entry.runs[0]["layers"] = {}
        entry.epochs = epochs[entry.label][entry.asked == "0.9"]
    return made


def test_different_budgets_are_said_on_every_page():
    made = budget(snip=[20, 20], magnitude=[80, 240], grasp=[20, 20])
    line = "Budgets differ; epochs of training that a run rests on: 80 to 240 (magnitude), 20 (snip; grasp)."
    assert made.budgets() == line
    console = Console(width=200, record=True, file=io.StringIO())
    write.terminal(made, console)
    for page in (write.markdown(made), latex(made), html.page([made], ""), console.export_text()):
        assert line in page
    made = budget(**{label: [20, 20] for label in "abcde"}, late=[40, 40])
    assert made.budgets().endswith("on: 40 (late), 20 (all others).")


@pytest.mark.parametrize("epochs", [{"a": [80, 240], "b": [78, 235]}, {"a": [20, 40]}, {"a": [None, None]}])
def test_equal_budgets_are_not_mentioned(epochs):
    """Rewinding to step k saves k steps a round: that is no other budget."""
    made = budget(**epochs)
    assert made.budgets() == ""
    assert "Budget" not in write.markdown(made) + latex(made) + html.page([made], "")


def test_budgets_are_compared_within_a_network():
    made = budget(a=[20, 20], b=[160, 160])
    made.entries[2].block = made.entries[3].block = "another"
    assert made.budgets() == ""


def test_other_scales_are_marked(small):
    small.scale = "small"
    assert "**Scale small: not the published setting.**" in write.markdown(small)


def test_csv(small):
    rows = list(csv.DictReader(io.StringIO(write.table_csv(small))))
    assert rows[1] == {
        "method": "ticket", "asked": "0.5", "sparsity": "0.500000", "n": "2", "mean": "97.0",
        "sd": "2.828427", "values": "99.0000 95.0000", "diverged": "0", "runs": "t0 t1",
    }  # fmt: skip
    assert [row["n"] for row in rows] == ["2", "2", "1", "2", "0"]
    assert (rows[2]["sd"], rows[4]["mean"], rows[4]["sparsity"]) == ("", "", "")


def test_many_sparsities_stand_in_rows():
    made = board("x", "X", [("a|b", str(i), result(0.5, 100 * i)) for i in range(9)], "")
    head, rows = write.grid(made)
    assert head == ["sparsity", "a|b"]
    assert rows[8] == ["80 %", "50.00"]
    assert "| sparsity | a\\|b |" in write.markdown(made)


def test_terminal_shows_the_best_of_each_column_and_no_label_as_markup(small):
    small.entries[0].label = "[dense]"
    console = Console(width=120, record=True, file=io.StringIO(), force_terminal=True)
    write.terminal(small, console)
    text = console.export_text(clear=False)
    assert text.startswith("A small one: Test accuracy in percent, n = 1 to 2\n")
    assert "[dense]" in text
    assert "\x1b[1m97.00 ± 2.83\x1b[0m" in console.export_text(styles=True)


def test_files(small, tmp_path):
    paths = write.write(small, tmp_path / "pages")
    assert [p.name for p in paths] == ["small.md", "small.csv", "small.tex", "small.png", "small.cost.csv"]
    assert sorted(p.name for p in (tmp_path / "pages").iterdir()) == [
        "small.cost.csv",
        "small.csv",
        "small.md",
        "small.png",
        "small.tex",
    ]
    assert paths[3].read_bytes().startswith(b"\x89PNG")
    assert plot(small) == paths[3].read_bytes()


def test_no_picture_of_nothing(tmp_path):
    paths = write.write(board("x", "X", [("a", "0.5", None)], ""), tmp_path)
    assert [p.name for p in paths] == ["x.md", "x.csv", "x.tex"]
    assert "x.png" not in paths[0].read_text()


def test_every_method_has_a_line_in_the_picture(small, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    errorbar, axhline = Axes.errorbar, Axes.axhline
    monkeypatch.setattr(
        Axes,
        "errorbar",
        lambda self, x, y, **k: drawn.append((k["label"], x, y, k["yerr"])) or errorbar(self, x, y, **k),
    )
    monkeypatch.setattr(Axes, "axhline", lambda self, y, **k: drawn.append((k["label"], y)) or axhline(self, y, **k))
    plot(small)
    assert [d[0] for d in drawn] == ["dense", "ticket", "random"]
    assert drawn[0][1] == 97
    assert drawn[1][1:3] == ([50, pytest.approx(10)], [97, 90])
    assert drawn[1][3] == [pytest.approx(2.828427), 0.0]
