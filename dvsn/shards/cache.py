"""Shards on the disk of this machine: no more than a number of bytes, shared by all processes, fetched once each."""

from __future__ import annotations

import bisect
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path

from dvsn.errors import ConfigError, DataError
from dvsn.shards.index import File
from dvsn.shards.storage import Storage

PART = re.compile(r"[0-9a-f]{64}\.(\d+)\.\d+_\d+\.part")
"""A shard that is being fetched: its content, the bytes that it will have, and who fetches it."""
PATIENCE = 600.0
"""Seconds that a process waits for others to make room."""
TOUCH = 1.0
"""Seconds after which a use of a shard is noted again."""


class DamagedError(DataError):
    """A shard is not what the index says. `fault`: what is wrong with it, in words."""

    def __init__(self, message: str, fault: str = "") -> None:  # a worker of torch sends the message alone
        super().__init__(message)
        self.fault = fault


class Cache:
    """A folder of whole shards, named by their content. What was used least lately makes room for others.

    `limit`: bytes of all shards in the folder, those that are being fetched included; it is never exceeded. Processes agree
    by locks of the file system, so the folder must lie on a disk of this machine.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._used: dict[str, float] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"data.cache: {folder} cannot be made ({error.strerror}). Name another folder."
            ) from error

    def path(self, file: File) -> Path:
        return self.folder / file.key

    def get(self, storage: Storage, file: File) -> Path:
        """The file of a shard, which is fetched first where it is not there. Another process may remove it at any time: who
        finds it gone asks again. Raises `DataError` for a shard that is lost or not what the index says."""
        path, now = self.path(file), time.monotonic()
        if now - self._used.get(file.key, -TOUCH) < TOUCH:
            return path
        with suppress(FileNotFoundError):
            os.utime(path)
            self._used[file.key] = now
            return path
        if file.bytes > self.limit:
            raise ConfigError(
                f"data.cache_mb: found {self.limit >> 20}, but {storage.url}/{file.name} alone has {file.bytes:,} bytes. "
                f"Set data.cache_mb={2 * (file.bytes >> 20) + 1} or more."
            )
        with self._locked(f".lock_{file.key[:2]}"):
            if not path.exists():
                self._fetch(storage, file, path)
        self._used[file.key] = time.monotonic()
        return path

    def gone(self, file: File) -> None:
        """A shard was not there when it was opened."""
        self._used.pop(file.key, None)

    def held(self) -> int:
        """Bytes of all shards in the folder."""
        return sum(self._sizes().values())

    def _fetch(self, storage: Storage, file: File, path: Path) -> None:
        for attempt in (0, 1):
            part = self.folder / f"{file.sha256}.{file.bytes}.{os.getpid()}_{threading.get_ident()}.part"
            with self._reserved(part, file):
                storage.fetch(file.name, part)
                fault = check_content(part, file)
                if not fault:
                    part.replace(path)
                    return
            if attempt:
                raise DamagedError(damaged(storage, file, fault), fault)

    @contextmanager
    def _reserved(self, part: Path, file: File) -> Iterator[None]:
        """Room for a shard, under a lock by which others see that this process lives."""
        import fcntl

        deadline = time.monotonic() + PATIENCE
        while True:
            with self._locked(".lock"):
                if self._make_room(file.bytes):
                    handle = os.open(part, os.O_CREAT | os.O_RDWR, 0o600)
                    fcntl.flock(handle, fcntl.LOCK_EX)
                    break
            if time.monotonic() > deadline:
                raise DataError(
                    f"{self.folder}: no room for {file.name} ({file.bytes:,} bytes) within {PATIENCE:g} s. Set a higher "
                    "data.cache_mb."
                )
            time.sleep(0.02)
        try:
            yield
        finally:
            part.unlink(missing_ok=True)
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)

    def _make_room(self, wanted: int) -> bool:
        """Remove what was used least lately until there is room; whether there is."""
        self._remove_stale()
        sizes = self._sizes()
        total = sum(sizes.values())
        for path in sorted((each for each in sizes if each.suffix == ".shard"), key=used_at):
            if total + wanted <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= sizes[path]
        return total + wanted <= self.limit

    def _remove_stale(self) -> None:
        """Parts whose process was killed: nobody holds their lock."""
        import fcntl

        for path in self.folder.glob("*.part"):
            with suppress(FileNotFoundError, BlockingIOError):
                handle = os.open(path, os.O_RDWR)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)
                    fcntl.flock(handle, fcntl.LOCK_UN)
                finally:
                    os.close(handle)

    def _sizes(self) -> dict[Path, int]:
        """Bytes by file; of one that is being fetched those that it will have."""
        found = {}
        for item in os.scandir(self.folder):
            if match := PART.fullmatch(item.name):
                found[Path(item.path)] = int(match[1])
            elif item.name.endswith(".shard"):
                with suppress(FileNotFoundError):
                    found[Path(item.path)] = item.stat().st_size
        return found

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One process, and one thread of it, at a time."""
        import fcntl

        handle = os.open(self.folder / name, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process that was forked meanwhile has the same lock
            os.close(handle)


def used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def check_content(path: Path, file: File) -> str:
    """What is wrong with a shard on this machine, in words; empty where nothing is."""
    found = path.stat().st_size
    if found != file.bytes:
        return f"it has {found:,} bytes, and the index says {file.bytes:,}"
    with path.open("rb") as content:
        other = hashlib.file_digest(content, "sha256").hexdigest() != file.sha256
    return "its sha256 is not that of the index" if other else ""


def damaged(storage: Storage, file: File, fault: str) -> str:
    return (
        f"{storage.url}/{file.name}: this shard is damaged: {fault}. Copy it again, or set data.verify=true data.lost=skip "
        f"to go on without its {file.items} samples."
    )


class Ahead:
    """Fetches the shards that a process will read next, in a thread, while it works.

    `limit`: bytes of shards that are fetched before they are wanted. `tell` says which shards are read when, and `at` where
    the reading is. What goes wrong is left to whoever reads the shard.
    """

    def __init__(self, cache: Cache, storage: Storage, limit: int) -> None:
        self.cache, self.storage, self.limit = cache, storage, limit
        self._changed = threading.Condition()
        self._plan: list[tuple[int, File]] = []
        self._place, self._next, self._ended = 0, 0, False
        self._thread: threading.Thread | None = None
        self.fetched = 0
        """Shards that it has asked for."""

    def tell(self, plan: Sequence[tuple[int, File]]) -> None:
        """The shards of an epoch, each with the place at which it is read first, in the order of the places."""
        with self._changed:
            self._plan, self._place, self._next = list(plan), 0, 0
            self._changed.notify()
        if self._thread is None and self.limit > 0:
            self._thread = threading.Thread(target=self._work, name="shards ahead", daemon=True)
            self._thread.start()

    def at(self, place: int) -> None:
        with self._changed:
            self._place = place
            self._changed.notify()

    def close(self) -> None:
        """End the thread, after the shard that it is fetching."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=30)

    def wanted(self) -> File | None:
        """The next shard to fetch: those that are not read yet have `limit` bytes together at most."""
        read = bisect.bisect_right(
            self._plan, self._place, key=itemgetter(0)
        )  # these are being read: too late
        self._next = max(self._next, read)
        if self._next == len(self._plan):
            return None
        ahead = sum(file.bytes for _, file in self._plan[read : self._next + 1])
        return self._plan[self._next][1] if ahead <= self.limit else None

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._ended and self.wanted() is None:
                    self._changed.wait()
                if self._ended:
                    return
                file = self._plan[self._next][1]
                self._next += 1
            with suppress(Exception):
                self.cache.get(self.storage, file)
                self.fetched += 1
