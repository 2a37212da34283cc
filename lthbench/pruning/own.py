"""A criterion of one's own: a Python file with one function under `@criterion("NAME")`.

The file's content stands in the id in place of a version, so that an edited file is another method and never finds
the results of the old one. Files that it imports are not covered. The function's keyword arguments are its settings.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from lthbench.base.errors import UserError
from lthbench.base.settings import coerce
from lthbench.pruning.criteria import OWN, Criterion, CriterionSettings
from lthbench.pruning.scoring import Scoring

_TYPES = {kind.__name__: kind for kind in (bool, int, float, str)}
_TAKEN = {"criterion", "program"} | {f.name for f in fields(Scoring)}


def own(path: str) -> tuple[str, Criterion]:
    """The sha256 of a user's file and the criterion in it. Raises UserError for a file that does not hold one."""
    try:
        source = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"pruner: no file '{path}'") from None
    except OSError as error:
        raise UserError(f"pruner: '{path}' cannot be read: {error.strerror}") from None
    sha = hashlib.sha256(source).hexdigest()
    if sha not in OWN:
        OWN[sha] = _load(path, source, f"lthbench_own_{sha[:12]}")
    return sha, OWN[sha]


def own_settings(path: str, args: Mapping[str, Any], seed: int) -> CriterionSettings:
    """Settings of the criterion in a user's file; what `args` leaves out is as the function has it."""
    sha, known = own(path)
    args = defaults(path) | dict(args)
    kinds = {name: _kind(p) for name, p in _keywords(known).items()}
    for name in args:
        if name not in kinds:
            raise UserError(f"pruner.{name}: {known.name} in '{path}' has no such argument")
    made = {name: coerce(value, kinds[name], f"pruner.{name}") for name, value in args.items()}
    return CriterionSettings(known.name, known.version, made, seed if known.random else None, sha)


def defaults(path: str) -> dict[str, Any]:
    """The settings of the criterion in a user's file, with the values that the function gives them."""
    return {name: parameter.default for name, parameter in _keywords(own(path)[1]).items()}


def _load(path: str, source: bytes, name: str) -> Criterion:
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module  # where dataclasses and pickle look
    try:
        code = compile(source, path, "exec", dont_inherit=True)  # of this file's own __future__
        exec(code, module.__dict__)  # leaves no __pycache__ beside the file
    except SyntaxError as error:
        raise UserError(f"pruner: '{path}', line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        line = next((f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == path), 0)
        raise UserError(f"pruner: '{path}', line {line}: {type(error).__name__}: {error}") from None
    decorated = {
        value for value in vars(module).values() if isinstance(value, FunctionType) and value.__module__ == name
    }
    found = sorted((f.criterion for f in decorated if hasattr(f, "criterion")), key=lambda c: c.name)
    if not found:
        raise UserError(f"pruner: '{path}' has no function under @criterion(\"NAME\") of lthbench.pruning.criteria")
    if len(found) > 1:
        names = " and ".join(known.name for known in found)
        raise UserError(f"pruner: '{path}' has {len(found)} functions under @criterion, {names}: one file, one method")
    known: Criterion = found[0]
    if not inspect.signature(known.score).parameters:
        raise UserError(f"pruner: '{path}': {known.name} does not take the network, its first argument")
    for key, parameter in _keywords(known).items():
        if key in _TAKEN:
            raise UserError(
                f"pruner: '{path}': call the argument '{key}' of {known.name} otherwise; pruner.{key} is taken"
            )
        if _kind(parameter) is None:
            what = "a default that is a number, a text, true or false"
            raise UserError(f"pruner: '{path}': the argument '{key}' of {known.name} needs {what}")
    return known


def _keywords(known: Criterion) -> dict[str, inspect.Parameter]:
    """The arguments after the first, by name."""
    _, *rest = inspect.signature(known.score).parameters.values()
    return {p.name: p for p in rest if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _kind(parameter: inspect.Parameter) -> type | None:
    """bool, int, float or str, as the argument is annotated, or else as its default is."""
    if type(parameter.default) not in _TYPES.values():
        return None
    said = getattr(parameter.annotation, "__name__", parameter.annotation)
    return _TYPES.get(said, type(parameter.default))
