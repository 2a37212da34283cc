"""compress=deep on the command line: the result, its page, `show`, the file that `export` writes, bad input."""

from __future__ import annotations

import json

import pytest

import lthbench.compress
from lthbench.training.checkpoint import Checkpoint

SMALL = "model.width=0.5 train.epochs=1 schedule=oneshot sparsity=0.6 compress.linear_bits=3 compress.epochs=0.5"


@pytest.fixture
def both(run, here):
    """The results of a network pruned, and compressed."""
    said = run(f"{SMALL} compress=none,deep out=o -m")
    assert said.code == 0, said.err
    results = [json.loads(path.read_text()) for path in (here / "o" / "runs").iterdir()]
    return sorted(results, key=lambda r: "compression" in r)


def test_a_result_says_what_its_bytes_are_spent_on(both, run, here):
    pruned, small = both
    told = small["compression"]
    assert "compress" not in pruned["config"] and small["config"]["compress"]["linear_bits"] == 3
    assert told["before"] == {key: pruned["metrics"]["test"][key] for key in ("accuracy", "loss")}
    assert small["sparsity"] == pruned["sparsity"] and small["layers"].keys() == pruned["layers"].keys()
    assert {n: layer["kept"] for n, layer in told["layers"].items()} == {
        n: pruned["layers"][n]["kept"] for n in told["layers"]
    }
    assert 1 < told["rate"]["pruned"] < told["rate"]["shared"] and told["rate"]["file"] > 4
    page = (here / "o" / "leaderboards" / "grid.md").read_text()
    assert "## Compression" in page and f"{told['bytes']['file']:,}" in page
    shown = run(f"show {small['id']} out=o").out
    assert f"file: {told['bytes']['file']:,} bytes of {told['bytes']['dense']:,}" in shown
    assert "rewind to init compressed, seed 0" in shown


def test_export_writes_the_file_and_it_is_the_network(both, run, here):
    small = both[1]
    said = run(f"export {small['id']} to=taken out=o")
    assert said.code == 0, said.err
    path = here / "taken" / "compressed.bin"
    assert path.stat().st_size == small["compression"]["bytes"]["file"]
    net = lthbench.compress.read(path)
    assert isinstance(net, Checkpoint) and net.digest() == small["final_weights_sha256"]
    for name, layer in small["compression"]["layers"].items():
        assert len(net.weights[name][net.mask[name]].unique()) <= 7
        assert int(net.mask[name].sum()) == layer["kept"]
    assert "compressed.bin" in json.loads((here / "taken" / "card.json").read_text())["files"]
    assert (here / "taken" / "rewound.safetensors").exists()


def test_other_settings_are_other_runs_and_idle_ones_are_not(run, here):
    """Only a random beginning draws; a rate means nothing where nothing is trained."""

    def runs(more):
        said = run(f"plan {SMALL} compress=deep {more} -m --no-timing")
        assert said.code == 0, said.err
        return int(said.last.split()[1])

    assert runs("compress.lr=1e-4,1e-5") == 2
    assert runs("compress.epochs=0 compress.lr=1e-4,1e-5") == 1
    assert runs("compress.init=linear,density,random compress.iterations=10,20") == 6
    assert runs("compress.index_bits=4,5 compress.linear_bits=2,3 compress.conv_bits=4") == 4


def test_it_works_at_smoke_scale_as_a_real_command(shell, here):
    said = shell(
        "scale=smoke model=lenet_5_caffe dataset=mnist compress=deep compress.conv_bits=3 schedule=oneshot out=o"
    )
    assert said.code == 0, said.err
    (path,) = (here / "o" / "runs").iterdir()
    layers = json.loads(path.read_text())["compression"]["layers"]
    assert {n: layer["weight_bits"] for n, layer in layers.items()} == {
        "conv1.weight": 3, "conv2.weight": 3, "fc1.weight": 5, "fc2.weight": 5,
    }  # fmt: skip


@pytest.mark.parametrize("table", ["deep_compression", "deep_compression_rate"])
def test_the_tables_run_at_smoke_scale(run, here, table):
    said = run(f"table={table} scale=smoke out=o")
    assert said.code == 0, said.err
    page = (here / "o" / "leaderboards" / f"{table}.smoke.md").read_text()
    assert "LeNet-5-Caffe, by layer" in page
    row = next(line for line in page.splitlines() if line.startswith("| conv1.weight"))
    assert "(66)" in row and "(7.2)" in row and "(78.5)" in row


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("compress.linear_bits=9", "compress.linear_bits: 9 is not in 1 to 8"),
        ("compress.index_bits=0", "compress.index_bits: 0 is not in 1 to 8"),
        ("compress.init=liner", "compress.init: unknown choice 'liner'; did you mean 'linear'?"),
        ("compress.iterations=0", "compress.iterations: 0 is less than 1"),
        ("compress.lr=-1", "compress.lr: -1.0 is negative"),
        ("compress.bits=3", "unknown key 'compress.bits'"),
        ("soup=ensemble", "compress=deep makes a file of one network; soup=ensemble ends with several"),
        (
            "model.width=0.05 compress.linear_bits=8",
            "compress: 255 clusters for the 75 weights of 'fc2.weight'; say fewer bits, compress.conv_bits, ",
        ),
    ],
)
def test_bad_input(refused, words, line):
    assert refused(f"compress=deep out=o {words}").startswith(line)
