"""Tickets load where lthbench cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lthbench.base.errors import UserError
from lthbench.compress import tickets
from lthbench.models import ModelSettings
from lthbench.models.initialise import fresh
from lthbench.training.checkpoint import Checkpoint

ALONE = """
import sys
sys.modules["lthbench"] = None  # importing it is an error
{lines}
import torch
x = torch.load("x.pt")
torch.save(net.eval()(x) if {evaluates} else net(x), "y.pt")
"""


def ticket(model, density=0.5):
    net = Checkpoint.of(model, fresh(model, "pytorch", 0, 0), {})
    start = Checkpoint.of(model, fresh(model, "pytorch", 1, 0), {})
    draws = torch.Generator().manual_seed(0)
    weights = {n: w for n, w in net.weights.items() if n.endswith("weight") and w.dim() > 1}
    mask = {n: torch.rand(w.shape, generator=draws) < density for n, w in weights.items()}
    return net.masked(mask), start


def loaded(folder: Path, lines: list[str], x: torch.Tensor) -> torch.Tensor:
    """What the network gives that these lines load, in a process of its own."""
    torch.save(x, folder / "x.pt")
    code = ALONE.format(lines="\n".join(lines), evaluates="timm" in lines[0])
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "y.pt")


def test_a_program_needs_no_code_of_the_network(tmp_path):
    final, start = ticket(ModelSettings.of("conv_2", {"width": 0.1}, (3, 16, 16), 10))
    card = tickets.write(tmp_path / "t", final, start, {"id": "x"})
    assert json.loads((tmp_path / "t" / "card.json").read_text()) == card
    assert len(card["load"][0]) <= 3
    x = torch.randn(5, 3, 16, 16)
    assert torch.allclose(loaded(tmp_path / "t", card["load"][0], x), final.network().eval()(x), atol=1e-6)
    weights, rewound, mask = (load_file(tmp_path / "t" / f"{n}.safetensors") for n in ("weights", "rewound", "mask"))
    assert all(torch.equal(weights[n], t) for n, t in final.weights.items())
    assert all(torch.equal(mask[n], m) for n, m in final.mask.items()) and mask.keys() == final.mask.keys()
    assert all(torch.equal(rewound[n], t * mask[n] if n in mask else t) for n, t in start.weights.items())


@pytest.mark.slow  # 20 s: timm, and the export of a deep network
def test_timm_loads_the_weights(tmp_path):
    model = ModelSettings.of("timm", {"name": "mobilenetv3_small_050", "version": version("timm")}, (3, 32, 32), 7)
    final, start = ticket(model)
    lines = tickets.write(tmp_path / "t", final, start, {})["load"][1]
    assert len(lines) == 3
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(loaded(tmp_path / "t", lines, x), final.network().eval()(x), atol=1e-5)


def test_a_dense_network_and_one_that_cannot_shrink(tmp_path):
    model = ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 8, 8), 10)
    card = tickets.write(tmp_path / "t", Checkpoint.of(model, fresh(model, "pytorch", 0, 0), {}), None, {})
    assert card["shrunk"] == {"parameters": None, "why": "every channel does something"}
    assert sorted(card["files"]) == ["network.pt2", "weights.safetensors"]


def small_units(model):
    """A mask that leaves half of the hidden units without outputs."""
    net = Checkpoint.of(model, fresh(model, "pytorch", 0, 0), {})
    mask = torch.ones_like(net.weights["fc2.weight"], dtype=torch.bool)
    mask[:, ::2] = False
    return net.masked({"fc2.weight": mask})


def test_onnx_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(tickets.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else object())
    final = small_units(ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 8, 8), 10))
    with pytest.raises(UserError, match=r"onnx=true needs onnxscript: pip install 'lthbench\[onnx\]'"):
        tickets.write(tmp_path / "t", final, None, {}, onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_onnx_and_the_shrunk_network_give_the_same(tmp_path):
    pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
    final = small_units(ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 8, 8), 10))
    card = tickets.write(tmp_path / "t", final, None, {}, onnx=True)
    x = torch.randn(6, 1, 8, 8)
    expected = final.network().eval()(x)
    assert card["shrunk"]["parameters"] < card["shrunk"]["of"]
    program = torch.export.load(tmp_path / "t" / "shrunk.pt2").module()
    assert torch.allclose(program(x), expected, atol=1e-6)
    for name in ("network", "shrunk"):
        session = runtime.InferenceSession(tmp_path / "t" / f"{name}.onnx")
        (out,) = session.run(None, {"images": x.numpy()})
        assert torch.allclose(torch.from_numpy(out), expected, atol=1e-5)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "t").mkdir()
    final = small_units(ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 8, 8), 10))
    with pytest.raises(UserError, match="is there already"):
        tickets.write(tmp_path / "t", final, None, {})


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: 1 / 0)
    final = small_units(ModelSettings.of("lenet_300_100", {"width": 0.1}, (1, 8, 8), 10))
    with pytest.raises(ZeroDivisionError):
        tickets.write(tmp_path / "t", final, None, {})
    assert list(tmp_path.iterdir()) == []
