"""Errors that are the user's to mend: shown as one message, without a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """Something in the input is wrong. The message says where, what was found, what is expected, what to do."""


class ConfigError(UserError):
    """A wrong option, group, key or value. The message starts with its config path."""


class DataError(UserError):
    """A missing, unreadable or inconsistent file. The message names the file."""


class MissingError(DataError):
    """A folder or file of a data set that is not there. `path` is it."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class CheckpointError(UserError):
    """A checkpoint that is broken, foreign, does not fit or would run code. The message names the file."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A closing sentence: the nearest valid name if one is near, and the whole list if it is short."""
    names = sorted({str(v) for v in valid})
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    parts = [f"Did you mean '{near[0]}'?"] if near else []
    if names and len(names) <= 40:
        parts.append("Valid: " + ", ".join(names) + ".")
    return " ".join(parts)


PASSWORD = re.compile(
    r"(?P<start>://[^\s/:@'\"]*:)[^\s'\"]*(?=@)|(?P<option>[?&](?:password|passwd|pwd|sslpassword)=)[^&\s'\"]*"
)


def without_passwords(text: str) -> str:
    """A text in which the passwords of URLs are three stars, also those that hold characters that a URL must not."""
    return PASSWORD.sub(lambda found: f"{found['start'] or found['option']}***", text)
