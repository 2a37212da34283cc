"""Typed settings whose canonical text names a result.

A part of an experiment (a recipe, a criterion, a data set) is a frozen dataclass derived from
`Settings`. Its `text` is canonical JSON and goes into the ids of the stages that depend on it:
every field is written out, defaults included, because defaults live in YAML and may change.

Two kinds of field are special:

- `later(neutral)`: added after ids existed. It is left out of the text while it holds the value that
  reproduces the old behaviour, so old ids stay. The neutral value is frozen for ever.
- `aside(default)`: never in the text (a folder, a file's place); recorded, but not what determines bits.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from lthbench.base.errors import UserError, near

T = TypeVar("T", bound="Settings")
_ABSENT = object()
_encode = json.JSONEncoder(allow_nan=False).encode


def later(neutral: Any) -> Any:
    """A field added after the class was first used in ids; `neutral` reproduces the old behaviour."""
    return field(default=neutral, metadata={"neutral": neutral})


def aside(default: Any = None) -> Any:
    """A field that is no part of the identity."""
    return field(default=default, metadata={"aside": True}, compare=False)


class Settings:
    """Base of frozen dataclasses that name results; see the module's docstring."""

    @property
    def text(self) -> str:
        """Canonical JSON of the identity."""
        found: str | None = self.__dict__.get("text")
        if found is None:
            named = [(prefix, getattr(self, name), neutral) for name, prefix, neutral in _named(type(self))]  # type: ignore[arg-type]
            parts = [prefix + canonical(v) for prefix, v, neutral in named if neutral is _ABSENT or v != neutral]
            found = self.__dict__["text"] = "{" + ",".join(parts) + "}"
        return found

    def spelled_out(self) -> dict[str, Any]:
        """The identity as plain JSON values."""
        result: dict[str, Any] = json.loads(self.text)
        return result

    def whole(self) -> dict[str, Any]:
        """All fields as plain JSON values, those aside the identity too: `build` makes these settings of them again."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.whole()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return list(map(_plain, value)) if isinstance(value, (list, tuple)) else value


@cache
def _named(cls: Any) -> list[tuple[str, str, Any]]:
    """The identity's fields in the text's order: name, how the text begins it, neutral value."""
    own = sorted((f for f in fields(cls) if not f.metadata.get("aside")), key=lambda f: f.name)
    return [(f.name, f"{_encode(f.name)}:", f.metadata.get("neutral", _ABSENT)) for f in own]


def canonical(value: Any) -> str:
    """One text a value: sorted keys, no spaces, no NaN; nested settings by their own text."""
    if type(value) in (str, int):  # most values; the rest of this function is slow
        return _encode(value) if type(value) is str else str(value)
    if isinstance(value, Settings):
        return value.text
    if isinstance(value, Mapping):
        return "{" + ",".join([f"{_encode(k)}:{canonical(value[k])}" for k in sorted(value)]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(canonical, value)) + "]"
    return _encode(value)


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make settings from loosely typed values (YAML, command line), each coerced to its field's type.

    Coercion makes `lr: 1` and `lr: 1.0` one id. Raises UserError for unknown or missing keys and wrong types.
    """
    hints = _hints(cls)  # type: ignore[arg-type]
    for key in values:
        if key not in hints:
            raise UserError(f"unknown key '{where}.{key}'{near(key, hints)}")
    made = {key: coerce(value, hints[key], f"{where}.{key}") for key, value in values.items()}
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name not in made and f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"'{where}.{f.name}' is missing")
    return cls(**made)


@cache
def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def coerce(value: Any, to: Any, where: str) -> Any:
    """`value` as type `to` (bool, int, float, str, tuple, dict, Optional, Settings), or a UserError naming `where`."""
    origin = get_origin(to)
    if to is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(to):
            return None
        return coerce(value, next(t for t in get_args(to) if t is not type(None)), where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where}: {value!r} is not a list")
        kind = get_args(to)[0]
        return tuple(coerce(v, kind, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: {value!r} is not a mapping")
        kind = get_args(to)[1]
        return {str(k): coerce(v, kind, f"{where}.{k}") for k, v in value.items()}
    if isinstance(to, type) and issubclass(to, Settings):
        if isinstance(value, to):
            return value
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: {value!r} is not a group of settings")
        return build(to, value, where)
    return _scalar(value, to, where)


def _scalar(value: Any, to: type, where: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if to is bool and isinstance(value, bool):
        return value
    if to is int and number and value == int(value):
        return int(value)
    if to is float and number:
        return float(value)
    if to is str and isinstance(value, str):
        return value
    if to is str and number:
        return str(value)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    listed = "; -m runs a list, one run a value" if isinstance(value, (list, tuple)) else ""
    raise UserError(f"{where}: {value!r} is not {words.get(to, to.__name__)}{listed}")
