"""The README's criterion: at most 25 lines, and it runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lthbench.pruning.criteria import CRITERIA, Subject

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README[README.index("## Add a criterion in one file") :]


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found
    return found.group(1)


@pytest.fixture
def registered():
    before = dict(CRITERIA)
    exec(compile(block("python"), "README.md", "exec"), {})
    (name,) = CRITERIA.keys() - before.keys()
    yield name
    CRITERIA.clear()
    CRITERIA.update(before)


def test_it_is_short_and_stands_in_the_list(registered, run, here):
    assert len((block("python") + block("yaml")).splitlines()) <= 25
    (here / "own" / "pruner").mkdir(parents=True)
    (here / "own" / "pruner" / f"{registered}.yaml").write_text(block("yaml"))
    said = run(f"--config-dir own pruner=magnitude,{registered} -m scale=smoke schedule=oneshot sparsity=0.9 jobs=1")
    assert said.code == 0 and said.last.startswith("stages: ")
    listed = run("list pruners --verbose --config-dir own")
    assert f"score: {CRITERIA[registered].what}"[:60] in listed.out and "version 1. " in listed.out


def test_its_scores_are_what_it_says(registered):
    weights = {"a": torch.tensor([[1.0, -4.0]]), "b": torch.tensor([[0.5], [0.25]])}
    scores, _ = CRITERIA[registered].look(Subject(None, (), weights, {}, {}))
    assert {n: s.flatten().tolist() for n, s in scores.items()} == {"a": [0.25, 1.0], "b": [1.0, 0.5]}


def test_every_pruner_is_listed_with_formula_settings_version_and_source(run):
    out = run("list pruners --verbose").out
    names = run("list pruners").out
    for name, known in CRITERIA.items():
        assert name in names
        assert f"score: {known.what}"[:50] in out
    for said in (
        "halves: false",
        "temperature: 200.0",
        "rounds: 60",
        "damping: 1.0e-7",
        "published code does otherwise",
    ):
        assert said in " ".join(out.split())
