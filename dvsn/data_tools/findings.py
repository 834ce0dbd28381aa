"""What a check of a data set finds, and how many of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Finding(NamedTuple):
    """Something to mend (a fault) or to know (a note): what it is, where, and which files."""

    kind: str
    split: str
    message: str
    files: tuple[str, ...] = ()


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 file", "2 files", and with `plural` "2 people"."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def gathered(kind: str, title: str, texts: Sequence[str], *noun: str) -> Finding:
    """One finding of many annotations, counted as `noun`."""
    return Finding(kind, title, counted(len(texts), *noun), tuple(texts))
