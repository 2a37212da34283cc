"""Early tickets by the command line: found, trained, counted, told; and what is refused."""

import json

import pytest

from lthbench.programs import record

SMALL = "dataset=digits model=resnet_20 model.width=0.125 model.shortcut=B train.batch=300 train.epochs=6 jobs=1"


def results(out):
    return {r["id"]: r for r in (record.read(path) for path in sorted((out / "runs").glob("*.json")))}


def test_early_bird_as_a_user_runs_it(shell, here):
    words = f"pruner=early_bird pruner.queue=2 pruner.epsilon=0.9 sparsity=0.5 {SMALL}"
    said = shell(words)
    assert said.code == 0, said.err
    (result,) = results(here / "results/out").values()
    (found,) = result["early"]["searches"]
    assert (found["step"], found["epoch"], found["drawn"], result["early"]["unspent"]) == (15, 3.0, "by the rule", 0)
    assert result["config"]["train"]["l1_scales"] == 1e-4
    assert result["sparsity"]["filters"]["removed"] > 0
    page = here / "results/out/leaderboards/runs.md"
    page = page if page.exists() else next((here / "results/out/leaderboards").glob("*.md"))
    assert "drawn after epoch 3, by the rule." in page.read_text()
    shown = shell(f"show {result['id']}").out
    assert "ticket drawn after epoch 3 (step 15), by the rule; distances" in shown
    assert " 0 computed" in shell(words).last


def test_the_search_is_counted(run, here):
    """Six epochs of the ticket beside the search: three at most, as planned; what it took, as found."""
    words = f"pruner=early_crop pruner.tau=0.99 pruner.rounds=2 pruner.batches=1 sparsity=0,0.5 {SMALL} -m"
    assert "15.0 epochs" in run(f"plan {words}").last
    assert run(words).code == 0
    (early,) = (r["early"] for r in results(here / "results/out").values() if "early" in r)
    page = json.dumps((here / "results/out/leaderboards/grid.md").read_text())
    epoch = early["searches"][0]["epoch"]
    assert f"drawn after epoch {epoch:g}" in page
    assert early["unspent"] == 3 - epoch


def test_prac_as_a_user_runs_it(run, here):
    words = f"pruner=prac pruner.begin=1 sparsity=level:1,level:2 prunable=conv {SMALL} -m"
    assert run(f"plan {words}").last.startswith("plan: 2 runs, 11 distinct stages, 25.0 epochs")
    said = run(words)
    assert said.code == 0, said.err
    found = sorted(results(here / "results/out").values(), key=lambda r: len(r["early"]["searches"]))
    assert [len(r["early"]["searches"]) for r in found] == [1, 2]
    for result in found:
        total, removed = (result["sparsity"]["prunable"][key] for key in ("total", "removed"))
        share = 1 - 0.8 ** len(result["early"]["searches"])
        assert abs(removed - share * total) <= 1
    shown = run(f"show {found[1]['id']}").out
    assert shown.count("ticket drawn after epoch") == 2 and "on 1,437 images" in shown
    assert " 0 computed" in run(words).last


def test_the_penalty_is_the_pruners_unless_the_recipe_says_another(run):
    same = f"plan pruner=early_bird pruner.l1=1e-4,2e-4 train.l1_scales=1e-4 {SMALL} -m"
    assert run(same).last.startswith("plan: 1 runs")
    assert run(f"plan pruner=early_bird pruner.l1=1e-4,2e-4 {SMALL} -m").last.startswith("plan: 2 runs")
    assert run(f"plan sparsity=0 pruner=magnitude train.l1_scales=null,0 {SMALL} -m").last.startswith("plan: 1 runs")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "pruner=early_bird pruner.begin=0.9 pruner.end=0.5",
            "pruner.end: 0.5 ratio is step 15, before pruner.begin at step 27",
        ),
        (
            "pruner=early_bird pruner.begin=1",
            "pruner.end: step 30 is where pruner.begin is: pruner=early_bird has no",
        ),
        ("pruner=early_bird pruner.epsilon=1.5", "pruner.epsilon: 1.5 is not in 0 < e < 1"),
        ("pruner=early_bird pruner.queue=0", "pruner.queue: 0 is not at least 1"),
        ("pruner=early_bird pruner.compare=any", "pruner.compare: any is not previous or all"),
        ("pruner=early_bird structure=weight", "pruner=early_bird prunes channels: it needs structure=filter"),
        ("pruner=early_bird sparsity=level:2", "pruner=early_bird prunes once: say a sparsity, not level:2"),
        ("pruner=early_bird control=reinit", "control=reinit trains a ticket of pruner=early_bird by itself: it needs"),
        ("pruner=early_bird train.precision=fp16", "train.l1_scales needs train.precision=float32 or bf16"),
        ("pruner=early_crop pruner.tau=1", "pruner.tau: 1.0 is not in 0 <= t < 1"),
        ("pruner=early_crop pruner.reference=last", "pruner.reference: last is not start or first"),
        ("pruner=early_crop pruner.spacing=cubic", "pruner.spacing: unknown choice 'cubic'"),
        ("pruner=early_crop structure=filter sparsity=0.95", "pruner.tau: 0.9 - sparsity is not above 0"),
        ("pruner=prac pruner.epsilon=0", "pruner.epsilon: 0.0 is not in 0 < e < 1"),
        ("pruner=prac pruner.begin=7", "pruner.begin: 7 epoch is step 35; training ends at 30"),
        ("pruner=prac pruner.forgotten=-1", "pruner.forgotten: -1 is not at least 0"),
        ("pruner=prac structure=filter", "pruner=prac prunes single weights: it needs structure=weight"),
        ("pruner=prac control=reinit", "control=reinit alters a finished mask"),
        ("pruner=gmp structure=filter", "pruner=gmp prunes single weights: it needs structure=weight"),
    ],
)
def test_bad_input_is_refused(refused, words, line):
    assert refused(f"{SMALL} {words}").startswith(line)


def test_a_network_without_batchnorm_is_refused(refused):
    line = refused("pruner=early_bird model=lenet_300_100")
    assert line == "pruner=early_bird needs a network with BatchNorm; lenet_300_100 has none"


def test_deviations_of_the_code_are_listed(run):
    said = " ".join(run("list pruners --verbose").out.split())
    for words in (
        "arXiv 1909.11957",
        "arXiv 2206.10451",
        "compare: previous",
        "reference: start",
        "whole new schedule",
    ):
        assert words in said
