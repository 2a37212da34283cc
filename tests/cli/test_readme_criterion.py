"""The README's criterion: at most 25 lines, and it runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lthbench.pruning.criteria import CRITERIA, Subject
from lthbench.pruning.own import own

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README[README.index("## Your own method, in one file") :]
BLOCK = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def mine(here: Path) -> Path:
    assert BLOCK is not None
    (here / "my_pruner.py").write_text(BLOCK.group(1))
    return here / "my_pruner.py"


def test_it_is_short_and_runs_as_it_is_said_to(mine, run):
    assert len(mine.read_text().splitlines()) <= 25
    commands = re.findall(
        r"^    python -m lthbench (.*?pruner=.*?my_pruner\.py.*?)(?: {2,}#.*)?$", SECTION, re.MULTILINE
    )
    assert len(commands) == 3
    for command in commands:
        said = run(f"{command} scale=smoke {'only=fine' if 'table' in command else 'schedule=oneshot'} jobs=1")
        assert said.code == 0, said.err
    assert any("relative_magnitude (own), as fine-tuning" in page.read_text() for page in Path().rglob("demo.smoke.md"))


def test_its_scores_are_what_it_says(mine):
    known = own(str(mine))[1]
    weights = {"a": torch.tensor([[1.0, -4.0]]), "b": torch.tensor([[0.5], [0.25]])}
    subject = Subject(None, (), weights, {}, {})
    scores, _ = known.look(subject)
    assert {n: s.flatten().tolist() for n, s in scores.items()} == {"a": [0.25, 1.0], "b": [1.0, 0.5]}
    assert known.look(subject, power=2.0)[0]["a"].flatten().tolist() == [0.0625, 1.0]


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
