"""`lthbench list`: what there is to choose from, from the registries and files that the command line uses."""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml
from rich.markup import escape
from rich.table import Table

from lthbench.base.errors import UserError, near
from lthbench.cli.compose import Composer, composer, conf_dir
from lthbench.cli.execute import terminal
from lthbench.cli.subcommands import parser
from lthbench.cli.tables import Table as Read
from lthbench.cli.tables import datasets, names_of, read
from lthbench.data.known import CHOICES, FOLDERS, SETS
from lthbench.pruning.criteria import CRITERIA, Criterion
from lthbench.pruning.dynamics import METHODS
from lthbench.pruning.prunable import PRESETS
from lthbench.published import known, load

Rows = list[tuple[str, ...]]
GROUP_NAMES = {"model": "models", "dataset": "datasets", "pruner": "pruners", "table": "tables"}


def run(words: Sequence[str]) -> int:
    """Print the options of a group, or of all."""
    arguments = parser("list", "What there is to choose from: models, datasets, pruners, tables, or any other group.")
    arguments.add_argument("what", nargs="?", help="models, datasets, pruners, tables, papers, prunable, or a group")
    arguments.add_argument("--verbose", "-v", action="store_true", help="with settings, versions and sources")
    arguments.add_argument("--config-dir", help="options of your own, and published/*.yaml")
    arguments.add_argument("--data", help="where data sets are looked for (default $LTHBENCH_DATA, then data)")
    parsed = arguments.parse_args(words)
    console = terminal()
    with composer(parsed.config_dir) as compose:
        groups = sorted(g for g in compose.loader.list_groups("") if g != "hydra")
        topics: dict[str, Callable[[], Rows]] = {
            **{GROUP_NAMES.get(g, g): _options(compose, g, parsed.config_dir, parsed.verbose) for g in groups},
            "datasets": lambda: _datasets(parsed.data),
            "papers": lambda: _papers(parsed.config_dir),
            "tables": lambda: tables(compose, parsed.data),
            "prunable": lambda: [(name, what) for name, (what, _) in PRESETS.items()],
        }
        what = GROUP_NAMES.get(parsed.what, parsed.what)
        if what is not None and what not in topics:
            raise UserError(f"list: nothing is called '{parsed.what}'{near(parsed.what, topics)}")
        for topic in [what] if what else list(topics):
            table = Table(title=topic, title_justify="left", box=None, show_header=False, title_style="bold")
            table.add_column(no_wrap=True)
            for row in topics[topic]():
                table.add_row(*map(escape, row))
            console.print(table)
    return 0


def _options(compose: Composer, group: str, extra_dir: str | None, verbose: bool) -> Callable[[], Rows]:
    def rows() -> Rows:
        found: Rows = []
        folders = [Path(d) / group for d in (conf_dir(), extra_dir) if d]
        for option in compose.loader.get_group_options(group):
            path = next(p for folder in folders if (p := folder / f"{option}.yaml").is_file())
            text = path.read_text()
            what = text.splitlines()[0].lstrip("# ") if text.startswith("#") else ""
            if verbose:
                what += "\n" + (_pruner(text, folders) if group == "pruner" else _settings(text))
            found.append((option, what))
        return found

    return rows


def _settings(text: str) -> str:
    """The settings of an option, as its file writes them."""
    return textwrap.indent("\n".join(line for line in text.splitlines()[1:] if line), "  ")


def _pruner(text: str, folders: Sequence[Path]) -> str:
    """A pruner's formula, its settings with their defaults, and its criterion's version, paper and deviations."""
    lines = _lines(text, folders)
    name = (yaml.safe_load(lines.get("criterion", "")) or {}).get("criterion", "")
    known = CRITERIA.get(name) or METHODS.get(name)
    said = textwrap.indent("\n".join(lines.values()), "  ")
    if known is None:
        return said
    made_in = inspect.getmodule(known.score if isinstance(known, Criterion) else known.make)
    source = (inspect.getdoc(made_in) or "").strip()
    paragraphs = "\n".join(" ".join(part.split()) for part in source.split("\n\n"))
    return f"score: {known.what}\n{said}\nversion {known.version}. {paragraphs}\n"


