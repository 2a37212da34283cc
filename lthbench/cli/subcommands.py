"""The subcommands by name. Each takes its words and returns the exit code; each has its own --help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from lthbench.base.errors import UserError, near


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(
            f"{self.prog.removeprefix('lthbench ')}: {message}; see lthbench {self.prog.split()[-1]} --help"
        )


def parser(name: str, what: str) -> Parser:
    """The parser of a subcommand."""
    return Parser(prog=f"lthbench {name}", description=what, formatter_class=argparse.RawDescriptionHelpFormatter)


def overrides_of(words: Sequence[str]) -> tuple[list[str], bool, str | None]:
    """Overrides, -m and --config-dir of a subcommand that takes a command line like a run's."""
    from lthbench.cli.main import config_dir, split

    flags, overrides = split(words)
    for flag in flags:
        name = flag.split("=", 1)[0]
        if name.startswith("-") and name not in ("-m", "--multirun", "--config-dir", "-cd"):
            raise UserError(f"'{flag}' has no meaning here")
    return overrides, "-m" in flags or "--multirun" in flags, config_dir(flags)


# word -> module of lthbench.cli, function: imported when called, so that start-up stays short
SUBCOMMANDS = {
    "bench": ("benching", "run"),
    "connect": ("connecting", "run"),
    "critical": ("critical", "run"),
    "export": ("exporting", "run"),
    "jobs": ("jobs", "run"),
    "list": ("listing", "run"),
    "plan": ("planning", "run"),
    "report": ("reporting", "report"),
    "show": ("showing", "show"),
    "store": ("storing", "run"),
    "sync": ("syncing", "run"),
    "task": ("task", "run"),
    "trace": ("tracing", "run"),
}


def call(word: str, words: Sequence[str]) -> int:
    """Run a subcommand; returns the exit code. Refuses a first word that is neither that nor a setting."""
    if word not in SUBCOMMANDS:
        raise UserError(f"unknown subcommand '{word}'{near(word, SUBCOMMANDS)}; settings are key=value")
    module, function = SUBCOMMANDS[word]
    code: int = getattr(import_module(f"lthbench.cli.{module}"), function)(words)
    return code
