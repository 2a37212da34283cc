"""Hydra's composition, made cheap for grids.

A real composition costs 40-100 ms, so there is one for each distinct set of group choices; values are then set
on plain copies of it. Keys that the composition does not have are refused, `+key` included: the YAML files are
the schema (where one says `{}`, any key may come), and the typed settings below check the values. What a value
refers to by `${...}` is looked up as Hydra would.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lthbench.base.errors import UserError, near
from lthbench.cli.subcommands import SUBCOMMANDS
from lthbench.pruning.own import defaults

Config = dict[str, Any]


def conf_dir() -> str:
    """Where the configuration lies: inside the package (wheel) or beside it (checkout)."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    raise UserError("the configuration folder conf/ is missing from this installation")


# group -> the settings that a file of the user's brings when it is chosen like an option
FILES: dict[str, Callable[[str], Config]] = {
    "model": lambda path: {"name": path},
    "pruner": lambda path: {"criterion": path, **defaults(path)},
}


@dataclass(frozen=True)
class Choice:
    """One parsed override: `key=value`, of a group or of a value; `line` is what Hydra composes."""

    key: str
    value: Any
    line: str
    group: bool
    file: bool = False  # a group's option that is a file of the user's: `pruner=my_pruner.py`


class Composer:
    """Turns override strings into plain configurations."""

    def __init__(self, extra_dir: str | None) -> None:
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        self.loader = hydra.config_loader
        self.extra_dir = extra_dir
        self.parser = OverridesParser.create(config_loader=self.loader)
        if extra_dir is not None:
            path = self.loader.config_search_path  # type: ignore[attr-defined]
            path.prepend("own", f"file://{os.path.abspath(extra_dir)}", "schema")  # Hydra wants schema last
            self.loader.repository.initialize_sources(path)  # type: ignore[attr-defined]
        self._parsed: dict[str, Override] = {}
        self._choices: dict[str, Choice] = {}
        self._values: dict[str, list[Choice]] = {}
        self._bases: dict[tuple[str, ...], Config] = {}
        self._plain: dict[str, bool] = {}
        self._options: dict[str, list[str]] = {}

    def parse(self, line: str) -> Override:
        """Parse one override string."""
        if line not in self._parsed:
            if line.lstrip("+~").partition("=")[0] == "" or ("=" not in line and not line.startswith("~")):
                first = f"; '{line}' comes first: lthbench {line} ..." if line in SUBCOMMANDS else ""
                raise UserError(f"'{line}' is no setting; settings are key=value{first}")
            try:
                self._parsed[line] = self.parser.parse_override(line)
            except HydraException as error:
                hint = "; quote it: key='\"...\"'" if "token recognition" in str(error) else ""
                raise UserError(f"cannot read '{line}': {str(error).splitlines()[0]}{hint}") from None
        return self._parsed[line]

    def values(self, line: str) -> list[Choice]:
        """The choices of an override: one, or one for each value of a sweep."""
        if line not in self._values:
            self._values[line] = self._read(line)
        return self._values[line]

    def _read(self, line: str) -> list[Choice]:
        override = self.parse(line)
        if override.is_delete():
            raise UserError(f"'{line}': nothing can be deleted from the settings")
        if override.package is not None:
            raise UserError(f"'{line}': a choice has its place; leave out '@{override.package}'")
        key = override.key_or_group
        if key.startswith("hydra"):
            raise UserError(f"'{key}' is Hydra's own; here grids and folders are set by -m, out and store")
        if not override.is_sweep_override():
            return [self._choice(key, override.value(), line.lstrip("+"))]
        if not override.is_discrete_sweep():
            raise UserError(f"{key}: a grid needs discrete values")
        choices = [self.choice(f"{key}={text}") for text in override.sweep_string_iterator()]
        if not choices:
            raise UserError(f"'{line}' holds no value")
        return choices

    def choice(self, line: str) -> Choice:
        """A single-valued override as a choice."""
        if line not in self._choices:
            override = self.parse(line)
            self._choices[line] = self._choice(override.key_or_group, override.value(), line)
        return self._choices[line]

    def _choice(self, key: str, value: Any, line: str) -> Choice:
        group = self.loader.repository.group_exists(key)  # type: ignore[attr-defined]
        if group and not isinstance(value, str):
            raise UserError(f"'{line}': {key} is chosen by name{near(value, self.loader.get_group_options(key))}")
        if key in FILES and isinstance(value, str) and value.endswith(".py"):
            return Choice(key, value, f"{key}=file", group=True, file=True)
        return Choice(key, value, line, group)

    def compose(self, choices: Iterable[Choice]) -> Config:
        """The configuration with these choices; the later one wins."""
        latest = {choice.key: choice for choice in choices}
        groups = tuple(sorted(c.line for c in latest.values() if c.group))
        config = _copied(self._base(groups))
        for choice in latest.values():
            if choice.file:
                config[choice.key] |= FILES[choice.key](choice.value)
        for choice in latest.values():
            if not choice.group:
                _set(config, choice)
        if any("${" in str(choice.value) for choice in latest.values()):
            with one_line():
                plain = json.loads(json.dumps(config))
                config = cast(Config, OmegaConf.to_container(OmegaConf.create(plain), resolve=True))
        return config

    def _base(self, groups: tuple[str, ...]) -> Config:
        """The configuration with these group choices. Those that fill their own section and touch no other are read
        from their files into a composition without them: so many fewer are made, and each takes a tenth of a second."""
        if groups not in self._bases:
            plain = tuple(line for line in groups if self._is_plain(line))
            if plain:
                base = dict(self._base(tuple(line for line in groups if line not in plain)))
                self._bases[groups] = base | {
                    group: _opened(self._section(group, o)) for group, o in map(_split, plain)
                }
            else:
                self._bases[groups] = self._composed(groups)
        return self._bases[groups]

    def _composed(self, groups: tuple[str, ...]) -> Config:
        with one_line():
            composed = self.loader.load_configuration("config", list(groups), run_mode=RunMode.RUN)
            OmegaConf.set_struct(composed, False)
            composed.pop("hydra")
            plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
        assert isinstance(plain, dict)
        return {str(k): _opened(v) for k, v in plain.items()}

    def _section(self, group: str, option: str) -> Any:
        """What a plain option's file says, over the files that its `defaults` name."""
        path = self._path(group, option)
        assert path is not None
        said = cast(Config, OmegaConf.to_container(OmegaConf.load(path)))
        under = [self._section(group, str(brought)) for brought in said.pop("defaults", [])]
        return OmegaConf.to_container(OmegaConf.merge(*under, said)) if under else said

    def _is_plain(self, line: str) -> bool:
        """Whether an option's file fills its own section and nothing else: no packages, overrides, interpolations."""
        if line not in self._plain:
            group, option = _split(line)
            text = self.file(group, option)
            found = re.search(r"^defaults:\s*(.*)", text or "", re.MULTILINE)
            brought = [word.strip() for word in found[1].strip("[]").split(",")] if found else []
            self._plain[line] = (
                text is not None
                and not re.search(r"\$\{|^# *@package|^defaults:\s*$|^- ", text, re.MULTILINE)
                and not any(re.search(r"\W", word) or word == "_self_" for word in brought)
                and all(self._is_plain(f"{group}={word}") for word in brought)
            )
        return self._plain[line]

    def options(self, group: str) -> list[str]:
        """The options of a group, looked up once."""
        if group not in self._options:
            self._options[group] = list(self.loader.get_group_options(group))
        return self._options[group]

    def file(self, group: str, option: str) -> str | None:
        """The text of an option's file; None where there is none."""
        path = self._path(group, option)
        return None if path is None else path.read_text()

    def _path(self, group: str, option: str) -> Path | None:
        paths = (Path(folder, group, f"{option}.yaml") for folder in (conf_dir(), self.extra_dir) if folder is not None)
        return next((path for path in paths if path.is_file()), None)


