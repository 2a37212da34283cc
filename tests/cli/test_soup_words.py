"""Soups and retraining as a user says them: what is implied, what is refused, what is printed."""

import hashlib
import json
from pathlib import Path

import pytest

from lthbench.cli.compose import composer
from lthbench.cli.grid import expand

FEW = "dataset.validation=200 train.epochs=1 retrain.epochs=1 model.width=0.1"
SOUPS = ("uniform", "greedy", "best", "mean", "ensemble", "reprune")


def run_of(*words):
    with composer(None) as compose:
        return expand(compose, list(words), multirun=False).experiments[0].run


def test_a_soup_implies_its_rewinding_and_retraining_unless_they_are_named():
    for soup in SOUPS:
        run = run_of(f"soup={soup}", "dataset.validation=200")
        assert (run.rewind.to, run.retraining.name, run.soup.m) == ("none", "llr", 3)
    run = run_of("soup=uniform", "rewind=none")
    assert (run.rewind.to, run.retraining.name) == ("none", "llr")
    run = run_of("soup=uniform", "retrain=clr")
    assert (run.rewind.to, run.retraining.name) == ("none", "clr")
    run = run_of("soup=uniform", "rewind=early")
    assert (run.rewind.to, run.retraining.name) == ("early", "llr")
    run = run_of()
    assert (run.rewind.to, run.retraining.name, run.soup.name) == ("init", "replay", "none")


def test_every_soup_runs_and_counts_what_it_asked_and_computed(run, here):
    said = run(f"soup={','.join(SOUPS)} schedule=geometric schedule.rounds=2 sparsity=0.9 {FEW} -m jobs=1")
    assert said.code == 0
    asked, computed, reused = (int(word) for word in said.last.replace(",", "").split() if word.isdigit())
    assert asked == computed > 20 and reused == 0
    again = run(f"soup={','.join(SOUPS)} schedule=geometric schedule.rounds=2 sparsity=0.9 {FEW} -m jobs=1")
    assert again.last == f"stages: {asked} asked, 0 computed, {asked} reused"
    found = [json.loads(path.read_text()) for path in Path("results/out/runs").glob("*.json")]
    assert len(found) == 6 and len({f["sparsity"]["prunable"]["removed"] for f in found}) == 1
    [greedy] = [f for f in found if f.get("soup", {}).get("rule") == "greedy"]
    assert set(greedy["soup"]) == {"members", "rule", "accuracies", "order", "trials", "chosen"}


def test_a_tenth_is_held_out_where_soups_choose_and_nobody_says_how_much(run):
    """In all runs of the command, which so share their trainings."""
    words = "soup=uniform,greedy rewind=none retrain=llr schedule=oneshot train.epochs=5 retrain.epochs=2 -m"
    said = run(f"plan {words} --no-timing")
    assert said.last.endswith("11.0 epochs (22.0 naive)") and "a tenth of the training images is held out" in said.out
    alone = run(f"plan {words.replace('uniform,greedy', 'none,uniform')} --no-timing")
    assert "held out" not in alone.out
    with composer(None) as compose:
        grids = [expand(compose, ["soup=uniform,greedy", *more], True) for more in ([], ["dataset.validation=9"])]
    assert [{e.run.data.validation for e in grid.experiments} for grid in grids] == [{143}, {9}]
    assert [grid.held_out for grid in grids] == [True, False]


def test_one_round_costs_its_candidates(run):
    words = "dataset.validation=200 train.epochs=5 retrain.epochs=2 schedule=oneshot -m"
    said = run(f"plan soup=uniform,greedy,best,mean,ensemble {words}")
    assert said.last.endswith("distinct stages, 11.0 epochs (55.0 naive)")  # 5 + 3 * 2


def test_bimp_is_a_shorter_linear_training_and_rounds_that_share_a_budget():
    run = run_of("retrain=bimp", "rewind=none", "train.epochs=10", "retrain.total=7", "schedule=geometric")
    assert (run.recipe.schedule.kind, run.recipe.schedule.milestones) == ("linear", ())
    assert run.recipe.schedule.total == run.steps == 240
    assert [run.retrained(run.retraining, n).steps for n in (1, 2, 3)] == [48, 48, 72]
    assert run.first_round.adapt.share == "round"


