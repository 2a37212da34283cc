"""Tuning: the same number of trials for each method, chosen on validation, reported on test."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from lthbench.cli.compose import Composer, composer
from lthbench.cli.tuning import Trial, Tune, chosen, tuning


@pytest.fixture
def composing() -> Iterator[Composer]:
    with composer(None) as compose:
        yield compose


def result(val: float | None, test: float = 0.5) -> dict:
    return {"metrics": {"val": {"accuracy": val}, "test": {"accuracy": test}}}


def test_what_is_said(composing):
    tune, rest = tuning(composing, ["seed=0", "tune=train.lr:0.1,0.2", "sparsity=0.5"])
    assert (tune, rest) == (Tune({"": ("train.lr=0.1", "train.lr=0.2")}), ["seed=0", "sparsity=0.5"])
    tune, _ = tuning(composing, ["tune=grasp/pruner.temperature:1,200;snip/pruner.batch:64,128"])
    assert tune.of("snip") == ("pruner.batch=64", "pruner.batch=128")
    assert (tune.of("magnitude"), tune.budget) == ((), 2)
    assert tune.keys == {"pruner.temperature", "pruner.batch"}
    assert tuning(composing, ["seed=0"]) == (None, ["seed=0"])


def test_values_are_read_as_those_of_a_grid(composing):
    tune, _ = tuning(composing, ["tune=train.schedule.milestones:[10,15],[12,18]"])
    assert tune.of("any") == ("train.schedule.milestones=[10,15]", "train.schedule.milestones=[12,18]")
    tune, _ = tuning(composing, ["tune=pruner.rounds:range(1,4)"])
    assert tune.of("any") == ("pruner.rounds=1", "pruner.rounds=2", "pruner.rounds=3")


def test_the_choice_is_by_validation_alone():
    """The trial that is best on test loses, and means over seeds decide, not single runs."""
    tune = Tune({"": ("a=1", "a=2")})
    trials = [Trial("m", "0.5", f"a={a}", f"{a} {v} {t}", result(v, t)) for a, v, t in
              ((1, 0.8, 0.1), (2, 0.99, 0.9), (1, 0.8, 0.2), (2, 0.5, 0.9))]  # fmt: skip
    shown, lines = chosen(tune, trials)
    assert [r["metrics"]["test"]["accuracy"] for _, _, r in shown] == [0.1, 0.2]
    assert lines[1] == "m, sparsity=0.5: tuned, a=1 (80.00 % on validation)"


def test_of_equals_the_first_and_of_the_unfinished_none():
    tune = Tune({"x": ("a=1", "a=2")})
    trials = [Trial("m", "0", f"a={a}", f"m{a}", result(0.7, a / 10)) for a in (1, 2)]
    trials += [Trial("n", "0", "a=1", "n1", result(0.7)), Trial("n", "0", "a=2", "n2")]
    trials += [Trial("d", "0", "", "d", result(None)), *(Trial("e", "0", f"a={a}", "e", result(0.7)) for a in (1, 2))]
    shown, lines = chosen(tune, trials)
    assert [(label, r and r["metrics"]["test"]["accuracy"]) for label, _, r in shown] == [
        ("m", 0.1),
        ("n", None),
        ("d", 0.5),
        ("e", 0.5),
    ]
    assert lines[2:] == [
        "n, sparsity=0: 1 of 2 trials are not run",
        "d, sparsity=0: not tuned",
        "e, sparsity=0: not tuned, what is tried has no effect there",
    ]


def test_on_the_command_line(run, here):
    """By hand from the runs' JSONs."""
    words = "pruner=magnitude,random sparsity=0.5 seed=0,1 dataset.validation=200 train.epochs=1 schedule=oneshot -m"
    said = run(f"{words} tune=train.lr:0.0001,0.01 jobs=1 out=o")
    assert said.code == 0, said.err
    runs = [json.loads(path.read_text()) for path in (here / "o" / "runs").glob("*.json")]
    assert len(runs) == 2 * 2 * 2
    page = (here / "o" / "leaderboards" / "grid.tuned.md").read_text()
    for method in ("magnitude", "random"):
        by_lr: dict[float, list[dict]] = {}
        for r in runs:
            if r["config"]["pruner"]["criterion"]["name"] == method:
                by_lr.setdefault(r["config"]["train"]["lr"], []).append(r["metrics"])
        best = max(by_lr, key=lambda lr: statistics.fmean(m["val"]["accuracy"] for m in by_lr[lr]))
        mean = 100 * statistics.fmean(m["test"]["accuracy"] for m in by_lr[best])
        row = next(line for line in page.splitlines() if line.startswith(f"| pruner={method} "))
        assert f"| {mean:.2f} ± " in row
        assert f"- pruner={method}, sparsity=0.5: tuned, train.lr={best:g} (" in page
    assert "## Tuning\n\n- settings are chosen on validation images" in page
    assert "2 trials a method and sparsity" in page
    assert run(f"plan {words} tune=train.lr:0.0001,0.01 --no-timing").last.startswith("plan: 8 runs, ")


def test_a_tuned_table_is_not_the_papers(run, here):
    said = run("report table=lth_lenet tune=train.lr:0.1,0.2 out=o")
    assert said.code == 2  # no results yet
    Path("o/runs").mkdir(parents=True)
    assert run("report table=lth_lenet only=one-shot tune=train.lr:0.1,0.2 out=o").code == 0
    page = Path("o/leaderboards/lth_lenet.tuned.md").read_text()
    assert "2 of 2 trials are not run" in page
    assert "Claims" not in page and "published" not in page


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("tune=train.lr:0.1,0.2", "tune: settings are chosen on validation images; say dataset.validation=N"),
        ("tune=train.lr", "tune: cannot read 'train.lr'; it is KEY:VALUE,VALUE or CRITERION/KEY:VALUE,VALUE;..."),
        ("tune=train.lr:0.1", "tune: 'train.lr:0.1' needs two values or more, each once"),
        ("tune=train.lr:0.1,0.2,0.10", "tune: 'train.lr:0.1,0.2,0.10' needs two values or more, each once"),
        (
            "tune=seed:0,1",
            "tune: seed is no setting of a method; those are in allocation, compress, pruner, recalibrate, "
            "retrain, rewind, schedule, soup, train",
        ),
        (
            "dataset.validation=100 rewind=early tune=rewind.k:0.0001,0.0002,0.5",
            "tune: 3 trials of dataset.validation=100 rewind=early are 2 different ones",
        ),
        (
            "dataset.validation=100 tune=magnitud/train.lr:1,2",
            "tune: nothing here prunes by 'magnitud'; did you mean 'magnitude'?",
        ),
        ("table=lth_vgg_19 tune=train.lr:1,2", "tune: train.lr is what makes 'reset, lr 0.1' this row"),
        ("tune=:1,2", "tune: cannot read ':1,2'; it is KEY:VALUE,VALUE or CRITERION/KEY:VALUE,VALUE;..."),
        ("'tune=a/train.lr:1,2;b/train.lr:1,2,3'", "tune: 2 of a, 3 of b: each method has the same number of trials"),
        ("dataset.validation=100 tune=train.lrr:1,2", "unknown key 'train.lrr'; did you mean 'train.lr'?"),
        ("dataset.validation=100 tune=train.lr:a,2", "train.lr: 'a' is not a number"),
        (
            "-m hydra/launcher=basic tune=train.lr:1,2",
            "tune is chosen here, not by Hydra's launchers: leave out tune or hydra/...",
        ),
    ],
)
def test_bad_input(command, line, refused):
    assert refused(command) == line
