"""Fine-pruning by the command line: a trained network takes on another task while it is pruned."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.programs import record

MODEL = ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 8, 8), 10)
SMALL = "model=lenet_300_100 model.width=0.1 train.batch=60 train.epochs=2 jobs=1"
FINE = "model.weights=net.safetensors model.weights_as=init model.weights_output=fresh prunable=encoder"


@pytest.fixture
def files(here):
    """A network for ten classes, and images of seven."""
    save_file(fresh(MODEL, "glorot_normal", 5, 0).state_dict(), str(here / "net.safetensors"))
    draws = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 300), ("test", 60)):
        arrays[f"y_{part}"] = np.arange(count) % 7
        images = draws.integers(0, 60, (count, 8, 8, 1)) + 20 * arrays[f"y_{part}"][:, None, None, None]
        arrays[f"x_{part}"] = images.astype(np.uint8)
    np.savez(here / "seven.npz", **arrays)
    return here


def results(here):
    return [record.read(path) for path in sorted((here / "results/out/runs").glob("*.json"))]


@pytest.mark.parametrize("pruner", ["gmp", "movement"])
def test_a_network_of_ten_classes_is_pruned_on_seven(run, files, pruner):
    words = f"dataset=npz dataset.name=seven.npz {SMALL} {FINE} pruner={pruner} sparsity=0.75"
    said = run(words)
    assert said.code == 0, said.err
    (result,) = results(files)
    assert result["config"]["weights"]["output"] == "fresh" and result["config"]["initialiser"] == "glorot_normal"
    assert list(result["layers"]) == ["fc1.weight", "fc2.weight"]
    assert result["sparsity"]["prunable"] == {"removed": 1665, "total": 2220}
    assert len(result["metrics"]["test"]["per_class"]) == 7
    assert " 0 computed" in run(words).last
    assert run(f"{words} seed=1").code == 0
    assert len({r["final_weights_sha256"] for r in results(files)}) == 2


def test_the_encoder_is_the_files_and_the_output_the_seeds(run, files):
    words = f"dataset=npz dataset.name=seven.npz {SMALL} {FINE} train.epochs=0 sparsity=0"
    assert run(f"{words} seed=0,1 -m").code == 0
    from lthbench.engine.store import Store

    store, nets = Store(files / "results/out/store"), []
    for result in results(files):
        nets.append(store.read(result["stages"]["init"], "out.safetensors")[0])
    given = fresh(MODEL, "glorot_normal", 5, 0).state_dict()
    for name, tensor in given.items():
        same = [torch.equal(net[f"weights/{name}"], tensor) if "fc3" not in name else None for net in nets]
        assert same == [None, None] if "fc3" in name else all(same)
    assert nets[0]["weights/fc3.weight"].shape == (7, 10)
    assert not torch.equal(nets[0]["weights/fc3.weight"], nets[1]["weights/fc3.weight"])


def test_a_teacher_is_a_file_or_the_dense_network(run, files):
    words = f"dataset=digits {SMALL} pruner=movement sparsity=0.8"
    teachers = "null,dense,net.safetensors"
    said = run(f"{words} train.distill.teacher={teachers} -m")
    assert said.code == 0, said.err
    found = results(files)
    assert sorted(r["config"].get("distill", {"who": ""})["who"][:5] for r in found)[1:] != ["", ""]
    assert len({r["final_weights_sha256"] for r in found}) == 3
    assert " 0 computed" in run(f"{words} train.distill.teacher={teachers} -m").last


def test_fewer_images_are_trained_on(run):
    said = run(f"plan dataset=digits {SMALL} dataset.train_images=120 sparsity=0")
    assert said.code == 0 and said.last == "plan: 1 runs, 3 distinct stages, 2.0 epochs (2.0 naive)"
    assert run(f"dataset=digits {SMALL} dataset.train_images=120,null sparsity=0 -m").code == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "dataset=npz dataset.name=seven.npz model.weights=net.safetensors model.weights_as=init sparsity=0",
            "model.weights: 'fc3.weight' is (10, 10) in 'net.safetensors', (7, 10) in lenet_300_100; "
            "model.weights_output=fresh draws it anew",
        ),
        ("model.weights=net.safetensors model.weights_output=new", "model.weights_output: unknown choice 'new'"),
        ("train.distill.teacher=nobody.pt", "train.distill.teacher: no file 'nobody.pt'"),
        ("train.distill.teacher=dense train.distill.weight=0", "train.distill.weight: 0.0 is not in 0 < w <= 1"),
        ("dataset.train_images=2000", "dataset.train_images: 2000 is not between 1 and the 1437 that there are"),
        ("prunable=encodr", "prunable: unknown preset 'encodr'; did you mean 'encoder'?"),
        (
            "allocation=by_kind allocation.roles={attn:0.1} sparsity=level:1",
            "allocation.roles: unknown 'attn'; did you mean 'attention'?",
        ),
        ("pruner=movement soup=uniform", "soup=uniform averages networks of one mask; that of pruner=movement may"),
    ],
)
def test_bad_input_is_refused(refused, files, words, line):
    assert refused(f"{SMALL} {words}").startswith(line)
