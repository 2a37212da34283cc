"""The tables: each composes, plans, finds its published cells and its claims' cases; what is wrong is one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conf_files import GROUPS
from hydra import compose
from omegaconf import OmegaConf

from lthbench.cli.compose import Composer, composer
from lthbench.cli.costs import Empty, total_epochs
from lthbench.cli.costs import alone as alone_epochs
from lthbench.cli.grid import comparison, expand
from lthbench.cli.tables import read
from lthbench.engine.plan import plan
from lthbench.report.board import board
from lthbench.report.cases import pairs
from lthbench.report.compare import beside, compare

ON_DISK = {
    "renda_resnet50",
    "renda_resnet50_iterative",
    "sms_imagenet",
    "bimp_imagenet",
}  # ImageNet's version is read from its files


@pytest.fixture(scope="module")
def composing() -> Iterator[Composer]:
    with composer(None) as compose:
        yield compose


@pytest.mark.parametrize("name", GROUPS["table"])
def test_every_table_composes_plans_and_finds_its_paper(name, composing):
    table = read(composing, name)
    if table.needs:
        assert table.paper
        return
    grid = expand(composing, [f"table={name}", "seed=0", *(["scale=smoke"] if name in ON_DISK else [])], False)
    stages = plan([goal for e in grid.experiments for goal in e.goals], Empty())
    seeds = len(str(table.settings["seed"]).split(","))  # which share nothing
    epochs, alone = seeds * total_epochs(stages), seeds * sum(map(alone_epochs, grid.experiments))
    if name not in ON_DISK:
        assert table.cost == {"epochs": pytest.approx(epochs, abs=1), "alone": pytest.approx(alone, abs=1)}
    if name.startswith("renda") or name == "sms_cifar100":
        assert table.cost["epochs"] <= 0.6 * table.cost["alone"]
    theirs = comparison(grid, None)
    if theirs is None:
        assert table.paper is None
        return
    places = [place for place in theirs.places.values() if place.nominal is not None]
    assert len(places) == len(theirs.places)
    for part in theirs.tables if name not in ON_DISK else ():
        found = [len(part.table.find(place.where, place.nominal)) for place in places if beside([part], place)]
        assert set(found) == {1}, part.table.id  # it is there for a cell, and no cell has two of its numbers
    made = board(name, name, [(c.label, c.asked, None) for c in grid.cells], "")
    compare(made, theirs)
    for claim in theirs.claims:
        assert pairs(claim, made.entries) or name in ON_DISK, claim.id


def test_a_table_over_another_is_what_hydra_composes(composing):
    derived = [n for n in GROUPS["table"] if "\ndefaults:" in f"\n{path(n).read_text()}"]
    assert len(derived) > 10
    for name in derived[:: len(derived) // 6]:
        theirs = OmegaConf.to_container(compose("config", [f"table={name}"]))["table"]
        ours = read(composing, name)
        for key, value in theirs.items():
            assert getattr(ours, key) == (tuple(value) if isinstance(value, list) else value), (name, key)


def path(name: str) -> Path:
    from lthbench.cli.compose import conf_dir

    return Path(conf_dir()) / "table" / f"{name}.yaml"


def test_levels_come_to_what_the_networks_say(composing):
    """`at`: the sparsities of rates by kind, from the networks' sizes."""
    import torch

    from lthbench.models import create
    from lthbench.pruning.prunable import prunable

    checked = 0
    for name in ("lth_lenet", "lth_conv_2", "lth_conv_4", "lth_resnet_20", "lth_vgg_19", "deconstructing_criteria"):
        table = read(composing, name)
        run = expand(composing, [f"table={name}"], False).experiments[0].run
        with torch.device("meta"):
            net = create(run.model)
        every = {n: w.parameter.numel() for n, w in prunable(net, "weights").items()}
        pruned = prunable(net, run.prunable)
        rates = {k: float(eval(v)) for k, v in run.allocation.rates.items()} if run.allocation.rates else {}
        for asked, sparsity in table.at.items():
            level = int(asked.removeprefix("level:"))
            kept = sum(
                size * ((1 - rates.get(pruned[n].kind, 0.2)) ** level if n in pruned else 1)
                for n, size in every.items()
            )
            assert 1 - kept / sum(every.values()) == pytest.approx(sparsity, abs=3e-4), (name, asked)
            checked += 1
    assert checked > 80
