"""Work that runs ahead in a thread of its own, so that decoding, the network and encoding overlap."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
WAIT = 0.1  # seconds between two looks at whether anybody still wants more
PATIENCE = 2.0  # seconds that a thread has to end; one that waits for a camera is left behind, and ends with the program


class Ended:
    """The last thing in a queue: nothing more comes, or the error that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[Item], count: int) -> Generator[Item, None, None]:
    """The items, in their order, made in another thread that is at most `count` of them ahead.

    An error of `items` is raised where its item would have come. Whoever stops early closes the generator: `items` is then
    closed too. The thread sees the caller's context variables, such as the rule by which pictures are read.
    """
    waiting: queue.Queue[Any] = queue.Queue(max(1, count))
    stopped = threading.Event()
    inside = contextvars.copy_context()
    thread = threading.Thread(target=inside.run, args=(_fill, items, waiting, stopped), daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), Ended):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join(PATIENCE)


def _fill(items: Iterable[Item], waiting: queue.Queue[Any], stopped: threading.Event) -> None:
    ended = Ended()
    try:
        for item in items:
            if not _put(waiting, item, stopped):
                break
    except BaseException as error:  # noqa: BLE001 - raised again where the item would have come
        ended = Ended(error)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
    _put(waiting, ended, stopped)


def _put(waiting: queue.Queue[Any], item: Any, stopped: threading.Event) -> bool:
    """Whether somebody still wanted it."""
    while not stopped.is_set():
        try:
            waiting.put(item, timeout=WAIT)
        except queue.Full:
            continue
        return True
    return False
