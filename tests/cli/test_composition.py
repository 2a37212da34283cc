"""Every option composes and means a run, every table plans, and fast composition says what Hydra's own says."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from conf_files import GROUPS
from hydra import compose
from omegaconf import OmegaConf

from lthbench.cli.compose import Composer, composer
from lthbench.cli.costs import Empty
from lthbench.cli.grid import expand
from lthbench.cli.resolve import resolve
from lthbench.cli.tables import read
from lthbench.engine.plan import plan
from lthbench.programs import experiment

TABLES = ["demo", "lth_lenet", "renda_resnet20", "grasp_cifar10"]  # all of them: test_tables.py
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options if group != "table"]
NEEDS = {  # what an option cannot do without
    "dataset=npz": ["dataset.name=mine.npz"],
    "dataset=imagefolder": ["dataset.name=pictures"],
    "dataset=imagenet": ["scale=smoke"],  # its version is read from its files
    "model=file": ["model.name=mine.py"],
    "pruner=early_bird": ["model=resnet_20", "dataset=cifar10"],
    "pruner=file": ["pruner.criterion=my_pruner.py"],
    "model=timm": ["model.name=resnet18"],
    "allocation=by_kind": ["sparsity=level:2"],
    "allocation=given": ["allocation.layers={linear:0.1,output:0.5}"],
    "allocation=threshold": ["sparsity=level:2"],
    "structure=nm": ["sparsity=0.5"],
    "robustness=cifar_c": ["dataset=cifar10"],
    "soup=best": ["dataset.validation=100"],
    "soup=greedy": ["dataset.validation=100"],
}


@pytest.fixture(scope="module")
def composing() -> Iterator[Composer]:
    with composer(None) as compose:
        yield compose


@pytest.fixture
def own_files(here):
    images, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4, dtype=np.uint8)
    np.savez(here / "mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for split in ("train", "test"):
        (here / "pictures" / split / "cats").mkdir(parents=True)
        (here / "pictures" / split / "cats" / "1.png").touch()
    (here / "mine.py").write_text("def model(shape, classes): ...\n")
    text = "from lthbench.pruning.criteria import criterion\n@criterion('mine')\ndef mine(net): ...\n"
    (here / "my_pruner.py").write_text(text)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_means_a_run(group, option, composing, own_files):
    words = [f"{group}={option}", *NEEDS.get(f"{group}={option}", [])]
    grid = expand(composing, words, multirun=False)
    assert len(grid.experiments) == 1
    made = grid.experiments[0]
    assert made.run == experiment(resolve(grid.config, {w.split("=")[0] for w in words})).run
    assert len(made.id) == 32
    assert made.roles["result"].ref == made.id


@pytest.mark.parametrize("scale", GROUPS["scale"])
@pytest.mark.parametrize("table", TABLES)
def test_tables_plan_at_every_scale(table, scale, composing):
    grid = expand(composing, [f"table={table}", f"scale={scale}"], multirun=False)
    assert grid.name == (table if scale == "paper" else f"{table}.{scale}")
    assert len({(c.label, c.sparsity, c.seed) for c in grid.cells}) == len(grid.cells)
    works = plan([goal for e in grid.experiments for goal in e.goals], Empty())
    done = set()
    for work in works:  # every input comes before its consumers
        assert all(needed in done for needed, _ in work.inputs_needed)
        done.add(work.stage)
    assert all(e.result in done for e in grid.experiments)


@pytest.mark.parametrize("table", TABLES)
def test_tables_differ_between_scales(table, composing):
    """A page finds its runs by id; no run belongs to two scales."""
    ids = [
        {e.id for e in expand(composing, [f"table={table}", f"scale={scale}"], False).experiments}
        for scale in GROUPS["scale"]
    ]
    assert sum(map(len, ids)) == len(set.union(*ids))


@pytest.mark.parametrize("table", TABLES)
def test_fast_composition_is_hydras(table, composing):
    """The settings of a sample of each table's points, composed by Hydra from the same overrides."""
    points = [p for row in read(composing, table).grids() for p in row.points(composing, [], {})]
    for choices in random.Random(0).sample(points, min(4, len(points))):
        ours = composing.compose(choices)
        assert OmegaConf.to_container(compose("config", [choice.line for choice in choices]), resolve=True) == ours


