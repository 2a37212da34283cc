"""A result layer by layer: a table for the terminal, bars for a page."""

from __future__ import annotations

import io
from typing import Any

from rich.table import Table

from lthbench.pruning.prunable import roles
from lthbench.report.plot import COLOURS

Layers = dict[str, dict[str, int]]


def table(result: dict[str, Any]) -> Table:
    """Weights that stay, their share removed, and those on a path from input to output; of a transformer the sums over
    attention, MLPs, ... first."""
    made = Table("layer", box=None)
    for title in ("kept", "of", "sparsity", "on a path"):
        made.add_column(title, justify="right")
    for name, layer in (_by_role(result["layers"]) | result["layers"]).items():
        sparsity = f"{1 - layer['kept'] / layer['total']:.4%}"
        on_path = f"{layer['effective']:,}" if "effective" in layer else ""
        made.add_row(name, f"{layer['kept']:,}", f"{layer['total']:,}", sparsity, on_path)
    return made


def _by_role(layers: Layers) -> Layers:
    """What each part of a transformer has kept, lost and still leads somewhere; nothing for other networks."""
    return {
        f"all {what}": {
            k: sum(layers[n][k] for n in names) for k in layers[names[0]] if all(k in layers[n] for n in names)
        }
        for what, names in (roles(layers) or {}).items()
    }


def packed(result: dict[str, Any]) -> Table:
    """What a compressed layer's weights and indices take, in bits before and after Huffman coding, and in all."""
    made = Table("layer", box=None)
    for title in ("kept", "padding", "bits a weight", "Huffman", "bits an index", "Huffman", "of dense", "Huffman"):
        made.add_column(title, justify="right")
    for name, layer in result["compression"]["layers"].items():
        bits = (f"{layer[key]:.2f}" for what in ("weight", "index") for key in (f"{what}_bits", f"{what}_bits_huffman"))
        sizes = (f"{layer['bytes'][stage] / layer['bytes']['dense']:.2%}" for stage in ("shared", "huffman"))
        made.add_row(name, f"{layer['kept']:,}", f"{layer['padded']:,}", *bits, *sizes)
    return made


def chart(result: dict[str, Any]) -> bytes:
    """The picture as PNG: how much of each layer stays, and how much of it lies on a path; a log scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    layers = result["layers"]
    names = list(layers)[::-1]
    figure = Figure(figsize=(7.2, 1.2 + 0.22 * len(names)), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.barh(names, [100 * layers[n]["kept"] / layers[n]["total"] for n in names], color=COLOURS[5], label="kept")
    effective = [100 * layers[n].get("effective", 0) / layers[n]["total"] for n in names]
    if any(effective):
        axes.barh(names, effective, height=0.4, color=COLOURS[0], label="on a path")
    axes.set_xscale("log")
    axes.set_xlim(right=100)
    axes.set_xlabel("% of the layer's weights")
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
