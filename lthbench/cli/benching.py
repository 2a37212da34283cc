"""`lthbench bench`: how fast, as ratios measured in one run on this machine."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lthbench.base.errors import UserError, near
from lthbench.cli.subcommands import parser


def run(words: Sequence[str]) -> int:
    """Measure the rows, print them, write `<out>/bench.md` and `bench.json`."""
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

    from lthbench.bench.rows import GPU_ROWS, ROWS
    from lthbench.programs.record import environment

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
    lines = ["| what | figure | 90 % interval | n | |", "| --- | ---: | ---: | ---: | --- |"]
    print("\n".join(lines))
    made = []
    for name in chosen or list(rows):
        for found in rows[name](parsed.blocks):
            made.append(found)
            unit = "" if found.unit == "x" else f" {found.unit}"
            interval = f"{found.low:.3f} to {found.high:.3f}"
            lines.append(f"| {found.name} | {found.value:.3f}{unit} | {interval} | {found.n} | {found.note} |")
            print(lines[-1], flush=True)
    out = Path(parsed.out)
    out.mkdir(parents=True, exist_ok=True)
    e = environment("cpu", 1)
    date = datetime.datetime.now(datetime.timezone.utc).date()
    intro = [
        "# How fast", "",
        "Medians over interleaved blocks on one machine, one thread. Figures without a unit are ratios.", "",
    ]  # fmt: skip
    made_with = f"lthbench {e['lthbench']}, torch {e['torch']}, Python {e['python']}; {e['processor']}; {date}."
    left_out = ["", "Not measured here: the GPU's rows (`bench device=cuda`)."] if rows is ROWS else []
    page = "\n".join([*intro, *lines, *left_out, "", made_with, "", "    python -m lthbench bench", ""])
    (out / "bench.md").write_text(page)
    value = {"rows": [asdict(r) for r in made], "environment": e, "date": str(date)}
    (out / "bench.json").write_text(json.dumps(value, indent=1) + "\n")
    print(out / "bench.md")
    return 0
