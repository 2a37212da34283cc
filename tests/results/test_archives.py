"""What is committed under results/ is what its runs say: every leaderboard is made again and compared."""

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
