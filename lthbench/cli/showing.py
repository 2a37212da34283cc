"""`lthbench show`: one result, or how two differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lthbench.base.errors import UserError
from lthbench.base.units import readable
from lthbench.cli.compose import composer
from lthbench.cli.execute import folders
from lthbench.cli.reporting import PLACES, describe, out_folders
from lthbench.cli.subcommands import parser
from lthbench.engine.store import Store, state_file
from lthbench.programs import record
from lthbench.programs.versions import outdated

Result = dict[str, Any]


def show(words: Sequence[str]) -> int:
    """Print one result, or how two differ."""
    arguments = parser(
        "show",
        "One result: settings, metrics, sparsities, where each number comes from.\n"
        "Two: in what settings, metrics, layers and masks they differ.",
    )
    arguments.add_argument("id", help="a result's id, or its first letters")
    arguments.add_argument("more", nargs="*", default=[], help="another id; out=DIR (or out=DIR,DIR), store=DIR")
    arguments.add_argument("--json", action="store_true", help="the whole file")
    parsed = arguments.parse_intermixed_args(words)
    ids = [parsed.id, *(word for word in parsed.more if "=" not in word)]
    places = [word for word in parsed.more if "=" in word]
    for word in places:
        if not word.startswith(PLACES):
            raise UserError(f"show: '{word}' has no meaning here; it takes ids and out=DIR")
    if len(ids) > 2:
        raise UserError(f"show: {len(ids)} ids; it takes one or two")
    if parsed.json and len(ids) > 1:
        raise UserError("show: --json takes one id")
    with composer(None) as compose:
        outs = out_folders(compose, places)
        said = [f"out={outs[0]}", *(o for o in places if not o.startswith("out="))]
        _, store = folders(compose.compose(c for o in said for c in compose.values(o)))
    found = [_find(ident, outs) for ident in ids]
    lines = _two(*found, store=store) if len(found) == 2 else _one(found[0], store)
    print(json.dumps(found[0], indent=1) if parsed.json else "\n".join(lines))
    return 0


def _find(ident: str, outs: Sequence[Path]) -> Result:
    paths = {path.stem: path for out in reversed(outs) for path in (out / "runs").glob(f"{ident}*.json")}
    if len(paths) != 1:
        several = f"{len(paths)} results begin with" if paths else "no result begins with"
        raise UserError(f"{several} '{ident}' in '{', '.join(str(out / 'runs') for out in outs)}'")
    return record.read(next(iter(paths.values())))


def _one(result: Result, store: Store) -> Iterator[str]:
    counts = ", ".join(f"{n} {c['removed'] / c['total']:.4%}" for n, c in result["sparsity"].items())
    yield f"{result['id']}  {describe(result['config'])}, seed {result['seed']}"
    if old := outdated(result):
        yield f"stale: computed with {', '.join(old)}"
    for split, metrics in result["metrics"].items():
        yield f"{split}: accuracy {metrics['accuracy']:.4%}, loss {metrics['loss']}"
    yield f"removed of: {counts}"
    flops = result["flops"]
    yield f"multiply-adds: {flops['nonzero']:,} of {flops['dense']:,}, theoretical speed-up {flops['speedup'] or 0:.2f}"
    if result["diverged_at"] is not None:
        yield f"diverged at step {result['diverged_at']}"
    for name, layer in result["layers"].items():
        yield f"  {name}: {layer['kept']:,} of {layer['total']:,}"
    yield f"weights sha256 {result['final_weights_sha256']}"
    for role, ref in result["stages"].items():
        yield f"  {role}: {ref}"
    ident, _, step = result["stages"]["final"].partition("@")
    name = state_file(int(step)) if step.isdigit() else f"{step}.safetensors" if step else "out.safetensors"
    yield f"the network: {store.folder(ident) / name}"
    cost = result["cost"]
    peak = readable(cost.get("peak_memory", 0))
    yield f"training {cost['train_seconds']} s, peak memory {peak}; {json.dumps(result['environment'])}"
    yield "settings: " + json.dumps(result["config"], indent=1)


# ---- two


def _two(a: Result, b: Result, *, store: Store) -> Iterator[str]:
    """What differs, a line each: left of the bar the first, right of it the second."""
    yield f"{a['id']}  {describe(a['config'])}, seed {a['seed']}"
    yield f"{b['id']}  {describe(b['config'])}, seed {b['seed']}"
    settings = list(_differences(a["config"], b["config"]))
    yield "settings:" if settings else "settings: the same"
    yield from (f"  {line}" for line in settings)
    older = [", ".join(outdated(r)) for r in (a, b)]
    if any(older):
        yield f"versions: {older[0] or 'as now'} | {older[1] or 'as now'}"
    yield from (f"{line}" for line in _differences(_computed_with(a), _computed_with(b)))
    for split in a["metrics"]:
        if split in b["metrics"]:
            yield _accuracies(split, a["metrics"][split], b["metrics"][split])
    for over, count in a["sparsity"].items():
        shares = [100 * c["removed"] / c["total"] for c in (count, b["sparsity"][over])]
        yield f"removed of {over}: {shares[0]:.4f} % | {shares[1]:.4f} %"
    masks = [_mask(r, store) for r in (a, b)]
    yield "layers, share kept:" + ("" if all(masks) else " (masks that are not in the store are not compared)")
    for name, layer in a["layers"].items():
        other = b["layers"].get(name)
        if other is None:
            yield f"  {name}: only in the first"
            continue
        kept = " | ".join(f"{one['kept']:,} of {one['total']:,}" for one in (layer, other))
        yield f"  {name}: {kept}{_overlap(name, *masks)}"
    yield from (f"  {name}: only in the second" for name in b["layers"] if name not in a["layers"])
    same = a["final_weights_sha256"] == b["final_weights_sha256"]
    yield f"final weights: {'the same' if same else 'different'}"
    shared = sorted(set(a["stages"].values()) & set(b["stages"].values()))
    roles = [role for role, ref in a["stages"].items() if ref in shared]
    yield f"stages in common: {', '.join(roles) or 'none'}"


def _accuracies(split: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    difference = 100 * (b["accuracy"] - a["accuracy"])
    losses = " | ".join("not finite" if m["loss"] is None else f"{m['loss']:.6g}" for m in (a, b))
    return f"{split}: accuracy {a['accuracy']:.4%} | {b['accuracy']:.4%} ({difference:+.4f} points), loss {losses}"


def _computed_with(result: Result) -> Mapping[str, Any]:
    keys = ("device", "processor", "threads", "torch", "lthbench")
    return {key: result["environment"].get(key) for key in keys}


def _differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """`key: one | other` for each leaf in which two nested mappings differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            yield from _differences(a.get(key), b.get(key), f"{where}.{key}" if where else str(key))
    elif a != b:
        yield f"{where}: {_brief(a)} | {_brief(b)}"


def _brief(value: Any) -> str:
    return "-" if value is None else json.dumps(value)


def _mask(result: Result, store: Store) -> dict[str, Any]:
    """The last mask of a run by layer, as arrays; empty where the store does not hold it."""
    from safetensors.numpy import load_file

    rounds = [role for role in result["stages"] if role.startswith("mask ")]
    if not rounds:
        return {}
    path = store.folder(result["stages"][max(rounds, key=lambda role: int(role.split()[1]))]) / "out.safetensors"
    return dict(load_file(path)) if path.is_file() else {}


def _overlap(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """How much of what one mask keeps the other keeps, beside what chance would give."""
    if name not in a or name not in b or a[name].shape != b[name].shape:
        return ""
    either, both = int((a[name] | b[name]).sum()), int((a[name] & b[name]).sum())
    chance = a[name].mean() * b[name].mean()
    expected = chance / (a[name].mean() + b[name].mean() - chance) if either else 1.0
    share = both / either if either else 1.0
    return f"; kept by both {both:,}, by either {either:,}: {share:.1%} (by chance {expected:.1%})"
