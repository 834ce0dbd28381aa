"""The flags of commands that compose a config: Hydra's, and `--allow`. Everything else is an override."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

from dvsn.config import allow
from dvsn.errors import ConfigError, nearest

_WORDS: ContextVar[Sequence[str] | None] = ContextVar("words", default=None)


def command_words() -> list[str]:
    """The words of the command line after the command's name, or the words given to `standing_for` when
    Python calls a command."""
    given = _WORDS.get()
    return list(sys.argv[1:] if given is None else given)


@contextmanager
def standing_for(words: Sequence[str]) -> Iterator[None]:
    """While the context lasts, `command_words` returns these words."""
    token = _WORDS.set(tuple(words))
    try:
        yield
    finally:
        _WORDS.reset(token)


def take_allowed(argv: Sequence[str]) -> list[str]:
    """The arguments without `--allow NAME`, which goes to the environment, where child processes find it."""
    rest, names, tokens = [], [], list(argv)
    while tokens:
        token = tokens.pop(0)
        if token == "--allow":
            if not tokens:
                raise ConfigError("--allow: no name of a package follows")
            names.append(tokens.pop(0))
        elif token.startswith("--allow="):
            names.append(token.partition("=")[2])
        else:
            rest.append(token)
    known = os.environ.get("DVSN_ALLOW", "")
    allow.allowed(joined := ",".join(filter(None, [known, *names])))
    if names:
        os.environ["DVSN_ALLOW"] = joined
    return rest


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"command line: {message}")


def read(argv: Sequence[str]) -> argparse.Namespace:
    """The flags, and the list `overrides`. Raises `ConfigError` for a flag that is not known."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    information = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=information)
    for flag in ("--multirun", "--run", "--resolve"):
        parser.add_argument(flag, f"-{flag[2]}" if flag != "--resolve" else flag, action="store_true")
    for flags in (("--package", "-p"), ("--config-name", "-cn"), ("--config-dir", "-cd")):
        parser.add_argument(*flags)
    arguments, unknown = parser.parse_known_intermixed_args(take_allowed(argv))
    if unknown:
        valid = [option for action in parser._actions for option in action.option_strings]
        raise ConfigError(
            f"{unknown[0]}: unknown flag. Options are written key=value. "
            f"{nearest(unknown[0], [*valid, '--help', '--allow'])}"
        )
    return arguments
