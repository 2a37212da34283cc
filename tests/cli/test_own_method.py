"""A method of one's own from a file: alone, in a grid, and in a table beside the paper's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lthbench.cli.compose import composer
from lthbench.cli.grid import expand

TEXT = """
from lthbench.pruning.criteria import criterion

@criterion("upside_down")
def upside_down(net, power: float = 1.0):
    "The smallest stay."
    return {name: -w.detach().abs() ** power for name, w in net.weights.items()}
"""
SMOKE = "scale=smoke schedule=oneshot sparsity=0.5 jobs=1"


@pytest.fixture
def mine(here: Path) -> Path:
    (here / "my.py").write_text(TEXT)
    return here / "my.py"


def results(out: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((out / "runs").glob("*.json"))]


def test_alone(mine, run, here):
    said = run(f"{SMOKE} pruner=my.py pruner.power=2 out=o")
    assert (said.code, said.last) == (0, "stages: 5 asked, 5 computed, 0 reused")
    criterion = results(here / "o")[0]["config"]["pruner"]["criterion"]
    assert (criterion["name"], criterion["args"], len(criterion["source"])) == ("upside_down", {"power": 2.0}, 64)
    assert "upside_down (own)" in run("report out=o").out


def test_a_file_is_an_option_like_any_other(mine, run):
    assert run("plan pruner=magnitude,my.py sparsity=0.5,0.9 -m").last.startswith("plan: 4 runs, ")
    assert run("plan pruner=my.py pruner.power=1,2 -m").last.startswith("plan: 2 runs, ")
    assert run("plan pruner=my.py,./my.py -m").last.startswith("plan: 1 runs, ")
    assert run("plan pruner=file pruner.criterion=my.py") == run("plan pruner=my.py")


def test_what_has_no_effect_on_it_is_not_in_its_id(mine, run):
    """It looks at no data, in one round."""
    assert run("plan pruner=my.py pruner.batch=64,128 pruner.spacing=linear,exponential -m").last.startswith(
        "plan: 1 r"
    )
    assert run("plan pruner=my.py pruner.rounds=1,2 -m").last.startswith("plan: 2 runs, ")


def test_hydra_prints_its_settings(mine, run):
    said = run("--cfg job pruner=my.py pruner.power=2")
    assert said.code == 0, said.err
    assert "criterion: my.py" in said.out
    assert "power: 2" in said.out


def test_an_edited_file_is_another_method(mine, run):
    assert run(f"{SMOKE} pruner=my.py out=o").last == "stages: 5 asked, 5 computed, 0 reused"
    mine.write_text(TEXT + "# edited\n")
    assert run(f"{SMOKE} pruner=my.py out=o").last == "stages: 5 asked, 3 computed, 2 reused"


def test_a_table_lends_its_recipes(mine, here):
    """Each row that prunes, but for controls; rows that differ in their pruner alone lend one recipe."""
    with composer(None) as compose:
        plain = expand(compose, ["table=demo"], False)
        ours = expand(compose, ["table=demo", "pruner=my.py", "pruner.power=3"], False)
        alone = expand(compose, ["pruner=my.py", "pruner.power=3", *RECIPE, "rewind=lr", "rewind.k=0.05"], True)
    theirs = {cell.experiment.id for cell in plain.cells}
    assert [c.experiment.id for c in ours.cells][: len(plain.cells)] == [c.experiment.id for c in plain.cells]
    added = [cell for cell in ours.cells if cell.experiment.id not in theirs]
    names = ("rewind to init", "rewind to early", "learning-rate rewinding", "fine-tuning")
    assert {cell.label for cell in added} == {f"upside_down (own), as {name}" for name in names}
    assert len(added) == len(names) * 5 * 3
    assert {json.dumps(c.experiment.run.pruner.criterion.args) for c in added} == {'{"power": 3.0}'}
    rewound = {c.experiment.id for c in added if c.label.endswith("learning-rate rewinding")}
    assert rewound == {e.id for e in alone.experiments}


RECIPE = [
    "schedule.rate=0.5", "train.epochs=20", "train.schedule.kind=step", "train.schedule.milestones=[10,15]",
    "train.evaluate.every=5", "seed=0,1,2", "sparsity=level:1,level:2,level:3,level:4,level:5",
]  # fmt: skip

AT_INIT = """
settings: {pruner.program: at_init, sparsity: '0.5,0.9'}
rows:
  - {label: dense, sparsity: 0}
  - {label: SNIP, pruner: snip, pruner.batches: 2}
  - {label: SynFlow, pruner: synflow, sparsity: '0.5,0.98'}
