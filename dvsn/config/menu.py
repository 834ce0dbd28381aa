"""The menu: the folder of configs, its groups and their choices, from file names alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvsn.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir() -> str:
    """The absolute folder of the YAML files: inside the package in a wheel, beside it in a checkout."""
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if folder.is_dir():
            return str(folder)
    raise ConfigError(
        f"no folder of configs at {PACKAGE / 'conf'} or {PACKAGE.parent / 'conf'}: reinstall dvsn"
    )


def choices() -> dict[str, list[str]]:
    """Each config group with its options, from the names of the YAML files."""
    root = Path(conf_dir())
    found: dict[str, list[str]] = {}
    for file in sorted(root.glob("*/**/*.yaml")):
        if not file.stem.startswith("_"):
            found.setdefault(file.parent.relative_to(root).as_posix(), []).append(file.stem)
    return found


LISTED = 20
"""Choices of a group that a message names."""


def listed(group: str, names: Sequence[str], *, rest: str = "", which: str = "") -> str:
    """A sentence with choices of a group, and the `rest` that helps as well; `which` says what they are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"Choices of {group}=...{which}: {', '.join(names[:LISTED]) or 'none'}{more}{rest}."
