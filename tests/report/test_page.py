"""The page of all leaderboards: what stands in it, and how it behaves in headless Chromium."""

from __future__ import annotations

import math
import re
import shutil
import statistics
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_runs import run
from test_compare import NEAR, compared

from lthbench.report.board import Board, board
from lthbench.report.html import page
from lthbench.report.verdicts import Verdict

HOSTILE = "</td><script>document.title = 'taken'</script>"
HOSTILE += "<img src=x onerror=\"document.title='taken'\"> $x^{ {{ 7*7 }} &amp; '"
LAYERS = {"fc1.weight": {"kept": 50, "total": 700}, "fc2.weight": {"kept": 50, "total": 300}}


def hostile() -> Board:
    """A leaderboard all of whose texts are meant to do harm."""
    cells = [(label, "0.9", run(0.5, removed=900, layers=LAYERS)) for label in (HOSTILE, "_hidden", "plain")]
    made = board("x<y", HOSTILE, cells, f"python -m lthbench {HOSTILE}", "small")
    made.assumptions, made.deviations, made.commands = [HOSTILE], [HOSTILE], {HOSTILE: HOSTILE}
    for e in made.entries:
        e.runs[0]["environment"]["processor"] = HOSTILE
        e.verdict = Verdict("undecided", HOSTILE, 0.1, -1.0, 1.2, 1, 1, 1.0)
    return made


def boards() -> list[Board]:
    runs = [run(x, s, removed=900, layers=LAYERS) for s, x in enumerate((0.901, 0.8999, 0.9005))]
    for seed, one in enumerate(runs):
        one["cost"] = {"train_seconds": 90.0 + seed, "peak_memory": 3 * 2**20}
    return [compared(runs), hostile()]


