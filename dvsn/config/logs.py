"""Messages of a command: to the console, and of a training also to a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

_handlers: list[logging.Handler] = []  # those of this module, so that a second start replaces them


def start(file: Path | None = None, *, verbose: bool | str | Sequence[str] = False) -> None:
    """Send messages from INFO on to stderr, and with time and level also to `file`.

    `verbose` is true for messages of every level, or names the loggers that tell theirs.
    """
    root = logging.getLogger()
    while _handlers:
        old = _handlers.pop()
        root.removeHandler(old)
        old.close()
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    _handlers.append(console)
    if file is not None:
        written = logging.FileHandler(file, encoding="utf-8")
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        _handlers.append(written)
    for handler in _handlers:
        root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose is True else logging.INFO)
    for name in () if isinstance(verbose, bool) else (verbose,) if isinstance(verbose, str) else verbose:
        logging.getLogger(name).setLevel(logging.DEBUG)
