"""Files that are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to it at the end, removed if anything is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def usual_mode(path: Path) -> None:
    """Give a file the permissions of any new one beside it: those of safetensors are for their owner alone."""
    other = path.with_name(f"{path.name}.mode")
    try:
        other.touch()
        path.chmod(other.stat().st_mode & 0o777)
    finally:
        other.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with the columns of its first row."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def locked_out(file: int) -> bool:
    """Lock an open file, by its descriptor, until it is closed; whether another process has the lock, which leaves it there.

    Some systems and shared disks know no locks: there nobody is kept out.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return False
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    return False
