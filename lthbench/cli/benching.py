"""`lthbench bench`: how fast, as ratios measured in one run on this machine."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lthbench.base.errors import UserError, near
from lthbench.cli.subcommands import parser

if TYPE_CHECKING:
    from lthbench.bench.measure import Row


def run(words: Sequence[str]) -> int:
    """Measure the rows; print them and write them to `<out>/bench.md` and `bench.json`."""
    arguments = parser("bench", "How fast: ratios from interleaved blocks, with the 90 % interval of their median.")
    arguments.add_argument(
        "rows", nargs="*", help="which rows (training, masks, ...); none: all. device=cuda adds the GPU's"
    )
    arguments.add_argument("--blocks", type=int, default=20, help="interleaved blocks a ratio (default 20)")
    arguments.add_argument("--out", default="results/out/bench", help="where the table goes")
    parsed = arguments.parse_args(words)
    if parsed.blocks < 1:
        raise UserError(f"bench: --blocks {parsed.blocks} is less than 1")
    import torch

    from lthbench.bench.rows import AIMS, GPU_ROWS, ROWS

    devices = [word.partition("=")[2] for word in parsed.rows if word.startswith("device=")]
    rows = ROWS | GPU_ROWS if devices == ["cuda"] else ROWS
    if devices not in ([], ["cpu"], ["cuda"]):
        raise UserError("bench: device is cpu or cuda")
    if devices == ["cuda"] and not torch.cuda.is_available():
        raise UserError("bench: device=cuda is not here")
    chosen = [word for word in parsed.rows if not word.startswith("device=")]
    for name in chosen:
        if name not in rows:
            raise UserError(f"bench: no row '{name}'{near(name, rows)}")
    torch.set_num_threads(1)
    page = _Page(Path(parsed.out), words, [name for name in ROWS | GPU_ROWS if name not in (chosen or rows)])
    for name in chosen or rows:
        for found in rows[name](parsed.blocks):
            page.add(replace(found, aim=next((aim for what, aim in AIMS.items() if found.name.startswith(what)), "")))
    print(page.out / "bench.md")
    return 0


class _Page:
    """The table, printed and written row by row: a bench that is stopped leaves what it has measured."""

    HEAD = ("| what | figure | 90 % interval | aim | n | |", "| --- | ---: | ---: | ---: | ---: | --- |")

    def __init__(self, out: Path, words: Sequence[str], left_out: Sequence[str]) -> None:
        from lthbench.programs.record import environment

        self.out, self.command, self.left_out = out, " ".join(["python -m lthbench bench", *words]), left_out
        self.environment = environment("cpu", 1)
        self.date = str(datetime.datetime.now(datetime.timezone.utc).date())
        self.made: list[Row] = []
        out.mkdir(parents=True, exist_ok=True)
        print("\n".join(self.HEAD))

    def add(self, found: Row) -> None:
        self.made.append(found)
        print(self._line(found), flush=True)
        self._write()

    @staticmethod
    def _line(row: Row) -> str:
        unit = "" if row.unit == "x" else f" {row.unit}"
        interval = f"{row.low:.3f} to {row.high:.3f}"
        return f"| {row.name} | {row.value:.3f}{unit} | {interval} | {row.aim} | {row.n} | {row.note} |"

    def _write(self) -> None:
        e = self.environment
        versions = f"lthbench {e['lthbench']}, torch {e['torch']}, Python {e['python']}"
        made_with = f"{versions}; {e['processor']}, {os.cpu_count()} cores; {self.date}."
        left_out = ["", f"Not measured here: {', '.join(self.left_out)}."] if self.left_out else []
        lines = [
            "# How fast", "",
            "Medians over n interleaved blocks on one machine, one thread; n is small for whole commands and for what",
            "takes half a minute. Figures without a unit are ratios.",
            "Images are random bytes of the sets' shapes: what they show changes no time.", "",
            *self.HEAD, *map(self._line, self.made), *left_out, "", made_with, "", f"    {self.command}", "",
        ]  # fmt: skip
        (self.out / "bench.md").write_text("\n".join(lines))
        value = {"rows": [asdict(r) for r in self.made], "environment": e, "date": self.date, "command": self.command}
        (self.out / "bench.json").write_text(json.dumps(value, indent=1) + "\n")