def _split(line: str) -> tuple[str, str]:
    """The group and the option of a choice."""
    group, _, option = line.lstrip("+").partition("=")
    return group, option


class Open(dict[str, Any]):
    """A group of settings that takes any key: written `{}` in the YAML files."""


def _copied(value: Any) -> Any:
    """A deep copy of plain mappings; lists and scalars are never changed in place."""
    return type(value)({k: _copied(v) for k, v in value.items()}) if isinstance(value, dict) else value


def _opened(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _opened(v) for k, v in value.items()} if value else Open()


def _set(config: Config, choice: Choice) -> None:
    """Set a value that the configuration has; anything else is an unknown key."""
    *path, last = choice.key.split(".")
    node: Any = config
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, Open):
        node.setdefault(last, None)
    if not isinstance(node, dict) or last not in node:
        parts = choice.key.split(".")
        raise UserError(f"unknown key '{choice.key}'{_nearest(config, parts)}")
    was = node[last]
    if not isinstance(was, dict):
        whole = isinstance(was, float) and type(choice.value) is int and path  # 1 and 1.0 are one setting
        node[last] = float(choice.value) if whole else choice.value
    elif isinstance(choice.value, dict) and isinstance(was, Open):
        was.update(choice.value)  # keys may hold dots: names of weights
    elif isinstance(choice.value, dict):
        for key, value in choice.value.items():
            _set(config, replace(choice, key=f"{choice.key}.{key}", value=value))
    else:
        raise UserError(f"'{choice.key}' is a group of settings; say {choice.key}.{next(iter(was), 'NAME')}=...")


def _nearest(config: Config, parts: list[str]) -> str:
    """The hint for the first part of a key that is unknown."""
    node: Any = config
    for part in parts:
        if not isinstance(node, dict):
            return ""
        if part not in node:
            above = "".join(f"{p}." for p in parts[: parts.index(part)])
            return near(part, [*node, "table"] if node is config else node, above)
        node = node[part]
    return ""


@contextmanager
def composer(extra_dir: str | None) -> Iterator[Composer]:
    """A composer over this installation's configuration and, after it, a folder of the user's."""
    if extra_dir is not None and not os.path.isdir(extra_dir):
        raise UserError(f"--config-dir: no folder '{extra_dir}'")
    with one_line(), initialize_config_dir(conf_dir(), job_name="lthbench", version_base="1.3"):
        yield Composer(extra_dir)


@contextmanager
def one_line() -> Iterator[None]:
    """Turn Hydra's errors into one line each."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_line(error)) from None
    except YAMLError as error:
        raise UserError(" ".join(str(error).split())) from None


def _line(error: BaseException) -> str:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for link in chain:
        if isinstance(link, MissingConfigException) and link.options is not None:
            group, _, option = (link.missing_cfg_file or "").rpartition("/")
            return f"no option '{option}' in group '{group}'{near(option, link.options)}"
    for link in chain:
        if isinstance(link, OmegaConfBaseException) and link.full_key:
            known = [str(k) for k in link.parent_node] if isinstance(link.parent_node, Iterable) else []
            kind = type(link).__name__
            if kind in ("ConfigKeyError", "ConfigAttributeError"):
                above = str(link.full_key).removesuffix(str(link.key))
                return f"unknown key '{link.full_key}'{near(str(link.key), known, above)}"
            return f"{link.full_key}: {str(link.msg or link).splitlines()[0]}"
    return str(error).splitlines()[0]
