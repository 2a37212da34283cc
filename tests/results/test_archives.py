"""What is committed under results/ is what its runs say: every leaderboard is made again and compared."""

import gzip
import shutil
from pathlib import Path

import pytest

from lthbench.cli.main import main
from lthbench.report.write import RUNS

RESULTS = Path(__file__).parents[2] / "results"
ARCHIVES = sorted(path.parent for path in RESULTS.glob(f"*/{RUNS}"))


def test_there_are_results():
    assert {path.name for path in ARCHIVES} >= {"demo", "lth_lenet"}


@pytest.mark.parametrize("folder", ARCHIVES, ids=lambda path: path.name)
def test_a_committed_leaderboard_is_what_its_runs_say(folder, tmp_path, capsys):
    assert main(["report", f"table={folder.name}", f"from={folder}", f"out={tmp_path}"]) == 0
    for kind in ("md", "csv"):
        made = (tmp_path / "leaderboards" / f"{folder.name}.{kind}").read_text()
        assert made == (folder / f"{folder.name}.{kind}").read_text()


def test_the_committed_critical_compressions_are_those_of_their_table(tmp_path, monkeypatch):
    """Nothing is left to search, and the page is what the searches found."""
    shutil.copytree(RESULTS / "critical", tmp_path / "critical")
    monkeypatch.setattr("lthbench.cli.critical._search", lambda run: pytest.fail(f"{run.model.name} is not there"))
    assert main(["critical", "table=critical", f"out={tmp_path}"]) == 0
    made, committed = (folder / "critical" / "critical.md" for folder in (tmp_path, RESULTS))
    here = ("lthbench ", "    python -m")  # versions, and where it was written
    pages = [[line for line in p.read_text().splitlines() if not line.startswith(here)] for p in (made, committed)]
    assert pages[0] == pages[1]


def test_several_archives_become_one_set_of_results(tmp_path, capsys):
    folders = [RESULTS / name for name in ("demo", "at_init_mnist")]
    assert main(["report", "table=demo", f"from={folders[0]},{folders[1]}", f"out={tmp_path}"]) == 0
    kept = [gzip.decompress((folder / RUNS).read_bytes()).splitlines() for folder in folders]
    assert len(list((tmp_path / "runs").glob("*.json"))) == sum(map(len, kept))
