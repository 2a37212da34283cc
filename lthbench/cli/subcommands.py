"""The subcommands by name. Each takes its words and returns the exit code; each has its own --help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
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


def _list(words: Sequence[str]) -> int:
    from lthbench.cli.listing import run

    return run(words)


def _plan(words: Sequence[str]) -> int:
    from lthbench.cli.planning import run

    return run(words)


def _report(words: Sequence[str]) -> int:
    from lthbench.cli.reporting import report

    return report(words)


def _show(words: Sequence[str]) -> int:
    from lthbench.cli.reporting import show

    return show(words)


def _store(words: Sequence[str]) -> int:
    from lthbench.cli.storing import run

    return run(words)


def _bench(words: Sequence[str]) -> int:
    from lthbench.cli.benching import run

    return run(words)


SUBCOMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "bench": _bench,
    "list": _list,
    "plan": _plan,
    "report": _report,
    "show": _show,
    "store": _store,
}


def unknown(word: str) -> NoReturn:
    """Refuse a first word that is neither a subcommand nor a setting."""
    raise UserError(f"unknown subcommand '{word}'{near(word, SUBCOMMANDS)}; settings are key=value")