"""


def test_it_prunes_where_the_tables_rows_prune(mine, here):
    (here / "own" / "table").mkdir(parents=True)
    (here / "own" / "table" / "early.yaml").write_text(AT_INIT)
    with composer("own") as compose:
        grid = expand(compose, ["table=early", "pruner=my.py"], False)
        said = expand(compose, ["table=early", "pruner=my.py", "pruner.program=after_training"], False)
    mine_only = [c for c in grid.cells if "own" in c.label]
    assert [(c.label, c.sparsity) for c in mine_only] == [("upside_down (own)", s) for s in ("0.5", "0.9", "0.98")]
    assert {c.experiment.run.pruner.program for c in mine_only} == {"at_init"}
    assert {c.experiment.run.pruner.program for c in said.cells if "own" in c.label} == {"after_training"}


def test_two_values_of_a_setting_are_two_methods(mine, here):
    with composer(None) as compose:
        grid = expand(compose, ["table=demo", "pruner=my.py", "pruner.power=1,2", "only=as fine"], False)
    assert {c.label for c in grid.cells} == {
        f"upside_down (own), as fine-tuning pruner.power={power}" for power in (1, 2)
    }


def test_it_stands_in_the_leaderboard_marked(mine, run, here):
    said = run("table=demo pruner=my.py scale=smoke only=fine out=o jobs=1")
    assert said.code == 0
    page = (here / "o" / "leaderboards" / "demo.smoke.md").read_text()
    assert "| upside_down (own), as fine-tuning |" in " ".join(page.split())
    assert "\nupside_down (own), as fine-tuning: not the paper's; a file of sha256 " in page


def rows(page: Path) -> dict[str, list[str]]:
    """What a leaderboard's table says of each method, sparsest last."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.read_text().splitlines() if "|" in line]
    return {label: list(filter(None, cells)) for label, *cells in lines}


def test_it_stays_in_the_leaderboard_when_it_is_not_named(mine, run, here):
    """The same row with the same numbers, whatever makes the leaderboard next; an edited file is another row."""
    page, words = here / "o" / "leaderboards" / "demo.smoke.md", "scale=smoke only=fine out=o jobs=1"
    assert run(f"table=demo pruner=my.py pruner.power=2 {words}").code == 0
    label = "upside_down (own), as fine-tuning"
    named = rows(page)[label]
    for command in ("report out=o", "report table=demo scale=smoke out=o", f"table=demo {words}"):
        assert run(command).code == 0
        assert rows(page)[label] == named, command
        assert "not the paper's; a file of sha256" in page.read_text()
    mine.write_text(TEXT + "# edited\n")
    assert run(f"table=demo pruner=my.py pruner.power=2 {words}").code == 0
    assert list(rows(page)).count(label) == 1
    assert run("report out=o").code == 0
    own = [row for row in rows(page) if "(own)" in row]
    assert len(own) == 2
    assert all(row.startswith("upside_down (own) source=") and row.endswith(", as fine-tuning") for row in own)


def test_what_another_recipe_computed_is_not_the_tables(mine, run, here):
    assert run(f"{SMOKE} pruner=my.py out=o").code == 0
    assert run("table=demo scale=smoke only=fine out=o jobs=1").code == 0
    assert "(own)" not in (here / "o" / "leaderboards" / "demo.smoke.md").read_text()


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("pruner=my.py pruner.powr=2", "unknown key 'pruner.powr'; did you mean 'pruner.power'?"),
        ("pruner=my.py pruner.power=x", "pruner.power: 'x' is not a number"),
        ("table=demo pruner=my.py pruner.powr=2", "unknown key 'pruner.powr'; did you mean 'pruner.power'?"),
        (
            "table=demo pruner=my.py,snip",
            "'pruner=my.py,snip': snip is no file; a table takes methods of your own as pruner=FILE.py",
        ),
        ("pruner=my.py pruner.program=at_ini", "pruner.program: unknown choice 'at_ini'; did you mean 'at_init'?"),
    ],
)
def test_bad_input(command, line, mine, refused):
    assert refused(command) == line
