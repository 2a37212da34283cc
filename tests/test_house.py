"""The house: which way the doors open, and that torch comes in only where it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lthbench

PACKAGE = Path(lthbench.__file__).parent
ROOMS = ["__main__", "cli", "report", "launch", "tracking", "programs", "stages", "engine"]
PARTS = [
    "compress",
    "soups",
    "evaluation",
    "pruning",
    "training",
    "models",
    "data",
]  # among these, too, imports go down
ORDER = {room: level for level, room in enumerate([*ROOMS, *PARTS, "published", "base", "__init__"])}
LEAVES = {"bench": "cli"}  # looked into by one room only; may itself look into all parts, and start workers
HEAVY = {"torch", "torchvision", "timm", "wandb", "matplotlib", "sklearn", "scipy"}
TORCH_ROOMS = {*PARTS, "bench"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def modules(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        assert node.module is not None
        whole = node.module == "lthbench"
        yield from (f"lthbench.{alias.name}" for alias in node.names) if whole else [node.module]


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_down(path: Path):
    """Everywhere in a file: an import inside a function is a door as well."""
    room = room_of(path)
    for node in ast.walk(ast.parse(path.read_text())):
        for module in modules(node):
            top, _, rest = module.partition(".")
            if top != "lthbench":
                continue
            target = rest.split(".")[0] if rest and rest != "__version__" else "__init__"
            if target in LEAVES:
                assert room in (target, LEAVES[target]), f"{room} looks into {target}"
            elif room in LEAVES:
                assert target in (*PARTS, "base", "engine", "stages", "launch"), f"{room} looks into {target}"
            else:
                assert ORDER[target] >= ORDER[room], f"{room} looks up into {target}"


def test_every_room_has_its_place():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms == {*ORDER, *LEAVES} - {"__main__", "__init__"}


def at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported (not those under TYPE_CHECKING)."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For, ast.ClassDef)):
            for part in ("body", "orelse", "finalbody"):
                yield from at_import(getattr(node, part, []))


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) not in TORCH_ROOMS], ids=name)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path):
    imported = {
        module.split(".")[0] for node in at_import(ast.parse(path.read_text()).body) for module in modules(node)
    }
    assert not imported & HEAVY


@pytest.mark.parametrize("room", PARTS)
def test_parts_import_only_torch(room: str):
    """timm, wandb, matplotlib and torchvision take seconds: not even the parts import them at the top."""
    for path in (PACKAGE / room).rglob("*.py"):
        for node in at_import(ast.parse(path.read_text()).body):
            assert not {module.split(".")[0] for module in modules(node)} & (HEAVY - {"torch"}), path


def test_what_plans_and_reports_never_imports_torch():
    """In a fresh process: no import in passing, through another module, either."""
    rooms = ("__main__", "cli", "report", "launch", "tracking", "programs", "stages", "engine", "base")
    light = [
        ".".join(("lthbench", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if room_of(path) in rooms and path.name != "__main__.py"
    ]
    code = "import sys, importlib\nfor m in sys.argv[2:]: importlib.import_module(m)\n"
    code += "print(*sorted(set(sys.argv[1].split(',')) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, ",".join(HEAVY), *light], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_the_package_says_nothing_of_hydra_below_the_command_line():
    for path in FILES:
        if room_of(path) not in ("cli", "__main__"):
            text = path.read_text()
            assert "hydra" not in text.lower(), path
            assert "omegaconf" not in text.lower(), path
