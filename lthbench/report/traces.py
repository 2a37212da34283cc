"""The course of training of several methods beside each other: table, page and picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lthbench.report.lines import mean_and_sd, png
from lthbench.report.plot import COLOURS, MARKERS

QUANTITIES = {
    "loss": "training loss",
    "gradient_norm": "gradient norm",
    "gradient_flow": "gradient flow",
    "distance": "distance from start",
    "relative": "distance from start over its norm",
    "kernel_change": "change of tangent kernel",
    "churn": "share of mask bits changed",
}
PANELS = ("loss", "gradient_norm", "relative", "kernel_change", "churn")

Values = Mapping[str, Sequence[float | None]]


@dataclass
class Line:
    """The traces of one method at one sparsity, by seed: steps, and the values of each quantity at them."""

    name: str
    seeds: dict[int, tuple[Sequence[int], Values]] = field(default_factory=dict)

    def at(self, quantity: str, point: int) -> list[float]:
        """The values at a point, over seeds; what is not finite is left out."""
        values = (found[quantity][point] for _, found in self.seeds.values())
        return [value for value in values if value is not None]

    @property
    def shares(self) -> list[float]:
        """Where the points are, from 0 to 1."""
        steps = next(iter(self.seeds.values()))[0]
        return [(step - steps[0]) / (steps[-1] - steps[0]) for step in steps]

    def series(self, quantity: str) -> list[tuple[float, float, float]]:
        """Place, mean and sample standard deviation."""
        each = [(share, self.at(quantity, i)) for i, share in enumerate(self.shares)]
        return [(s, statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0) for s, v in each if v]

    def churn(self) -> list[float]:
        """Mask bits changed over the whole run, as a share of all, by seed."""
        return [sum(value or 0.0 for value in found["churn"]) for _, found in self.seeds.values()]


def table(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Head and cells, as text: the beginning and the end of each."""
    head = ["method", "n", "gradient norm, first", "last", "training loss, last", "distance over norm, last",
            "change of kernel, last", "mask bits changed, in all"]  # fmt: skip
    cells = []
    for line in lines:
        shown = [("gradient_norm", 0), ("gradient_norm", -1), ("loss", -1), ("relative", -1), ("kernel_change", -1)]
        values = [mean_and_sd(line.at(quantity, point), ".3g") for quantity, point in shown]
        cells.append([line.name, str(len(line.seeds)), *values, mean_and_sd(line.churn(), ".3g")])
    return head, cells


def rows(lines: Sequence[Line]) -> list[list[Any]]:
    """Every value, a row a method, seed and step, under a head."""
    found: list[list[Any]] = [["method", "seed", "step", *QUANTITIES]]
    for line in lines:
        for seed, (steps, values) in sorted(line.seeds.items()):
            found += [[line.name, seed, s, *(values[q][i] for q in QUANTITIES)] for i, s in enumerate(steps)]
    return found


def markdown(title: str, lines: Sequence[Line], command: str, picture: str, about: str, made: Sequence[str]) -> str:
    """The page; `about` says on what, `made` with what."""
    head, cells = table(lines)
    text = [f"# {title}", "", f"![the course of training]({picture})", ""]
    text += ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *cells)]
    text += ["", f"{about} Gradients are those of what is trained: of pruned layers, the weights that the mask keeps;",
             "their squared norm is the gradient flow (Evci et al. 2022). Change of the tangent kernel: 1 less its",
             "cosine with that of the first state (Fort et al. 2020). Mean ± sd over n seeds.",
             "", f"    {command}", "", f"Made with {'; '.join(made)}.", ""]  # fmt: skip
    return "\n".join(text)


def plot(title: str, lines: Sequence[Line]) -> bytes:
    """A panel a quantity as PNG, a line a method, bands of one standard deviation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    shown = [q for q in PANELS if q != "churn" or any(any(line.churn()) for line in lines)]
    figure = Figure(figsize=(10.8, 6.0), dpi=150, layout="constrained")
    panels = figure.subplots(2, 3).flat
    for axes, quantity in zip(panels, shown):
        for number, line in enumerate(lines):
            place, mean, sd = zip(*(line.series(quantity) or [(0.0, float("nan"), 0.0)]))
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            axes.plot(place, mean, color=colour, marker=marker, markersize=3.5, linewidth=1.4, label=line.name)
            axes.fill_between(place, [m - s for m, s in zip(mean, sd)], [m + s for m, s in zip(mean, sd)],
                              color=colour, alpha=0.15, linewidth=0)  # fmt: skip
        axes.grid(alpha=0.25)
        axes.set_title(QUANTITIES[quantity], loc="left", fontsize=10)
        axes.set_xlabel("share of training", fontsize=9)
        if quantity == "loss":
            axes.set_yscale("log")
            names = axes.get_legend_handles_labels()
    counts = sorted({len(line.seeds) for line in lines})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    for axes in list(figure.axes)[len(shown) :]:
        axes.axis("off")
    figure.axes[-1].legend(*names, fontsize=9, frameon=False, loc="upper left", title=f"mean ± sd, n = {n}")
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=11)
    return png(figure)
