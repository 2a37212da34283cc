"""The entry point: a first word without `=` is a subcommand; anything else describes what to run."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from lthbench import __version__
from lthbench.base.errors import UserError, near

HYDRA_FLAGS = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc",
               "--resolve", "--package", "-p"}  # fmt: skip
VALUE_FLAGS = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd"}
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
CFG = ("job", "hydra", "all")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 1 something failed, 2 bad input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()  # a broken pipe shows here, not when Python ends
        return code
    except UserError as error:
        print(f"lthbench: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lthbench: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        print(f"lthbench: '{error.filename}': {error.strerror}", file=sys.stderr)
        return 1


def _dispatch(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith(("-", "+", "~")) and "=" not in arguments[0]:
        from lthbench.cli.subcommands import call

        return call(arguments[0], arguments[1:])
    flags, overrides = split(arguments)
    names = [flag.split("=", 1)[0] for flag in flags]
    if "--version" in names:
        print(f"lthbench {__version__}")
        return 0
    if HYDRA_FLAGS & set(names) or any(_hydras(o) for o in overrides):
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
        if name in ("--cfg", "-c") and (what := flags[-1].removeprefix(f"{name}=")) not in CFG:
            raise UserError(f"{name}: unknown '{what}'{near(what, CFG)}")
        if name in ("--info", "-i") and "=" not in word:  # its value is optional; Hydra would take an override for it
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
    """What Hydra does better itself: help, printed settings, completion, and multiruns with launchers of its own."""
    import hydra
    from omegaconf import DictConfig

    from lthbench.cli.compose import conf_dir, one_line

    if not {"--shell-completion", "-sc", "--help", "-h", "--hydra-help"} & set(flags):
        _check(overrides, config_dir(flags), runs=not HYDRA_FLAGS & {flag.split("=", 1)[0] for flag in flags})
    overrides = _own_files(overrides)
    running = False

    @hydra.main(version_base="1.3", config_path=conf_dir(), config_name="config")
    def app(config: DictConfig) -> None:
        nonlocal running
        from lthbench.cli.execute import execute_composed

        running = True
        execute_composed(config)

    log = logging.getLogger()
    handlers, level = log.handlers[:], log.level  # Hydra sets its own
    argv, sys.argv = sys.argv, ["lthbench", *flags, *(o.replace("+table=", "table=", 1) for o in overrides)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised here, not printed there
    try:
        with one_line():
            app()
    except SystemExit as done:  # help and the like end so
        return int(done.code or 0)
    except (ValueError, KeyError) as error:
        if running or isinstance(error, UserError):
            raise
        raise UserError(str(error)) from None
    finally:
        sys.argv = argv
        log.handlers[:] = handlers
        log.setLevel(level)
    return 0


def _own_files(overrides: list[str]) -> list[str]:
    """The overrides with files of the user's (`model=FILE.py`, `pruner=FILE.py`) as Hydra can read them."""
    words: list[str] = []
    for word in overrides:
        key, _, value = word.partition("=")
        if key in ("model", "pruner") and value.endswith(".py"):
            words += [f"{key}=file", f"{key}.{'name' if key == 'model' else 'criterion'}={value}"]
        else:
            words.append(word)
    if "pruner=file" in words:  # the function's arguments are keys that no YAML has
        words = [f"++{word}" if word.startswith("pruner.") else word for word in words]
    return words


def _hydras(override: str) -> bool:
    """Whether this names one of Hydra's own plugins: `hydra/launcher=...`."""
    return override.lstrip("+").startswith("hydra/")


def _check(overrides: list[str], extra_dir: str | None, runs: bool) -> None:
    """Refuse what Hydra would let pass: keys that `+` adds and, for what it `runs`, settings that mean nothing."""
    from lthbench.cli.compose import composer
    from lthbench.cli.grid import expand

    with composer(extra_dir) as compose:
        ours = [o for o in overrides if not o.startswith(("hydra.", "hydra/"))]
        if not runs:
            compose.compose(choice for line in ours for choice in compose.values(line)[:1])
        elif any(line.startswith("tune=") for line in ours):
            raise UserError("tune is chosen here, not by Hydra's launchers: leave out tune or hydra/...")
        elif expand(compose, ours, multirun=True).config.get("table"):
            raise UserError("a table is expanded here, not by Hydra's launchers: leave out table or hydra/...")


def script() -> None:
    """The `lthbench` command."""
    sys.exit(main())
