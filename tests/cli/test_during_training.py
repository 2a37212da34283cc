"""Pruning during training by the command line: plan, run, kill and resume, report, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from engine.small_runs import contents

from lthbench.programs import record
from lthbench.pruning.dynamics import METHODS

SMALL = "dataset=digits model=lenet_300_100 model.width=0.1 train.batch=150 train.epochs=3 jobs=1"  # 30 steps
NAMES = [name for name in METHODS if not METHODS[name].early]  # those: test_early_tickets.py
EVERY = "pruner.every=4 pruner.every_unit=iteration"


def results(out):
    return [record.read(path) for path in sorted((out / "runs").glob("*.json"))]


def test_each_method_is_a_word_of_its_own(run, here):
    said = run(f"pruner={','.join(NAMES)} sparsity=0.8 {SMALL} -m")
    assert said.code == 0, said.err
    found = {r["config"]["pruner"]["criterion"]["name"]: r for r in results(here / "results/out")}
    assert set(found) == set(NAMES)
    for name, result in found.items():
        sparsity = result["sparsity"]["prunable"]
        exact = (8 * sparsity["total"] + 5) // 10
        assert METHODS[name].outcome or sparsity["removed"] == exact
        assert result["config"]["pruner"]["program"] == "during_training"
        assert "retrain" not in result["config"]
        assert (result["config"]["rounds"], result["config"]["allocation"] is None) == (
            ([None], True) if METHODS[name].outcome else (["1/5"], False)
        )
    board = (here / "results/out/leaderboards/grid.md").read_text()
    assert len(board.split("| method |")[1].splitlines()[0].split("|")) == 4  # 80 %, and two outcomes
    shown = run(f"show {found['movement']['id']}")
    assert shown.code == 0 and "fc1.weight" in shown.out
    again = run(f"pruner={','.join(NAMES)} sparsity=0.8 {SMALL} -m")
    assert " 0 computed" in again.last


def test_what_is_taken_away_is_the_sparse_network(run, here):
    assert run(f"pruner=movement sparsity=0.9 {SMALL}").code == 0
    (result,) = results(here / "results/out")
    assert run(f"export {result['id']} to=ticket").code == 0
    from safetensors.torch import load_file

    weights, mask = load_file(here / "ticket/weights.safetensors"), load_file(here / "ticket/mask.safetensors")
    assert sum(int((~kept).sum()) for kept in mask.values()) == result["sparsity"]["prunable"]["removed"]
    assert all(not weights[name][~kept].any() for name, kept in mask.items())


def test_the_part_before_the_first_pruning_is_the_dense_run(run):
    said = run(f"plan pruner=gmp pruner.begin=1 pruner.end=2 pruner.unit=epoch sparsity=0,0.5,0.9 {SMALL} -m")
    assert said.code == 0
    assert said.last == "plan: 3 runs, 7 distinct stages, 7.0 epochs (9.0 naive)"


def test_how_it_is_written_is_no_matter(run):
    spelled = [
        "pruner.begin=0.2 pruner.end=0.8",
        "pruner.begin=6 pruner.end=24 pruner.unit=iteration",
        "pruner.begin=0.6 pruner.end=2.4 pruner.unit=epoch pruner.initial=0.0",
    ]
    for words in spelled:
        assert run(f"pruner=gmp sparsity=0.9 {EVERY} {words} {SMALL} rewind=early retrain=llr").code == 0
    assert " 0 computed" in run(f"pruner=gmp sparsity=9e-1 {EVERY} {SMALL}").last


def test_sparsity_means_nothing_where_it_is_an_outcome(run):
    said = run(f"plan pruner=l0 sparsity=0.5,0.9 allocation=global,erk {SMALL} -m")
    assert said.last.startswith("plan: 1 runs")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "pruner=gmp pruner.begin=0.9 pruner.end=0.5",
            "pruner.end: 0.5 ratio is step 15, before pruner.begin at step 27",
        ),
        ("pruner=rigl pruner.end=4 pruner.unit=epoch", "pruner.end: 4 epoch is step 40; training ends at 30"),
        ("pruner=soft_movement pruner.threshold=1", "pruner.threshold: 1.0 is not in 0 < t < 1"),
        (
            "pruner=gmp pruner.initial=0.9 sparsity=0.5",
            "pruner.initial: 9/10 is more than sparsity=0.5, where it shall end",
        ),
        (
            "pruner=gmp control=shuffle",
            "control=shuffle alters a finished mask before it is trained; pruner=gmp finds it",
        ),
        (
            "pruner=set select=best_test train.evaluate.every=1",
            "select=best_test may choose a state that is not pruned yet: pruner=set needs select=last",
        ),
        (
            "pruner=rigl structure=filter allocation=uniform",
            "pruner=rigl prunes single weights: it needs structure=weight",
        ),
        ("pruner=movement train.precision=fp16", "pruner=movement needs train.precision=float32 or bf16"),
        (
            "pruner=gmp allocation=by_kind sparsity=level:3",
            "allocation=by_kind counts rounds of pruning; pruner=gmp has none",
        ),
        ("pruner=gmp pruner.program=at_init", "pruner.program=at_init: gmp prunes while training (during_training)"),
        (
            "pruner=magnitude pruner.program=during_training",
            "pruner.program=during_training needs a method that prunes while training; choose from early_bird, ",
        ),
        ("critical pruner=gmp", "critical: pruner=gmp finds its mask in training; this looks at new networks"),
    ],
)
def test_bad_input_is_refused(refused, words, line):
    command = words if words.startswith("critical") else f"{words} {SMALL}"
    assert refused(command).startswith(line)


def test_all_of_it_is_listed(run):
    said = run("list pruners --verbose").out
    for name in METHODS:
        assert any(line.split()[:1] == [name] for line in said.splitlines())
    for words in ("Zhu and Gupta", "arXiv 1911.11134", "score_lr: 1.0e-2", "may come back", "warm-up"):
        assert words in " ".join(said.split())


@pytest.mark.slow  # eight real commands; tests/stages/test_changing_masks.py interrupts in this process
@pytest.mark.parametrize("name", ["gmp", "movement"])
def test_killed_in_the_middle_it_ends_in_the_same_bytes(here, name):
    """A real command, killed twice after a state for resumption was written."""
    words = f"pruner={name} sparsity=0.9 {SMALL} train.epochs=100 train.evaluate.every=20".split()

    def start(out):
        code = "import sys; from lthbench.stages import train; train.SAVE_SECONDS = 0.0; train.TICK_STEPS = 50\n"
        code += "from lthbench.cli.main import main; sys.exit(main(sys.argv[1:]))"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", code, *words, f"out={out}"], env=dict(os.environ), **quiet)

    whole = start("whole")
    assert whole.wait() == 0, whole.stderr.read()
    killed = 0
    for until in (250, 600):
        command = start("killed")
        while command.poll() is None:
            saved = [int(p.name[1:10]) for p in (here / "killed/store").glob("*/*/r*.safetensors")]
            if max(saved, default=0) >= until:
                command.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        killed += command.wait() != 0
    assert killed
    assert start("killed").wait() == 0
    assert contents(here / "killed/store") == contents(here / "whole/store")
    one, other = (results(here / out)[0] for out in ("killed", "whole"))
    assert json.dumps(one["metrics"]) == json.dumps(other["metrics"])
    assert one["final_weights_sha256"] == other["final_weights_sha256"]