def _lines(text: str, folders: Sequence[Path]) -> dict[str, str]:
    """The lines of a pruner's file by key, those that it takes over from others first."""
    lines: dict[str, str] = {}
    for base in (yaml.safe_load(text) or {}).get("defaults", []):
        found = next((p for folder in folders if (p := folder / f"{base}.yaml").is_file()), None)
        lines |= _lines(found.read_text(), folders) if found else {}
    own = {line.split(":", 1)[0]: line for line in text.splitlines() if ":" in line and not line.startswith("#")}
    return lines | {key: line for key, line in own.items() if key != "defaults"}


def tables(compose: Composer, root: str | None) -> Rows:
    """Each table: what it compares, its size and cost, its data; or why it cannot be run."""
    from lthbench.cli.resolve import data_root

    where = root or data_root({"data": None})
    rows: Rows = []
    for name in names_of(compose):
        try:
            rows.append((name, "\n".join(_table(compose, read(compose, name), where))))
        except UserError as error:
            rows.append((name, f"wrong: {error}"))
    return rows


def _table(compose: Composer, table: Read, root: str) -> Iterator[str]:
    yield table.title
    paper = load(table.paper, compose.extra_dir) if table.paper else None
    if table.needs:
        about = f"{paper.reference}; " if paper else ""
        yield f"{about}not yet runnable: {table.needs}"
        return
    points = [(row, {c.key: c.value for c in point}) for row in table.grids() for point in row.points(compose, [], {})]
    cells = {(row.label, str(said.get("sparsity"))) for row, said in points}
    size = f"{len(cells)} cells, {len(points)} runs"
    if table.cost:
        size += f"; {table.cost['epochs']:,.0f} epochs, {table.cost['alone']:,.0f} were nothing shared"
    if paper:
        beside = f"{len(table.published)} published table(s), {len(table.claims)} claim(s)"
        yield f"{paper.reference}: {beside}"
    yield size
    needed = datasets(compose, table)
    yield "; ".join(f"{name}: {'here' if _here(name, root) else 'not in ' + repr(root)}" for name in needed)


def _here(name: str, root: str) -> bool:
    """Whether files of a data set are there; which version they are is for `list datasets` to say."""
    from lthbench.data import folders
    from lthbench.data.read import Copy

    if name in FOLDERS:
        return folders.seen(name, root) is not None
    return name in SETS and (not SETS[name].places or Copy.find(name, root) is not None)


def _papers(own: str | None) -> Rows:
    """Each file of published numbers: what it holds and how well it is known, or what is wrong with it."""
    rows: Rows = []
    for name in known(own):
        try:
            paper = load(name, own)
        except UserError as error:
            rows.append((name, f"wrong: {error}"))
            continue
        levels = Counter(t.evidence.level for t in paper.tables for _ in t.rows)
        counts = ", ".join(f"{n:,} {level}" for level, n in sorted(levels.items()))
        what = f"{len(paper.tables)} tables ({counts or 'no rows'}), {len(paper.claims)} claims"
        rows.append((name, f"{paper.reference}: {paper.title}\n{what}"))
    return rows


def _datasets(root: str | None) -> Rows:
    from lthbench.cli.resolve import data_root
    from lthbench.data.read import found

    where = root or data_root({"data": None})
    rows: Rows = []
    for name in CHOICES:
        if name in FOLDERS:
            folder = FOLDERS[name]
            what, get = folder.what, folder.get
            size = f"{folder.classes} classes; {folder.train}+{folder.test}"
        else:
            known = SETS[name]
            versions = (
                f"{v} ({n.train}+{n.test})" + (f": {n.note}" if n.note else "") for v, n in known.versions.items()
            )
            what, get = known.what, known.get
            size = f"{'x'.join(map(str, known.shape))}, {known.classes} classes; {', '.join(versions)}"
        here = found(name, where)
        state = f"here: {here}" if here else f"not in '{where}'; get it: {get.replace('{data}', where)}"
        rows.append((name, f"{what}\n{size}\n{state}"))
    rows.append(("npz", "your own arrays: dataset=npz dataset.name=FILE.npz"))
    rows.append(("imagefolder", "your own image files: dataset=imagefolder dataset.name=DIR"))
    rows.append(("standin_NAME", "made-up images of a set's shape and classes; what scale=smoke takes in its place"))
    return rows
