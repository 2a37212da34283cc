"""`lthbench export`: a ticket to take away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.cli.compose import composer
from lthbench.cli.execute import folders
from lthbench.cli.reporting import PLACES
from lthbench.cli.showing import found, place
from lthbench.cli.subcommands import parser
from lthbench.engine.store import Gone, Store
from lthbench.models import FILES, digest

WORDS = ("to", "onnx", "model", *(word.rstrip("=") for word in PLACES))
IN_CARD = (
    "id", "seed", "config", "metrics", "sparsity", "parameters", "layers", "diagnosis", "flops", "compression",
    "stages", "final_weights_sha256", "environment",
)  # fmt: skip


def run(words: Sequence[str]) -> int:
    """Write a result's mask, rewound and final weights, its network as a program, and a card."""
    arguments = parser(
        "export",
        "A result's ticket as a folder that needs nothing of lthbench: masks and weights (safetensors), the network\n"
        "and its shrunk version as programs of torch.export, a card (JSON). Of compress=deep also compressed.bin,\n"
        "which lthbench.compress.read gives back.\n\n"
        "  to=DIR         the new folder\n"
        "  onnx=true      the networks in ONNX too (pip install 'lthbench[onnx]')\n"
        "  model=FILE.py  the file of a network of your own",
    )
    arguments.add_argument("id", help="a result's id, or its first letters")
    arguments.add_argument("words", nargs="*", help="to=DIR, onnx=true, out=DIR, store=DIR")
    parsed = arguments.parse_intermixed_args(words)
    said = {key: value for key, _, value in (word.partition("=") for word in parsed.words)}
    if unknown := next((key for key in said if key not in WORDS), None):
        raise UserError(f"export: '{unknown}' has no meaning here{near(unknown, WORDS)}")
    if not said.get("to"):
        raise UserError("export: say to=DIR, a new folder")
    if (onnx := said.get("onnx", "false").lower()) not in ("true", "false"):
        raise UserError(f"export: onnx={said['onnx']} is not true or false")
    places = [word for word in parsed.words if word.startswith(PLACES)]
    with composer(None) as compose:
        out, store = folders(compose.compose(c for o in places for c in compose.values(o)))
    result = found(parsed.id, [out])
    _own_file(result, said.get("model"))
    from lthbench.compress import tickets

    final = _checkpoint(store, result["stages"]["final"])
    packed = _file(store, result["stages"]["final"]) if "compression" in result else None
    trained = result["stages"].get("pruned", result["stages"]["final"])
    rewound = _checkpoint(store, start) if (start := _start(store, trained)) else None
    card = {"ticket": 1, **{key: result[key] for key in IN_CARD if key in result}}
    made = tickets.write(Path(said["to"]), final, rewound, card, onnx == "true", packed)
    for name, file in made["files"].items():
        print(f"{Path(said['to']) / name}: {file['what']}")
    print(f"{Path(said['to']) / 'card.json'}: settings, results, how to load")
    small = made["shrunk"]
    print(f"shrunk: {small['parameters']:,} of {small['of']:,} parameters" if "of" in small else small["why"])
    return 0


def _own_file(result: dict[str, Any], path: str | None) -> None:
    """A network of the user's own is built by its file, which only its content names."""
    model = result["config"]["model"]
    if model["name"] != "file":
        return
    if path is None or digest(path, "model") != model["args"]["sha256"]:
        raise UserError(
            f"export: this network is your own: say model=FILE.py (sha256 {model['args']['sha256'][:12]}...)"
        )
    FILES[model["args"]["sha256"]] = path


def _start(store: Store, ref: str) -> str | None:
    """The state that the training which made a state began with."""
    described = store.describe(ref.partition("@")[0])
    return described["inputs"].get("start") if described else None


def _checkpoint(store: Store, ref: str) -> Any:
    from lthbench.training.checkpoint import Checkpoint

    return Checkpoint.unpack(_read(store, ref))


def _file(store: Store, ref: str) -> bytes:
    """The compressed file of a network."""
    data: bytes = _read(store, ref)[0]["file"].numpy().tobytes()
    return data


def _read(store: Store, ref: str) -> Any:
    try:
        return store.read(*place(ref))
    except Gone:
        raise UserError(f"'{store.root}' no longer holds state {ref}; the run's command makes it again") from None
