"""Results of several folders, of older versions, and side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lthbench.programs.versions import NOW, outdated
from lthbench.stages import train

SMOKE = "scale=smoke schedule=oneshot sparsity=0.5 jobs=1"
CELL = "python -m lthbench"
NEXT = NOW["train"] + 1


def results(out: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((out / "runs").glob("*.json"))}


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture
def two(run, here):
    """Seeds 0 and 1 on one machine, 1 and 2 on another."""
    assert run(f"{SMOKE} seed=0,1 out=a -m").code == 0
    assert run(f"{SMOKE} seed=1,2 out=b -m").code == 0
    return here


def test_folders_are_one(two, run):
    """Each seed counts once, wherever it was computed; what is written goes to the first folder."""
    said = run(f"report {SMOKE} seed=0,1,2 out=a,b -m")
    assert (said.code, said.err) == (0, "")
    page = (two / "a" / "leaderboards" / "grid.smoke.md").read_text()
    assert "n = 3" in page
    assert not (two / "b" / "leaderboards" / "index.html").exists()
    assert (two / "a" / "leaderboards" / "index.html").exists()
    assert "(n = 2 of 3)" in run(f"report {SMOKE} seed=0,1,2 out=b -m").out
    assert "n = 3" in run("report out=a,b").out


def test_machines_that_disagree_are_told(two, run):
    shared = next(iter(results(two / "a").keys() & results(two / "b").keys()))
    rewrite(two / "b" / "runs" / f"{shared}.json", lambda r: r.update(final_weights_sha256="another machine's"))
    said = run("report out=a,b")
    assert said.code == 0
    assert said.err == f"{shared} differs between the folders, as machines do; the first one's is shown\n"


def test_foreign_files_are_passed_over(two, run):
    for number in range(7):
        (two / "a" / "runs" / f"{number}.json").write_text("{}")
    (two / "a" / "runs" / "notes.txt").write_text("mine")
    said = run("report out=a")
    assert said.code == 0
    assert said.err.splitlines() == [
        *(f"passed over: 'a/runs/{i}.json' is no result of schema 1" for i in range(5)),
        "passed over: 2 more files",
    ]
    assert "n = 2" in said.out


def test_a_folder_that_is_missing_is_named(two, refused):
    assert refused("report out=a,c") == "no results in 'c'; run something first, or say out=DIR"


# ---- versions


def test_a_result_holds_the_versions_of_its_stages(two):
    for result in results(two / "a").values():
        assert result["versions"] == {kind: NOW[kind] for kind in ("evaluate", "init", "prune", "train")}
        assert outdated(result) == []


def test_older_versions_are_said(two):
    result = next(iter(results(two / "a").values()))
    result["versions"]["train"] = 0
    result["config"]["model"]["version"] = 7
    assert outdated(result) == [f"train 0 (now {NOW['train']})", "lenet_300_100 7 (now 1)"]
    del result["versions"]
    assert outdated(result) == ["lenet_300_100 7 (now 1)"]


def test_stale_results_are_marked_and_not_mixed(two, run, monkeypatch):
    """After the training loop's version is raised, the same command finds none of its results, and says why."""
    monkeypatch.setattr(train, "VERSION", NEXT)
    monkeypatch.setattr("lthbench.programs.versions.NOW", NOW | {"train": NEXT})
    said = run(f"report {SMOKE} seed=0,1 out=a -m")
    assert said.code == 0
    page = (two / "a" / "leaderboards" / "grid.smoke.md").read_text()
    assert "| stale |" in page
    assert f"(stale: train {NEXT - 1} (now {NEXT}))" in (
        run("report out=a") and (two / "a/leaderboards/runs.md").read_text()
    )
    assert run(f"{SMOKE} seed=0 out=a").code == 0
    assert "(n = 1 of 2)" in run(f"report {SMOKE} seed=0,1 out=a -m").out
    labels = [line for line in (run("report out=a") and (two / "a/leaderboards/runs.md").read_text()).splitlines()
              if line.startswith("| lenet")]  # fmt: skip
    assert [("stale" in line) for line in labels] == [False, True]
    assert f"stale: computed with train {NEXT - 1} (now {NEXT})" in run(f"show {stale_id(two)} out=a").out


def stale_id(here: Path) -> str:
    return next(ident for ident, r in results(here / "a").items() if r["versions"]["train"] == NEXT - 1)


# ---- side by side


def test_how_two_runs_differ(two, run):
    by_seed = {r["seed"]: ident for ident, r in results(two / "a").items()}
    said = run(f"show {by_seed[0][:9]} {by_seed[1][:9]} out=a")
    assert said.code == 0
    assert "settings:\n  seed: 0 | 1\n" in said.out
    one, other = (results(two / "a")[by_seed[s]]["metrics"]["test"]["accuracy"] for s in (0, 1))
    assert f"test: accuracy {one:.4%} | {other:.4%} ({100 * (other - one):+.4f} points)" in said.out
    assert "stages in common: none" in said.out
    assert said.out.splitlines()[-1].split()[0] == "all"


def test_a_run_does_not_differ_from_itself(two, run):
    ident = next(iter(results(two / "a")))
    said = run(f"show {ident} {ident} out=a,b")
    assert "settings: the same\n" in said.out
    assert "final weights: the same\n" in said.out
    assert said.out.splitlines()[-1].split()[4] == "100.00%"


def test_without_masks_their_sizes_are_compared(two, run):
    a, b = list(results(two / "a"))
    for path in (two / "a" / "store").rglob("s*.safetensors"):
        path.unlink()
    said = run(f"show {a} {b} out=a")
    assert said.code == 0
    assert "only their sizes are compared" in said.out
    assert any(line.split()[0] == "fc1.weight" for line in said.out.splitlines())


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("show 0 1 2", "show: '2' has no meaning here; it takes an id, or two, and out=DIR"),
        ("show 0 1 --json", "show: --json and --chart take one id"),
        ("show 0 1 --chart x.png", "show: --json and --chart take one id"),
        ("show nosuch out=x,y", "no result begins with 'nosuch' in 'x/runs, y/runs'"),
        ("report archive=x out=.", "no results in '.'; run something first, or say out=DIR"),
    ],
)
def test_bad_input(command, line, refused):
    assert refused(command) == line


# ---- the row of a page


def test_the_command_of_a_row_is_that_row(run, here, monkeypatch):
    """`only=` with a whole label takes that row alone, though others hold its text."""
    from lthbench.cli.execute import _command_of

    (here / "own" / "table").mkdir(parents=True)
    (here / "own" / "table" / "mine.yaml").write_text(
        "rows:\n  - {label: 'a, it''s $x', sparsity: 0.5}\n  - {label: 'a, it''s $x too', sparsity: 0.9}\n"
    )
    import shlex

    words = shlex.split(_command_of("a, it's $x", f"{CELL} table=mine --config-dir own"))[3:]
    said = run(shlex.join(["plan", "--no-timing", *words]))
    assert said.out.startswith("mine: 1 cells\n"), said


def test_plan_says_which_verdicts_can_be_had(run):
    assert "verdicts to be had at best: 14 reproduced, 7 undecided" in run("plan --no-timing table=lth_lenet").out
    small = run("plan --no-timing table=lth_lenet scale=small").out
    assert "verdicts: none on cells, the scale is not the published one" in small
    assert "verdicts" not in run("plan --no-timing table=demo").out