class Cells(HTMLParser):
    """The rows of the tables of cells, as texts, with the numbers that they are sorted by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, str | None]]]] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "table":
            self._open = "cells" in (said.get("class") or "")
            if self._open:
                self.tables.append([])
        if self._open and tag == "tr":
            self.tables[-1].append([])
        if self._open and tag in ("td", "th"):
            self.tables[-1][-1].append(("", said.get("data-order")))

    def handle_data(self, data: str) -> None:
        if self._open and self.tables[-1] and self.tables[-1][-1]:
            text, order = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text + data.strip("\n"), order)

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._open = False


# ---- what stands in it


def test_every_number_is_the_one_in_the_results():
    """From the runs' JSONs and the paper's file, by hand."""
    made = boards()[0]
    head, *rows = Cells(page([made], "")).tables[0]
    assert [text for text, _ in head] == [
        "method", "sparsity, %", "ours", "n", "published", "difference", "verdict", "runs",
    ]  # fmt: skip
    assert len(rows) == 3
    for row, e in zip(rows, made.entries):
        found = dict(zip([text for text, _ in head], row))
        mine = [100 * r["metrics"]["test"]["accuracy"] for r in e.runs]
        counted = e.runs[0]["sparsity"]["prunable"]
        assert found["method"][0] == e.label
        assert float(found["sparsity, %"][0]) == pytest.approx(100 * counted["removed"] / counted["total"])
        assert found["ours"] == (
            f"{statistics.fmean(mine):.2f} ± {statistics.stdev(mine):.2f}",
            f"{statistics.fmean(mine):.6g}",
        )
        assert found["n"] == ("3", "3")
        theirs = {"a": 90.0, "b": 80.0, "dense": 95.0}[e.label]
        assert found["published"][0].startswith(f"{theirs:.2f}")
        assert float(found["difference"][1] or math.nan) == pytest.approx(statistics.fmean(mine) - theirs, abs=1e-4)
        assert found["verdict"][0].split()[0] == e.verdict.word
        assert found["runs"][0].split() == [r["id"][:8] for r in e.runs]


def test_the_overview_counts_cells_and_claims():
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page(boards(), "python -m lthbench report")))
    assert "cells run 6 of 6" in text
    assert "reproduced, of those judged 2 of 6 (33%; 10% to 70%)" in text  # Wilson's interval
    assert "remade from the results by python -m lthbench report ." in text


def test_all_runs_are_not_counted_twice():
    everything = board("runs", "All runs", [("a", "0.9", run(0.9, removed=900))], "python -m lthbench report")
    for made, said in (([*boards(), everything], "6 of 6"), ([everything], "1 of 1")):
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page(made, "")))
        assert f"cells run {said}" in text


def test_layers_cost_and_commands_are_there():
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page(boards(), "")))
    assert "a 90 7.14 16.7" in text
    assert "a 3 91 s 3 MiB" in text
    assert "it is assumed" in text
    assert "python -m lthbench table=t" in text


def test_the_same_results_are_the_same_page():
    made = [compared([run(0.9, removed=900) | {"id": "a" * 32, "final_weights_sha256": "w"}])]
    assert page(made, "x") == page(made, "x")


def test_a_page_of_nothing():
    empty = board("x", "X", [("a", "0.5", None)], "python -m lthbench")
    text = page([empty], "x")
    assert "not run" in text
    assert "<svg" not in text
    assert page([], "x")


def test_it_fetches_nothing():
    text = page(boards(), "x")
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!#|https://datatables\.net)[^\"]*\"", text.split("<script>")[0])


def test_hostile_texts_are_texts():
    text = page([hostile()], HOSTILE)
    assert "<script>document" not in text
    assert "<img" not in text
    assert "49" not in re.findall(r"<h2[^>]*>(.*?)</h2>", text)[1]
    assert text.count("&lt;script&gt;document.title") >= 8


def many(count: int) -> list[Board]:
    """As many cells as there are results."""
    draw = [(7919 * i % count) / count for i in range(count)]
    runs = [run(x, removed=900, layers=LAYERS) for x in draw]
    return [board("runs", "All runs", [(f"method {i}", "0.9", r) for i, r in enumerate(runs)], "x")]


def test_ten_thousand_results_stay_below_5_mb():
    assert len(page(many(10_000), "x").encode()) < 5 * 10**6


# ---- in Chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def shown(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the page of some leaderboards from disk. Whatever it asks of the network, or breaks at, fails the test."""
    contexts, wrong = [], []

    def open_page(made: list[Board], width: int = 1280, scheme: str = "light", scripts: bool = True) -> Any:
        (tmp_path / "index.html").write_text(page(made, "python -m lthbench report"))
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda r: wrong.append(r.url) if not r.url.startswith("file:") else None)
        tab.goto((tmp_path / "index.html").as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def column(tab: Any, table: str, number: int) -> list[str]:
    return tab.eval_on_selector_all(f"{table} tbody tr > :nth-child({number})", "cells => cells.map(c => c.innerText)")


def open_all(tab: Any) -> None:
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")


CELLS = "table[data-name='cells of T']"


def test_sorts(shown):
    """By number, not by text; both ways; by mouse and by key."""
    tab = shown(boards())
    header = tab.locator(f"{CELLS} thead th").nth(5)
    header.locator("[role=button]").click()
    assert [float(d.split()[0]) for d in column(tab, CELLS, 6)] == sorted(
        float(d.split()[0]) for d in column(tab, CELLS, 6)
    )
    assert header.get_attribute("aria-sort") == "ascending"
    before = column(tab, CELLS, 1)
    header.locator("[role=button]").focus()
    tab.keyboard.press("Enter")
    assert column(tab, CELLS, 1) == before[::-1]


def test_filters(shown):
    tab = shown(boards())
    box = tab.get_by_label("Filter cells of T")
    box.fill("dense")
    assert column(tab, CELLS, 1) == ["dense"]
    box.fill("no such thing")
    assert "no such row" in tab.inner_text(CELLS)
    box.fill("")
    assert len(column(tab, CELLS, 1)) == 3


def test_a_hostile_method_name_does_nothing(shown):
    tab = shown([hostile()])
    assert tab.title() == "lthbench: leaderboards"
    assert HOSTILE in " ".join(column(tab, "table.cells", 1))
    box = tab.locator("section:not(#overview) input").first
    box.fill("onerror")
    assert len(column(tab, "table.cells", 1)) == 1
    assert tab.title() == "lthbench: leaderboards"
    assert tab.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_no_sideways_scroll_and_no_serious_finding(width, scheme, shown):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    tab = shown(boards(), width, scheme)
    open_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    found = axe.Axe().run(tab).response["violations"]
    serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []


def test_every_control_is_reached_by_tab(shown):
    tab = shown(boards())
    open_all(tab)
    tab.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    controls = "a[href], button, input, summary, [role=button], pre, .scroll"
    tab.evaluate(f"document.querySelectorAll('{controls}').forEach((c, i) => c.dataset.control = i)")
    wanted = {str(i) for i in range(tab.locator(controls).count())}
    reached = set()
    for _ in range(3 * len(wanted)):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.dataset.control"))
    assert wanted - reached == set()


def test_without_scripts_everything_is_there(shown):
    tab = shown(boards(), scripts=False)
    assert len(tab.locator(f"{CELLS} tbody tr").all()) == 3


def test_print_shows_all_and_no_controls(shown):
    tab = shown(boards())
    tab.emulate_media(media="print")
    assert not tab.locator(".dt-search").first.is_visible()
    assert tab.locator(".layers").first.is_visible()


def test_ten_thousand_results_sort(shown):
    tab = shown(many(10_000))
    table = "table[data-name='cells of All runs']"
    tab.locator(f"{table} thead th").nth(2).locator("[role=button]").click()
    assert column(tab, table, 3)[:2] == ["0.00", "0.01"]
    assert len(column(tab, table, 1)) == 100
    tab.get_by_label("Filter cells of All runs").fill("method 7919")
    assert column(tab, table, 1) == ["method 7919"]


def test_near_enough_is_what_the_fixture_says():
    """The numbers above rest on it."""
    assert statistics.fmean(NEAR) == pytest.approx(0.9001, abs=1e-4)
