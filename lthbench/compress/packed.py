"""A network of few distinct weights as a file: Deep Compression's (Han et al. 2016, arXiv 1510.00149).

A layer is the list of its kept weights in the order in which they lie: for each the gap to the one before and the
number of its value in the layer's codebook, two Huffman-coded streams. A gap of more than 2^index_bits positions is
cut by padding zeros (section 2), which have number 0; so b bits tell 2^b - 1 values apart. Biases, BatchNorm and its
statistics are stored as they are.

    magic (8 bytes), length of the head (4), the head (JSON, deflated), streams, sha256 of all that (32)

All numbers little endian. What is read is the network that was written: the same weights, masks and buffers, bit for
bit (a pruned weight is +0, whatever the sign of the zero that was written).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lthbench.base.errors import UserError
from lthbench.compress import huffman
from lthbench.compress.codebook import clusters, coded
from lthbench.models import ModelSettings
from lthbench.pruning.prunable import prunable
from lthbench.training.checkpoint import Checkpoint, Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Ints = NDArray[np.int64]

MAGIC = b"lthbDC\0\1"
BITS = range(1, 9)


def gaps(positions: Ints, bits: int) -> tuple[NDArray[np.uint8], Ints]:
    """The gaps before ascending positions, each less one and below 2^bits, padding included; and where among them
    those of the positions are."""
    span = 2**bits
    steps = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(steps // span + 1) - 1
    made = np.full(int(ends[-1]) + 1 if len(ends) else 0, span - 1, np.uint8)
    made[ends] = steps % span
    return made, ends


def pack(net: Checkpoint, bits: Mapping[str, int], index_bits: int) -> tuple[bytes, dict[str, Any]]:
    """The file's bytes, and what they are spent on.

    `bits` is by layer kind, `conv` and `linear`. Raises UserError for a layer of more distinct weights than they tell
    apart. Told are, by layer: `total`, `kept`, `padded` (zeros that pad), bits of a stored weight and of its index
    before (`weight_bits`, `index_bits`) and after Huffman coding (`..._huffman`: means over what is stored),
    `codebook` and `tables` (bytes of the values and of Huffman's codes), and by stage `bytes`: `dense` (32 bits a
    weight), `pruned` (indices and 32 bits), `shared` (indices, codes and codebook), `huffman`. In all the same
    `bytes`, with what is stored as it is, those of the `file` with its head, and each one's `rate`: dense over it.
    """
    kinds = {name: coded(layer) for name, layer in prunable(net.network(), "weights").items()}
    heads, streams, told = [], [], {}
    rest = 0
    for name, tensor in net.weights.items():
        if name in kinds:
            head, made, told[name] = _layer(name, tensor, net.mask.get(name), bits[kinds[name]], index_bits)
        else:
            made = [tensor.contiguous().numpy().tobytes()]
            head = {"dtype": str(tensor.dtype).removeprefix("torch.")}
            rest += len(made[0])
        heads.append({"name": name, "shape": list(tensor.shape), **head})
        streams += made
    head = {"model": net.model.spelled_out(), "diverged_at": net.diverged_at, "tensors": heads}
    text = zlib.compress(json.dumps(head, separators=(",", ":")).encode(), 9)
    body = b"".join([MAGIC, len(text).to_bytes(4, "little"), text, *streams])
    whole = body + hashlib.sha256(body).digest()
    stages = ("dense", "pruned", "shared", "huffman")
    spent = {stage: rest + sum(layer["bytes"][stage] for layer in told.values()) for stage in stages}
    spent["file"] = len(whole)
    rate = {stage: spent["dense"] / spent[stage] for stage in (*stages[1:], "file")}
    return whole, {"layers": told, "bytes": spent, "rate": rate}


def _layer(
    name: str, weight: Tensor, mask: Tensor | None, bits: int, index_bits: int
) -> tuple[dict[str, Any], list[bytes], dict[str, Any]]:
    """One layer: what the head says of it, its streams, what they are spent on."""
    flat = weight.contiguous().numpy().reshape(-1)
    positions = np.arange(len(flat)) if mask is None else np.flatnonzero(mask.numpy())
    values, codes = np.unique(flat[positions].view(np.uint32), return_inverse=True)  # -0 is another value than 0
    if len(values) > clusters(bits):
        raise UserError(f"'{name}' has {len(values)} distinct weights; {bits} bits tell {clusters(bits)} apart")
    index, ends = gaps(positions, index_bits)
    numbers = np.zeros(len(index), np.uint8)
    numbers[ends] = codes + 1
    (weight_table, weights), (index_table, indices) = huffman.encode(numbers), huffman.encode(index)
    streams = [values.tobytes(), weight_table, index_table, weights.tobytes(), indices.tobytes()]
    head = {"stored": len(index), "masked": mask is not None, "lengths": [len(part) for part in streams]}
    stored, codebook, tables = len(index), len(streams[0]), len(weight_table) + len(index_table)
    told = {
        "total": len(flat),
        "kept": len(positions),
        "padded": stored - len(positions),
        "weight_bits": bits,
        "index_bits": index_bits,
        "weight_bits_huffman": len(weights) / max(1, stored),
        "index_bits_huffman": len(indices) / max(1, stored),
        "codebook": codebook,
        "tables": tables,
        "bytes": {
            "dense": 4 * len(flat),
            "pruned": math.ceil(stored * (32 + index_bits) / 8),
            "shared": math.ceil(stored * (bits + index_bits) / 8) + codebook,
            "huffman": sum(len(part) for part in streams),
        },
    }
    return head, streams, told


def unpack(data: bytes, where: str = "file") -> Checkpoint:
    """The network that was packed. Raises UserError naming `where` for bytes that are no such file, or damaged."""
    if data[: len(MAGIC)] != MAGIC:
        raise UserError(f"'{where}' is no compressed network")
    body, digest = data[:-32], data[-32:]
    if hashlib.sha256(body).digest() != digest:
        raise UserError(f"'{where}' is damaged: its content does not have the sha256 it ends with")
    begin = len(MAGIC) + 4
    at = begin + int.from_bytes(body[len(MAGIC) : begin], "little")
    head = json.loads(zlib.decompress(body[begin:at]))
    weights: Tensors = {}
    mask: Tensors = {}
    for one in head["tensors"]:
        name, shape = one["name"], one["shape"]
        if "dtype" in one:
            kind = np.dtype(one["dtype"])
            size = math.prod(shape) * kind.itemsize
            weights[name] = torch.from_numpy(np.frombuffer(body[at : at + size], kind).reshape(shape).copy())
            at += size
            continue
        parts = []
        for length in one["lengths"]:
            parts.append(body[at : at + length])
            at += length
        flat, kept = _read_layer(parts, one["stored"], math.prod(shape))
        weights[name] = torch.from_numpy(flat.reshape(shape))
        if one["masked"]:
            mask[name] = torch.from_numpy(kept.reshape(shape))
    return Checkpoint(ModelSettings.restored(head["model"]), weights, mask, head["diverged_at"])


def _read_layer(parts: list[bytes], stored: int, total: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The weights of a layer, and which of them are kept."""
    values, weight_table, index_table, weights, indices = parts
    numbers = huffman.decode(weight_table, weights, stored)
    positions = np.cumsum(huffman.decode(index_table, indices, stored).astype(np.int64) + 1) - 1
    real = numbers > 0  # not padding
    flat, kept = np.zeros(total, np.float32), np.zeros(total, np.bool_)
    kept[positions[real]] = True
    flat[positions[real]] = np.frombuffer(values, np.float32)[numbers[real].astype(np.int64) - 1]
    return flat, kept


def write(path: str | os.PathLike[str], net: Checkpoint, bits: Mapping[str, int], index_bits: int) -> dict[str, Any]:
    """Write a network's file; returns what its bytes are spent on, as `pack` does."""
    data, told = pack(net, bits, index_bits)
    Path(path).write_bytes(data)
    return told


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """The network of a file: `read(FILE).network()` is a module. Raises UserError for a file that is not there, no
    such file, or damaged."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"'{path}': {error.strerror}") from None
    return unpack(data, str(path))
