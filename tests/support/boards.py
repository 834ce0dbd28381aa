"""Boards of several processes, as threads of one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from dvsn.config import board
from dvsn.config.board import Board
from dvsn.config.launched import Place


class Shared:
    """A store of several boards in one process; one that is `gone` answers no more."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.gone = False

    def set(self, key: str, value: str) -> None:
        self._answer()
        self.values[key] = value

    def get(self, key: str) -> bytes:
        self._answer()
        return self.values[key].encode()

    def check(self, keys: list[str]) -> bool:
        self._answer()
        return all(key in self.values for key in keys)

    def _answer(self) -> None:
        if self.gone:
            raise RuntimeError("Connection reset by peer")


def boards(count: int, *, timeout: float = 1.0, store: Shared | None = None, attempt: int = 0) -> list[Board]:
    store = store or Shared()
    return [
        Board(store, Place(rank, count, rank, count, "torchrun", attempt), timeout=timeout)
        for rank in range(count)
    ]


def run_on_boards(
    patch: pytest.MonkeyPatch, all_of: list[Board], function: Callable[[int], Any]
) -> list[Any]:
    """Runs a function in a thread for each board, which is the current one there; gives answers or errors by rank."""
    local = threading.local()
    patch.setattr(board, "current", lambda: getattr(local, "board", None))
    found: list[Any] = [None] * len(all_of)

    def one(rank: int) -> None:
        local.board = all_of[rank]
        try:
            found[rank] = function(rank)
        except Exception as error:  # noqa: BLE001 - told below
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(all_of))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found
