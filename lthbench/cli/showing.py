"""`lthbench show`: one result, or how two differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lthbench.base.errors import UserError
from lthbench.base.units import readable
from lthbench.cli.compose import composer
from lthbench.cli.execute import folders, terminal
from lthbench.cli.reporting import PLACES, describe, out_folders
from lthbench.cli.subcommands import parser
from lthbench.engine.store import Gone, Store, state_file
from lthbench.programs import record
from lthbench.programs.versions import outdated
from lthbench.report import layers

Result = dict[str, Any]


def show(words: Sequence[str]) -> int:
    """Print one result, or how two differ."""
    arguments = parser(
        "show",
        "One result: settings, metrics, sparsities, layers, where each number comes from.\n"
        "Two: in what settings, metrics and masks they differ.",
    )
    arguments.add_argument("id", help="a result's id, or its first letters")
    arguments.add_argument("words", nargs="*", default=[], help="a second id; out=DIR (or out=DIR,DIR), store=DIR")
    arguments.add_argument("--json", action="store_true", help="the whole file")
    arguments.add_argument("--chart", metavar="FILE.png", help="write a bar chart of the layers")
    parsed = arguments.parse_intermixed_args(words)
    places = [word for word in parsed.words if word.startswith(PLACES)]
    others = [word for word in parsed.words if word not in places]
    if len(others) > 1 or any("=" in word for word in others):
        raise UserError(f"show: '{others[-1]}' has no meaning here; it takes an id, or two, and out=DIR")
    if others and (parsed.json or parsed.chart):
        raise UserError("show: --json and --chart take one id")
    with composer(None) as compose:
        outs = out_folders(compose, places)
        said = [f"out={outs[0]}", *(o for o in places if not o.startswith("out="))]
        _, store = folders(compose.compose(c for o in said for c in compose.values(o)))
    result = found(parsed.id, outs)
    if parsed.json:
        print(json.dumps(result, indent=1))
    elif parsed.chart:
        Path(parsed.chart).write_bytes(layers.chart(result))
        print(parsed.chart)
    elif others:
        _two(result, found(others[0], outs), store)
    else:
        _one(result, store)
    return 0


def found(prefix: str, outs: Sequence[Path]) -> Result:
    """The result whose id begins so, of the first folder that has it. Raises UserError unless there is exactly one."""
    paths = {path.stem: path for out in reversed(outs) for path in (out / "runs").glob(f"{prefix}*.json")}
    if len(paths) != 1:
        several = f"{len(paths)} results begin with" if paths else "no result begins with"
        raise UserError(f"{several} '{prefix}' in '{', '.join(str(out / 'runs') for out in outs)}'")
    return record.read(next(iter(paths.values())))


def place(ref: str) -> tuple[str, str]:
    """The stage and the file that hold a state (`id@step`), or a stage's only output."""
    ident, _, step = ref.partition("@")
    return ident, state_file(int(step)) if step.isdigit() else f"{step}.safetensors" if step else "out.safetensors"


def _one(result: Result, store: Store) -> None:
    counts = ", ".join(f"{n} {c['removed'] / c['total']:.4%}" for n, c in result["sparsity"].items())
    print(f"{result['id']}  {describe(result['config'])}, seed {result['seed']}")
    if old := outdated(result):
        print(f"stale: computed with {', '.join(old)}")
    for split, metrics in result["metrics"].items():
        print(f"{split}: accuracy {metrics['accuracy']:.4%}, loss {metrics['loss']}")
    print(f"removed of: {counts}")
    flops = result["flops"]
    print(
        f"multiply-adds: {flops['nonzero']:,} of {flops['dense']:,}, theoretical speed-up {flops['speedup'] or 0:.2f}"
    )
    if result["diverged_at"] is not None:
        print(f"diverged at step {result['diverged_at']}")
    if early := result.get("early"):
        for each in early["searches"]:
            seen = ", ".join(f"{distance:.4g}" for distance in each["distances"].values())
            images = f", on {each['images']:,} images" if "images" in each else ""
            where = f"{each['epoch']:.4g} (step {each['step']}){images}"
            print(f"ticket drawn after epoch {where}, {each['drawn']}; distances {seen}")
    if "diagnosis" in result:
        _diagnose(result)
    terminal().print(layers.table(result))
    if "compression" in result:
        _compressed(result)
    print(f"weights sha256 {result['final_weights_sha256']}")
    for role, ref in result["stages"].items():
        print(f"  {role}: {ref}")
    ident, name = place(result["stages"]["final"])
    print(f"the network: {store.folder(ident) / name}")
    cost = result["cost"]
    peak = readable(cost.get("peak_memory", 0))
    print(f"training {cost['train_seconds']} s, peak memory {peak}; {json.dumps(result['environment'])}")
    print("settings: " + json.dumps(result["config"], indent=1))


