"""Divergence is a result: it is flagged, pruned, retrained and written down; it is no failure."""

import json
from dataclasses import replace

import pytest
from engine.small_runs import EPOCH, RECIPE, STEPS, compute, small

from lthbench.engine.store import Store
from lthbench.launch import local
from lthbench.programs import experiment, record

WILD = replace(RECIPE, lr=1e9)


@pytest.mark.parametrize("select", ["last", "best_val_loss", "best_test"])
@pytest.mark.parametrize("rewind", ["init", "early", "lr", "finetune"])
def test_a_diverged_run_is_a_flagged_result(tmp_path, rewind, select):
    run = experiment(small(rewind, "0.36", recipe=WILD, every=10, select=select, schedule="iterative"))
    outcome = local.run([run], Store(tmp_path / "store"), tmp_path)
    assert not outcome.failed
    text = (tmp_path / "runs" / f"{run.id}.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    result = record.read(tmp_path / "runs" / f"{run.id}.json")
    assert result == json.loads(text)
    assert result["diverged_at"] is not None
    assert result["sparsity"]["prunable"]["removed"] == round(0.36 * result["sparsity"]["prunable"]["total"])


def test_the_step_is_that_of_the_dense_run_and_nothing_is_trained_after_it(tmp_path):
    store = Store(tmp_path)
    dense = experiment(small(sparsity="0", recipe=WILD))
    longer = experiment(small(sparsity="0", recipe=WILD, steps=3 * STEPS))
    compute(store, dense, longer)
    short, long = (store.output(e.result) for e in (dense, longer))
    assert short["diverged_at"] == long["diverged_at"] == EPOCH
    assert short["final_weights_sha256"] == long["final_weights_sha256"]


def test_a_quiet_run_is_not_flagged(tmp_path):
    run = experiment(small("early", "0.5"))
    compute(Store(tmp_path), run)
    assert Store(tmp_path).output(run.result)["diverged_at"] is None


def test_a_run_shorter_than_an_epoch_diverges_as_well(tmp_path):
    """Fails as long as divergence is looked for at the ends of epochs only: half an epoch has none."""
    run = experiment(small("init", "0.5", recipe=WILD, steps=EPOCH // 2))
    outcome = compute(Store(tmp_path), run)
    assert not outcome.failed
    assert Store(tmp_path).output(run.result)["diverged_at"] is not None


def test_a_best_point_that_never_was_does_not_depend_on_who_trains_on(tmp_path):
    short = small(sparsity="0", recipe=WILD, steps=EPOCH // 2, every=5, select="best_val_loss")
    longer = small(sparsity="0", recipe=WILD, steps=STEPS)
    compute(Store(tmp_path / "a"), short)
    compute(Store(tmp_path / "b"), short, longer)
    one, other = (Store(tmp_path / name).output(experiment(short).result) for name in "ab")
    assert one == other
