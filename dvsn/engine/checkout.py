"""The commit of the git checkout that dvsn runs from, for environment.json."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

PLACES = "/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin:/opt/local/bin"
"""Where git is looked for: not in PATH, which a directory's own tools may have changed."""
ENVIRONMENT = {
    "PATH": PLACES,
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
"""All that git is told: no variable of ours that names programs, configs or another repository."""
QUIET = {
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.pager": "cat",
    "core.attributesFile": "/dev/null",
    "core.untrackedCache": "false",
    "diff.external": "",
    "submodule.recurse": "false",
}
"""Options by which the repository's own config could start a program."""


def git_state(root: Path) -> dict[str, Any] | None:
    """The commit of the checkout at `root`, and whether files differ from it; None where there is none, or no git."""
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        filters = _filters(root)
        status = _git(root, "status", "--porcelain", "--ignore-submodules=all", options=filters)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": status.splitlines()}


def _filters(root: Path) -> dict[str, str]:
    """Options that switch off the programs which the repository's config puts between files and their content."""
    try:
        names = _git(root, "config", "--name-only", "--includes", "--get-regexp", r"^filter\.").splitlines()
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # 1: there are none
            raise
        return {}
    drivers = {name.rpartition(".")[0] for name in names}
    values = {"clean": "", "smudge": "", "process": "", "required": "false"}
    return {f"{driver}.{key}": value for driver in drivers for key, value in values.items()}


def _git(root: Path, *arguments: str, options: dict[str, str] | None = None) -> str:
    program = shutil.which("git", path=PLACES)
    if program is None:
        raise FileNotFoundError("git")
    given = {**QUIET, "safe.directory": str(root), **(options or {})}
    variables = {"GIT_CONFIG_COUNT": str(len(given))}  # not -c, which ends a name at its first '='
    for number, (key, value) in enumerate(given.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    done = subprocess.run(
        [program, "--no-pager", "-C", str(root), *arguments], env=ENVIRONMENT | variables,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return done.stdout.rstrip()