def _diagnose(result: Result) -> None:
    """What is wrong with the mask, if anything is."""
    diagnosis, parameters = result["diagnosis"], result["parameters"]
    print(f"parameters: {parameters['nonzero']:,} nonzero of {parameters['dense']:,}")
    if (effective := diagnosis["effective"]) is None:
        print(f"on a path from input to output: not known, paths cannot be followed through {diagnosis['unfollowed']}")
    else:
        print(f"off every path from input to output: {effective['removed'] / effective['total']:.4%}")
    if diagnosis["collapsed"]:
        print(f"layers without a weight: {', '.join(diagnosis['collapsed'])}")


def _compressed(result: Result) -> None:
    """What the bytes of the network's file are spent on."""
    told = result["compression"]
    before, after = (f"{1 - m['accuracy']:.4%}" for m in (told["before"], result["metrics"]["test"]))
    print(f"file: {told['bytes']['file']:,} bytes of {told['bytes']['dense']:,}, rate {told['rate']['file']:.2f}")
    print("rates: " + ", ".join(f"{stage} {rate:.2f}" for stage, rate in told["rate"].items()))
    print(f"test error before {before}, after {after}")
    terminal().print(layers.packed(result))


# ---- two


def _two(a: Result, b: Result, store: Store) -> None:
    """Print what differs; left of a bar stands the first, right of it the second."""
    for result in (a, b):
        old = outdated(result)
        stale = f" (stale: {', '.join(old)})" if old else ""
        print(f"{result['id']}  {describe(result['config'])}, seed {result['seed']}{stale}")
    settings = list(differences(a["config"], b["config"]))
    print("settings:" if settings else "settings: the same")
    for line in settings:
        print(f"  {line}")
    for line in differences(_computed_with(a), _computed_with(b)):
        print(line)
    for split in (split for split in a["metrics"] if split in b["metrics"]):
        print(_accuracies(split, a["metrics"][split], b["metrics"][split]))
    for over in (over for over in a["sparsity"] if over in b["sparsity"]):
        shares = [100 * r["sparsity"][over]["removed"] / r["sparsity"][over]["total"] for r in (a, b)]
        print(f"removed of {over}: {shares[0]:.4f} % | {shares[1]:.4f} %")
    same = a["final_weights_sha256"] == b["final_weights_sha256"]
    print(f"final weights: {'the same' if same else 'different'}")
    refs = set(b["stages"].values())
    print(f"stages in common: {', '.join(role for role, ref in a['stages'].items() if ref in refs) or 'none'}")
    _masks(a, b, store)


def _accuracies(split: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    difference = 100 * (b["accuracy"] - a["accuracy"])
    losses = " | ".join("not finite" if m["loss"] is None else f"{m['loss']:.6g}" for m in (a, b))
    return f"{split}: accuracy {a['accuracy']:.4%} | {b['accuracy']:.4%} ({difference:+.4f} points), loss {losses}"


def _computed_with(result: Result) -> Mapping[str, Any]:
    keys = ("device", "processor", "threads", "torch", "lthbench")
    return {key: result["environment"].get(key) for key in keys}


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """`key: one | other` for each leaf in which two nested mappings differ; a dash where one has none."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            yield from differences(a.get(key), b.get(key), f"{where}.{key}" if where else str(key))
    elif a != b:
        yield f"{where}: " + " | ".join("-" if value is None else json.dumps(value) for value in (a, b))


def _masks(a: Result, b: Result, store: Store) -> None:
    """Print, layer by layer, how many weights both keep; of the masks, if the store has them, also which."""
    from lthbench.training.checkpoint import Checkpoint

    masks: list[Mapping[str, Any]] = [{}, {}]
    try:
        masks = [Checkpoint.unpack(store.read(*place(r["stages"]["final"]))).mask for r in (a, b)]
    except Gone:
        print(f"the masks are no longer in '{store.root}': only their sizes are compared")
    names = [name for name, layer in a["layers"].items() if layer["total"] == b["layers"].get(name, {}).get("total")]
    rows = {name: (a["layers"][name]["kept"], b["layers"][name]["kept"], a["layers"][name]["total"]) for name in names}
    shared = {n: int((masks[0][n] & masks[1][n]).sum()) for n in names if n in masks[0] and n in masks[1]}
    table = Table("layer", box=None)
    for title in ("first keeps", "second keeps", "both", "of the first", "by chance"):
        table.add_column(title, justify="right")
    if shared:
        rows["all"] = tuple(sum(rows[name][i] for name in shared) for i in range(3))  # type: ignore[assignment]
        expected = {name: rows[name][0] * rows[name][1] / rows[name][2] for name in shared}
        expected["all"], shared["all"] = sum(expected.values()), sum(shared.values())
    for name, (first, second, _) in rows.items():
        both = [f"{shared[name]:,}"] if name in shared else [""]
        if name in shared and first:
            both += [f"{shared[name] / first:.2%}", f"{expected[name] / first:.2%}"]
        table.add_row(name, f"{first:,}", f"{second:,}", *both)
    terminal().print(table)