@pytest.mark.parametrize(
    "words",
    [
        ["train=renda_cifar", "model=resnet_20", "rewind=lr", "seed=3"],
        ["retrain=finetune", "rewind=init"],  # what is named wins over what a choice brings
        ["train=lenet", "model=resnet_20", "train.lr=0.5", "train.schedule.milestones=[1,2]"],
        ["scale=smoke", "dataset=mnist", "dataset.normalise.mean=[0.1]", "sparsity=level:3"],
        ["retrain.epochs=${train.epochs}", "train.epochs=3"],
    ],
)
def test_fast_composition_of_choices_and_values(words, composing):
    ours = composing.compose(choice for word in words for choice in composing.values(word))
    assert OmegaConf.to_container(compose("config", words), resolve=True) == ours


def test_fast_composition_of_any_choices(composing):
    """Options that are put in afterwards are where Hydra would have put them."""
    draw = random.Random(0)
    groups = [group for group in GROUPS if group != "table"]
    for _ in range(12):
        words = [f"{group}={draw.choice(GROUPS[group])}" for group in draw.sample(groups, 4)]
        ours = composing.compose(choice for word in words for choice in composing.values(word))
        assert OmegaConf.to_container(compose("config", words), resolve=True) == ours, words


def test_compositions_do_not_touch_each_other(composing):
    first = composing.compose(composing.values("train.schedule.milestones=[1]"))
    first["train"]["lr"] = "changed"
    assert composing.compose([])["train"]["lr"] == 1.2e-3
    assert composing.compose([])["train"]["schedule"]["milestones"] == []
    once, twice = (expand(composing, ["table=demo"], False) for _ in range(2))
    assert [c.experiment.id for c in once.cells] == [c.experiment.id for c in twice.cells]


def test_a_network_of_ones_own_takes_any_argument(composing, own_files):
    made = expand(composing, ["model=file", "model.name=mine.py", "model.args.depth=3", "model.args.wide=true"], False)
    assert made.experiments[0].run.model.args.items() >= {("depth", 3), ("wide", True)}


GRID = """
import sys, time
begun = time.perf_counter()
from lthbench.cli.compose import composer
from lthbench.cli.grid import expand
from lthbench.cli.costs import Empty
from lthbench.engine.plan import plan
words = "seed=range({seeds}) sparsity=0.5,0.8,0.9,0.95,0.98 rewind=init,early,lr,finetune control=none,reinit".split()
with composer(None) as compose:
    runs = expand(compose, words, True).experiments
works = plan([goal for e in runs for goal in e.goals], Empty())
print(len(runs), len(works), "torch" in sys.modules)
print(f"{{time.perf_counter() - begun:.1f}} s", file=sys.stderr)
"""


@pytest.mark.parametrize("seeds", [10, pytest.param(266, marks=pytest.mark.slow)])
def test_large_grids_are_planned_without_torch(seeds):
    """Of 40 points a seed: controlled one-round chains are the same for all rewindings. 266 seeds: 10,000 runs."""
    done = subprocess.run([sys.executable, "-c", GRID.format(seeds=seeds)], capture_output=True, text=True, check=True)
    print(done.stderr)
    runs, works, torch = map(ast.literal_eval, done.stdout.split())
    assert not torch
    assert runs % seeds == 0
    assert works % seeds == 0
    assert seeds == 10 or runs > 10_000


SAMPLE = ("allocation=erk", "dataset=cifar10", "pruner=iter_snip", "retrain=slr", "scale=smoke", "train=renda_cifar")


def read_as_hydra_would(compose: Composer, lines: Iterable[str]) -> int:
    """Compare what is read of plain options with Hydra's own composition; returns how many there were."""
    plain = [line for line in lines if compose._is_plain(line)]
    for line in plain:
        assert compose._base((line,)) == compose._composed((line,)), line
    return len(plain)


def test_options_are_read_as_hydra_would(composing):
    assert read_as_hydra_would(composing, SAMPLE) == len(SAMPLE)


@pytest.mark.slow  # a hundred compositions
def test_all_options_are_read_as_hydra_would(composing):
    options = (f"{group}={option}" for group in GROUPS if group != "table" for option in GROUPS[group])
    assert read_as_hydra_would(composing, options) > 90


def test_where_a_grid_is_computed_is_no_part_of_a_methods_name(composing):
    words = ["sparsity=0,0.2", "schedule=oneshot", "seed=0,1"]
    places = ["launcher=slurm", "launcher.gpus=1", "launcher.logs=l", "tracking=wandb", "tracking.project=p", "jobs=2"]
    here, there = (expand(composing, said, multirun=True) for said in (words, words + places))
    assert {c.label for c in here.cells} == {c.label for c in there.cells} == {"schedule=oneshot"}
