"""The names of weights on the hub: `hf://OWNER/NAME[/FILE][@REVISION]`. Only the standard library is imported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from dvsn.errors import ConfigError

SCHEME = "hf://"
PART = r"[A-Za-z0-9][\w.-]{0,95}"
PATTERN = re.compile(
    rf"hf://(?P<owner>{PART})/(?P<name>{PART})(?P<file>(?:/[\w.+ -]+)*)(?:@(?P<revision>[\w./-]+))?"
)
FORM = "hf://OWNER/NAME, hf://OWNER/NAME/FILE or hf://OWNER/NAME@REVISION"


class Name(NamedTuple):
    """One name, taken apart."""

    repository: str
    """OWNER/NAME."""
    file: str | None
    """A file in it, by its path there; None for the folder that dvsn writes."""
    revision: str | None
    """A branch, a tag or a commit; None for the newest."""

    def __str__(self) -> str:
        file, revision = self.file and f"/{self.file}", self.revision and f"@{self.revision}"
        return f"{SCHEME}{self.repository}{file or ''}{revision or ''}"


def is_name(path: Any) -> bool:
    """Whether `path` is the name of something on the hub, not a path of this machine."""
    return isinstance(path, str | Path) and str(path).startswith((SCHEME, "hf:/"))  # a Path joins slashes


def parse(text: str | Path) -> Name:
    """A name taken apart. Raises `ConfigError` for one that is none."""
    whole = re.sub(r"^hf:/+", SCHEME, str(text))
    found = PATTERN.fullmatch(whole)
    if found is None or any(set(part) == {"."} for part in whole.removeprefix(SCHEME).split("/")):
        raise ConfigError(f"{text}: is no name of weights on the hub. Expected {FORM}.")
    file = found["file"].strip("/")
    return Name(f"{found['owner']}/{found['name']}", file or None, found["revision"])