REFUSED = [
    ("soup=uniform soup.m=0", "soup.m: 0 is less than 1"),
    ("soup=unifrm", "no option 'unifrm' in group 'soup'; did you mean 'uniform'?"),
    ("soup=greedy dataset.validation=0", "soup=greedy chooses by validation images: it needs dataset.validation > 0"),
    ("soup=best dataset.validation=0", "soup=best chooses by validation images: it needs dataset.validation > 0"),
    ("soup=uniform soup.vary=lr", "soup.vary=lr needs soup.values (one for each copy) or soup.draw (two bounds)"),
    ("soup=uniform soup.vary=lr 'soup.values=[0.1,0.2]'", "soup.values: 2 values for soup.m=3 copies"),
    ("soup=uniform soup.vary=sed", "soup.vary: unknown choice 'sed'; did you mean 'seed'?"),
    ("soup=uniform soup.values=3", "soup.values: 3 is not a list"),
    ("soup=uniform control=reinit", "soup=uniform, control=reinit: one of them, the other none"),
    ("recalibrate.how=smss", "recalibrate.how: unknown choice 'smss'; did you mean 'sms'?"),
    ("recalibrate=sms", "'recalibrate' is a group of settings; say recalibrate.how=..."),
    ("robustness=cifar_c", "robustness=cifar_c is for colour images of 32x32, not digits's"),
    (
        "robustness=cifar_c dataset=cifar10 'robustness.corruptions=[fgo]'",
        "robustness.corruptions: unknown 'fgo'; did you mean 'fog'?",
    ),
    (
        "robustness=cifar_c dataset=cifar10 'robustness.severities=[6]'",
        "robustness.severities: 6 is not 1, 2, 3, 4 or 5",
    ),
    ("robustness=cifar_c dataset=cifar10 robustness.images=0", "robustness.images: 0 is less than 1"),
    ("rewind=none retrain=alr", "no option 'alr' in group 'retrain'; did you mean 'allr'?"),
    ("rewind=none retrain=allr retrain.share=rond", "retrain.share: unknown choice 'rond'; did you mean 'round'?"),
    ("rewind=none retrain=llr retrain.budget=0", "retrain.budget: 0 is less than 1"),
    ("rewind=none retrain=llr retrain.epochs=1 retrain.total=2",
     "retrain.epochs, retrain.total: one of them, the other null"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "message"), REFUSED)
def test_what_is_refused(command, message, refused):
    assert refused(command) == message


GIVEN = "rewind=none model.weights=mine.pt"
UNKNOWN = [
    ("retrain=allr", "retrain=allr needs the length of the training that made model.weights: say train.epochs=N"),
    ("retrain=lrw", "retrain=lrw replays the training that made model.weights: say which, train=NAME"),
]


@pytest.mark.parametrize(("words", "message"), UNKNOWN)
def test_given_weights_whose_training_is_not_known(words, message, refused, here):
    (here / "mine.pt").touch()
    assert refused(f"{GIVEN} {words}") == message


def test_given_weights_whose_training_is_told(here):
    (here / "mine.pt").touch()
    weights = "model.weights=mine.pt"
    assert run_of("rewind=none", weights, "retrain=allr", "train.epochs=200").first_round.adapt.lowest < 1
    assert run_of("rewind=none", weights, "retrain=lrw", "train=lenet").retraining.name == "lrw"
    assert run_of(weights, "sparsity=0").given_dense
    assert run_of("rewind=none", weights, "retrain=llr").retraining.name == "llr"


def test_given_weights_may_be_named_by_their_digest_unless_they_are_computed_with(refused, here):
    (here / "mine.pt").write_bytes(b"weights")
    sha = hashlib.sha256(b"weights").hexdigest()
    soup = ["soup=uniform", "rewind=none"]
    assert run_of(*soup, f"model.weights={sha}").weights == run_of(*soup, "model.weights=mine.pt").weights == sha
    assert refused(f"soup=uniform model.weights={sha}") == f"model.weights: name the file of sha256 {sha}"
