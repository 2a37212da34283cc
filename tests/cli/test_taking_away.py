"""structure, critical, export and show on the command line."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

SMALL = "model=small_cnn model.width=0.25 train.epochs=1 schedule=oneshot sparsity=0.5"


@pytest.fixture
def two(run, here):
    """Two results with filters pruned, by seed."""
    said = run(f"{SMALL} structure=filter allocation=uniform seed=0,1 out=o -m")
    assert said.code == 0, said.err
    results = [json.loads(path.read_text()) for path in (here / "o" / "runs").iterdir()]
    return [r["id"] for r in sorted(results, key=lambda r: r["seed"])]


def test_a_result_says_what_is_left(two, run, here):
    result = json.loads((here / "o" / "runs" / f"{two[0]}.json").read_text())
    assert result["config"]["pruner"]["structure"]["name"] == "filter"
    assert result["sparsity"]["filters"] == {"removed": 12, "total": 24}
    assert result["diagnosis"] == {
        "collapsed": [],
        "effective": result["sparsity"]["prunable"],
        "unfollowed": None,
    }
    assert result["layers"]["conv2.bias"] == {"kept": 8, "total": 16}
    shown = run(f"show {two[0]} out=o").out
    assert "small_cnn on digits magnitude rewind to init filters, seed 0" in shown
    assert "off every path from input to output: " in shown
    assert any(line.split() == ["conv1.weight", "36", "72", "50.0000%", "36"] for line in shown.splitlines())


def test_the_chart_of_the_layers(two, run, here):
    assert run(f"show {two[0]} out=o --chart bars.png").code == 0
    assert (here / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_masks_agree(two, run):
    rows, own = (
        {line.split()[0]: line.replace(",", "").split() for line in run(f"show {two[0]} {b} out=o").out.splitlines()}
        for b in two[::-1]
    )
    assert own["conv1.weight"][1:] == ["36", "36", "36", "100.00%", "50.00%"]
    assert int(rows["all"][3]) < int(own["all"][3])


def test_export(two, run, here):
    said = run(f"export {two[0][:8]} to=ticket out=o")
    assert said.code == 0, said.err
    card = json.loads((here / "ticket" / "card.json").read_text())
    assert card["id"] == two[0] and card["ticket"] == 1
    assert card["shrunk"]["parameters"] == card["parameters"]["dense"] - card["sparsity"]["parameters"]["removed"]
    files = {"mask.safetensors", "network.pt2", "rewound.safetensors", "shrunk.pt2", "weights.safetensors"}
    assert files == set(card["files"]) == {p.name for p in (here / "ticket").iterdir()} - {"card.json"}
    mask, rewound = (load_file(here / "ticket" / f"{n}.safetensors") for n in ("mask", "rewound"))
    assert not (rewound["fc1.weight"] != 0)[~mask["fc1.weight"]].any()
    assert "is there already" in run(f"export {two[0]} to=ticket out=o").err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("export 0123 to=x", "no result begins with '0123' in 'results/out/runs'"),
        ("export 0123", "export: say to=DIR, a new folder"),
        ("export 0123 to=x onx=true", "export: 'onx' has no meaning here; did you mean 'onnx'?"),
        ("export 0123 to=x onnx=maybe", "export: onnx=maybe is not true or false"),
        ("critical structure=nm sparsity=0.5", "critical looks at single weights: it needs structure=weight, not nm"),
        (
            "critical allocation=by_kind sparsity=level:1",
            "critical: allocation=by_kind leaves no compression to look for",
        ),
        ("structure=filter sparsity=0.995 model=small_cnn", "sparsity: of 96 channels less than one would stay"),
        ("structure=filter", "structure=filter: this network has no prunable convolutions"),
        (
            "structure=filter model=small_cnn allocation=by_kind sparsity=level:1",
            "structure=filter needs allocation=global or uniform, not by_kind",
        ),
        (
            "structure=nm",
            "structure=nm keeps 2 of every 4 at once: it needs sparsity=1/2 schedule=oneshot pruner.rounds=1",
        ),
        ("structure=nm structure.n=4 sparsity=0.5", "structure.n, structure.m: 4 of 4 is not 0 < n < m"),
        (
            "structure=nm sparsity=0.5 model=small_cnn",
            "structure=nm: conv1.weight has 1 inputs, no multiple of 4; structure.skip=true leaves such layers dense",
        ),
        ("show 01 02 03", "show: '03' has no meaning here; it takes an id, or two, and out=DIR"),
    ],
)
def test_refused(command, said, refused):
    assert refused(command) == said


def test_n_of_m_runs(run, here):
    assert run(f"{SMALL} structure=nm structure.skip=true out=o").code == 0
    (result,) = [json.loads(path.read_text()) for path in (here / "o" / "runs").iterdir()]
    kept = {name: (layer["kept"], layer["total"]) for name, layer in result["layers"].items()}
    assert kept["conv1.weight"] == (72, 72)  # one input channel
    assert kept["conv2.weight"] == (576, 1152)


def test_critical_compression(run, here):
    command = "critical model.width=0.1 pruner=magnitude,random out=o -m"
    said = run(command)
    assert said.code == 0, said.err
    rows = json.loads((here / "o" / "critical" / "grid.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["pruner=magnitude", "pruner=random"]
    for row in rows:
        assert row["log10"] > 0 and row["kept"] == round(row["total"] / 10 ** row["log10"])
        assert row["empty"] and row["connected"] is False
    page = (here / "o" / "critical" / "grid.md").read_text()
    assert f"    python -m lthbench {command}" in page
    assert "Scale" not in page and "≥ 10" not in page
    assert run(command).err == ""  # nothing is searched for again


def test_critical_compression_says_what_it_is_of(run, here):
    """A bound where masks are not nested; another scale by its name, beside the published one."""
    narrow = "model.width=0.1 pruner.rounds=1,3 out=o -m"
    assert run(f"critical pruner=synflow {narrow}").code == 0
    once, thrice = json.loads((here / "o" / "critical" / "grid.json").read_text())["rows"]
    assert (once["nested"], thrice["nested"]) == (True, False)
    page = (here / "o" / "critical" / "grid.md").read_text().splitlines()
    cells = [line.split(" | ")[2] for line in page if line.startswith("| pruner")]
    assert [cell.startswith("≥ 10^") for cell in cells] == [False, bool(thrice["empty"])]
    assert run("critical pruner=magnitude scale=smoke out=o").code == 0
    (row,) = json.loads((here / "o" / "critical" / "grid.smoke.json").read_text())["rows"]
    assert row["method"].endswith("(scale smoke)")
    assert "**Scale smoke" in (here / "o" / "critical" / "grid.smoke.md").read_text()
