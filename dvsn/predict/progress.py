"""How far a prediction is: one line on a terminal, now and then one in a log; rate and time left."""

from __future__ import annotations

import logging
import sys
import time
from typing import IO

from dvsn.engine.progress_line import clock

log = logging.getLogger("dvsn")

OFTEN = 0.2  # seconds between two lines on a terminal
SELDOM = 30.0  # and in a log
RECENT = 5.0  # seconds that the time left is reckoned from


class Progress:
    """Counts frames and says so. A context: within it, messages of the log get lines of their own."""

    def __init__(
        self, name: str, total: int | None, *, unit: str = "frames", stream: IO[str] | None = None
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.done = 0
        self.start = self.said = time.monotonic()
        self.recent = (self.start, 0)
        self.drawn = False

    def __enter__(self) -> Progress:
        self.start = self.said = time.monotonic()
        self.recent = (self.start, 0)
        for handler in logging.getLogger().handlers:
            handler.addFilter(self._make_room)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        for handler in logging.getLogger().handlers:
            handler.removeFilter(self._make_room)

    def _make_room(self, record: logging.LogRecord) -> bool:
        self.clear()
        return True

    def clear(self) -> None:
        if self.drawn:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self.drawn = False

    def add(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.said < (OFTEN if self.terminal else SELDOM):
            return
        self.said = now
        if self.terminal:
            self.stream.write(f"\r\x1b[K{self.line(now)[:100]}")
            self.stream.flush()
            self.drawn = True
        else:
            log.info("%s", self.line(now))

    def line(self, now: float) -> str:
        """Such as `clip.mp4: 120 of 300 frames, 41.2 frames/s, 0:04 left`."""
        since, count = self.recent
        rate = (self.done - count) / max(now - since, 1e-9)
        if now - since > RECENT:
            self.recent = (now, self.done)
        of = f" of {self.total}" if self.total is not None else ""
        text = f"{self.name}: {self.done}{of} {self.unit}, {rate:.1f} {self.unit}/s"
        if self.total is None or rate <= 0:
            return text
        return f"{text}, {clock(max(self.total - self.done, 0) / rate)} left"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def summary(self) -> str:
        """Such as `300 frames in 12.3 s, 24.4 frames/s`."""
        seconds = self.seconds
        return (
            f"{self.done} {self.unit} in {seconds:.1f} s, {self.done / max(seconds, 1e-9):.1f} {self.unit}/s"
        )
