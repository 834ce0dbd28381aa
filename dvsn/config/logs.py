"""Messages of a command: to the console, and of a training also to a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dvsn.config.launched import rank_here

OURS = ("dvsn", "pytorch_lightning")
"""The loggers whose messages a run tells and keeps where the root logger is somebody else's."""

_handlers: list[logging.Handler] = []  # those of this module, so that a second start replaces them
_hosted = False


def start(file: Path | None = None, *, verbose: bool | str | Sequence[str] = False) -> None:
    """Send messages from INFO on to stderr, of the first process of a run alone, and with time and level also to `file`.

    `verbose` is true for messages of every level, or names the loggers that tell theirs.
    """
    loggers = [logging.getLogger(name) for name in OURS] if _hosted else [logging.getLogger()]
    heard = _hosted and logging.getLogger().hasHandlers()  # the caller's own handlers say it
    _stop()
    if not heard:
        console = logging.StreamHandler(sys.stderr)
        console.setFormatter(logging.Formatter("%(message)s"))
        console.setLevel(
            logging.ERROR if file and rank_here() else logging.NOTSET
        )  # the first process says it for all
        _handlers.append(console)
    if file is not None:
        written = logging.FileHandler(file, encoding="utf-8")
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        _handlers.append(written)
    for logger in loggers:
        for handler in _handlers:
            logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if verbose is True else logging.INFO)
    for name in () if isinstance(verbose, bool) else (verbose,) if isinstance(verbose, str) else verbose:
        logging.getLogger(name).setLevel(logging.DEBUG)


def _stop() -> None:
    while _handlers:
        old = _handlers.pop()
        for logger in (logging.getLogger(), *(logging.getLogger(name) for name in OURS)):
            logger.removeHandler(old)
        old.close()


@contextmanager
def hosted() -> Iterator[None]:
    """While the context lasts, `start` does not touch the root logger, which belongs to the calling program.
    Afterwards all loggers are as before."""
    global _hosted
    names = (*OURS, "pytorch_lightning.utilities.rank_zero", "torch.distributed")
    levels = {name: logging.getLogger(name).level for name in names}
    before, _hosted = _hosted, True
    try:
        yield
    finally:
        _stop()
        _hosted = before
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
