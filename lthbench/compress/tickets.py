"""Tickets to take away: a folder that needs nothing of this package.

weights.safetensors   the final weights and buffers, under the network's own names
rewound.safetensors   the weights that the last training started from, zero where the mask says so
mask.safetensors      which weights stayed (bool, True = kept)
network.pt2           the final network as a program of torch.export: no code of the architecture is needed
shrunk.pt2            the small dense network of the same outputs, where channels can go
compressed.bin        of a compressed network: the file itself; lthbench.compress.read gives the network back
network.onnx, shrunk.onnx   the same through PyTorch's exporter to ONNX, where asked for
card.json             settings, results, what each file is, how to load them
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lthbench.base.errors import UserError
from lthbench.compress.shrink import shrink
from lthbench.models import ModelSettings
from lthbench.training.checkpoint import Checkpoint, Tensors

WHAT = {
    "weights.safetensors": "final weights and buffers by name",
    "rewound.safetensors": "weights that the last training started from, masked",
    "mask.safetensors": "which weights stayed (bool)",
    "network.pt2": "the final network, a program of torch.export",
    "shrunk.pt2": "the small dense network of the same outputs, a program of torch.export",
    "network.onnx": "the final network in ONNX",
    "shrunk.onnx": "the small dense network in ONNX",
    "compressed.bin": "the final network as a compressed file: lthbench.compress.read",
}


def write(
    folder: Path,
    final: Checkpoint,
    rewound: Checkpoint | None,
    card: Mapping[str, Any],
    onnx: bool = False,
    packed: bytes | None = None,
) -> dict[str, Any]:
    """Write a ticket, all or nothing, and return its card; `packed` is its compressed file.

    Raises UserError for a folder that is there already, and for ONNX without its packages.
    """
    if folder.exists():
        raise UserError(f"to: '{folder}' is there already")
    if onnx and (missing := [p for p in ("onnx", "onnxscript") if importlib.util.find_spec(p) is None]):
        raise UserError(f"onnx=true needs {' and '.join(missing)}: pip install 'lthbench[onnx]'")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _save(part / "weights.safetensors", final.weights)
        if rewound is not None:
            _save(part / "rewound.safetensors", rewound.masked(final.mask).weights)
        if final.mask:
            _save(part / "mask.safetensors", final.mask)
        if packed is not None:
            (part / "compressed.bin").write_bytes(packed)
        net, shape = final.network().eval(), tuple(final.model.shape)
        _programs(part, "network", net, shape, onnx)
        shrunk = _shrunk(part, net, shape, onnx)
        whole = {**card, "shrunk": shrunk, "load": load_lines(final.model), "torch": torch.__version__}
        whole["files"] = {path.name: _file(path) for path in sorted(part.iterdir())}
        (part / "card.json").write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
        part.chmod(0o755)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return whole


def load_lines(model: ModelSettings) -> list[list[str]]:
    """How the ticket is loaded without this package, run in its folder."""
    lines = [["import torch", 'net = torch.export.load("network.pt2").module()']]
    if model.name == "timm":
        size = f", img_size={tuple(model.shape[1:])}" if _takes_size(model) else ""
        made = f'"{model.args["name"]}", num_classes={model.classes}, in_chans={model.shape[0]}{size}'
        load = 'net.load_state_dict(safetensors.torch.load_file("weights.safetensors"))'
        lines.append(["import timm, safetensors.torch", f"net = timm.create_model({made})", load])
    return lines


def _takes_size(model: ModelSettings) -> bool:
    """Whether a network of timm is built for one size of images."""
    import timm

    try:
        with torch.device("meta"):
            timm.create_model(model.args["name"], img_size=tuple(model.shape[1:]))
    except TypeError:
        return False
    return True


def _save(path: Path, tensors: Tensors) -> None:
    save_file({name: t.contiguous().clone() for name, t in tensors.items()}, path)
    path.chmod(0o644)


def _shrunk(part: Path, net: nn.Module, shape: tuple[int, ...], onnx: bool) -> dict[str, Any]:
    """Write the small network if it is one: how many parameters it has, or why there is none."""
    whole = sum(p.numel() for p in net.parameters())
    try:
        small = shrink(net, shape)
    except UserError as error:
        return {"parameters": None, "why": str(error)}
    count = sum(p.numel() for p in small.parameters())
    if count == whole:
        return {"parameters": None, "why": "every channel does something"}
    _programs(part, "shrunk", small, shape, onnx)
    return {"parameters": count, "of": whole}


def _programs(part: Path, name: str, net: nn.Module, shape: tuple[int, ...], onnx: bool) -> None:
    """The network as a program for any number of images."""
    x = torch.zeros(2, *shape)
    any_batch = ({0: torch.export.Dim("batch")},)
    with _quiet():
        torch.export.save(torch.export.export(net, (x,), dynamic_shapes=any_batch), part / f"{name}.pt2")
        if onnx:
            torch.onnx.export(
                net, (x,), part / f"{name}.onnx", dynamo=True, dynamic_shapes=any_batch, external_data=False,
                input_names=["images"], output_names=["logits"], verbose=False,
            )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters talk."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _file(path: Path) -> dict[str, Any]:
    return {
        "what": WHAT[path.name],
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
