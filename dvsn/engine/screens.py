"""Where the progress line is drawn: the last line of a terminal, or an output of a notebook."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO


class Screen(Protocol):
    """Shows one line, each in place of the one before."""

    plain: bool

    def width(self) -> int:
        """In characters."""

    def show(self, text: str) -> None: ...

    def clear(self) -> None: ...


class Terminal:
    """The last line of a terminal. The cursor waits at its start, so that a foreign message is not written
    behind it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.plain = "utf" not in (stream.encoding or "").lower()

    def width(self) -> int:
        return max(20, shutil.get_terminal_size((80, 24)).columns - 1)

    def show(self, text: str) -> None:
        self.stream.write(f"\r{text}\x1b[K\r")
        self.stream.flush()

    def clear(self) -> None:
        self.show("")


class Notebook:
    """An output of a notebook's cell, which needs no widgets."""

    plain = False

    def __init__(self) -> None:
        self.handle: Any = None

    def width(self) -> int:
        return 100

    def show(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self.handle is None:
            self.handle = display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)

    def clear(self) -> None:
        if self.handle is not None:
            self.show("")


def find_screen() -> Screen | None:
    """The terminal or the notebook of this process; None if its output goes to a file."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if hasattr(shell, "kernel"):
        return Notebook()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Terminal(sys.stderr)
    return None


class _Before(logging.Filter):
    """Clears the line before a message is written, which then stands above it."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.screen = screen

    def filter(self, record: logging.LogRecord) -> bool:
        self.screen.clear()
        return True


@contextmanager
def above(screen: Screen) -> Iterator[None]:
    """While the line is shown, messages appear above it."""
    before = _Before(screen)
    handlers = [each for each in logging.getLogger().handlers if type(each) is logging.StreamHandler]
    for handler in handlers:
        handler.addFilter(before)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(before)
