"""The entry point: a first word without `=` is a subcommand; anything else describes what to run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lthbench.base.errors import UserError

HYDRA_FLAGS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc",
               "--resolve", "--package", "-p"}  # fmt: skip
VALUE_FLAGS = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd"}
INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 1 something failed, 2 bad input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except UserError as error:
        print(f"lthbench: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lthbench: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-") and "=" not in arguments[0]:
        from lthbench.cli.subcommands import SUBCOMMANDS, unknown

        command = SUBCOMMANDS.get(arguments[0])
        return command(arguments[1:]) if command else unknown(arguments[0])
    flags, overrides = split(arguments)
    names = [flag.split("=", 1)[0] for flag in flags]
    hydras = [o for o in overrides if o.startswith(("hydra/", "hydra.", "+hydra"))]
    if HYDRA_FLAGS & set(names) or "COMP_LINE" in os.environ or hydras:
        return _hydra(flags, overrides)
    from lthbench.cli.execute import execute

    return execute(overrides, multirun="-m" in names or "--multirun" in names, extra_dir=config_dir(flags))


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags (each with its value) and overrides, whatever their order. Raises UserError for an unknown flag."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name = word.split("=", 1)[0]
        if name not in HYDRA_FLAGS | VALUE_FLAGS | {"-m", "--multirun"}:
            raise UserError(f"unknown flag '{word}'; see --help")
        flags.append(word)
        if name in VALUE_FLAGS and "=" not in word:
            if not rest:
                raise UserError(f"{word} needs a value")
            flags.append(rest.pop(0))
        elif name in ("--info", "-i"):  # its value is optional; Hydra would take an override for it
            flags.append(rest.pop(0) if rest and rest[0] in INFO else "all")
        elif name in ("--shell-completion", "-sc") and rest:
            overrides.append(rest.pop(0))
    return flags, overrides


def config_dir(flags: Sequence[str]) -> str | None:
    """The folder given with --config-dir."""
    for i, flag in enumerate(flags):
        name, _, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            return value or flags[i + 1]
    return None


def _hydra(flags: list[str], overrides: list[str]) -> int:
    """Everything that is one composition and runs nothing: help, printed settings, completion."""
    import hydra
    from omegaconf import DictConfig

    from lthbench.cli.compose import conf_dir, one_line

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised here, not printed there
    sys.argv[1:] = [*flags, *overrides]

    @hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
    def app(config: DictConfig) -> None:
        from lthbench.cli.execute import execute_composed

        execute_composed(config)

    with one_line():
        app()
    return 0


def script() -> None:
    """The `lthbench` command."""
    sys.exit(main())
