"""A set of shards that is read: its index, what of it is there, and the bytes of each file of a sample."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from dvsn.errors import ConfigError, DataError, nearest
from dvsn.shards.cache import Cache, DamagedError, check_content, damaged
from dvsn.shards.index import (
    TABLE_LIMIT,
    WINDOWS,
    File,
    Index,
    Split,
    Table,
    load_table,
    read_checked,
    read_index,
)
from dvsn.shards.storage import Folder, Storage, open_storage

log = logging.getLogger("dvsn")
Lost = Literal["refuse", "skip"]
CACHE_MB = 10240


def usual_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dvsn" / "shards"


class Source:
    """The shards at `root`. Nothing is opened before it is asked for.

    - `cache`, `cache_mb`: where shards of a bucket are kept on this machine, and how many MiB of them. Shards of a folder
      are read where they lie.
    - `lost`: what becomes of samples whose shard is not there: `refuse`, or `skip` them, and say how many.
    - `verify`: every shard is read once at the start; one that is not what the index says counts as lost.
    """

    def __init__(
        self,
        root: str,
        *,
        cache: str | Path | None = None,
        cache_mb: int = CACHE_MB,
        lost: Lost = "refuse",
        verify: bool = False,
    ) -> None:
        if lost not in ("refuse", "skip"):
            raise ConfigError(f"data.lost: found '{lost}'. {nearest(str(lost), ('refuse', 'skip'))}")
        if type(cache_mb) is not int or cache_mb < 1:
            raise ConfigError(f"data.cache_mb: found {cache_mb!r}, expected a whole number of MiB above 0.")
        self.root, self.lost, self.verify = root, lost, verify
        self.cache_folder, self.cache_bytes = Path(cache) if cache else usual_cache(), cache_mb << 20
        self._opened: dict[str, Opened] = {}
        self._others: dict[str, Source] = {}

    def at(self, root: str) -> Source:
        """The shards of another folder, by the same options and in the same cache; this one where it is its own folder."""
        if root == self.root:
            return self
        if root not in self._others:
            self._others[root] = Source(
                root,
                cache=self.cache_folder,
                cache_mb=self.cache_bytes >> 20,
                lost=self.lost,
                verify=self.verify,
            )
        return self._others[root]

    @cached_property
    def storage(self) -> Storage:
        return open_storage(self.root)

    @cached_property
    def cache(self) -> Cache | None:
        """None where the shards lie on this machine."""
        if isinstance(self.storage, Folder):
            return None
        return Cache(self.cache_folder, self.cache_bytes)

    @cached_property
    def index(self) -> Index:
        return read_index(self.storage)

    def open(self, split: str) -> Opened:
        """A split by its own name. Raises `ConfigError` for one that is not there, `DataError` for lost shards."""
        if split not in self.index.splits:
            raise ConfigError(
                f"data.splits: {self.root} has no split '{split}'. {nearest(split, self.index.splits)}"
            )
        if split not in self._opened:
            self._opened[split] = self._open(self.index.splits[split], split)
        return self._opened[split]

    def _open(self, split: Split, name: str) -> Opened:
        table = load_table(
            read_checked(self.storage, split.table, limit=TABLE_LIMIT),
            f"{self.storage.url}/{split.table.name}",
        )
        check_table(table, split, self.index, f"{self.storage.url}/{split.table.name}")
        gone = self._lost(split)
        if gone and self.lost == "refuse":
            number, fault = next(iter(gone.items()))
            more = f", and {len(gone) - 1} more" if len(gone) > 1 else ""
            raise DataError(
                f"{self.storage.url}/{split.shards[number].name}: the index names this shard{more} of the split '{name}', "
                f"and {fault}. Copy it again, or set data.lost=skip to go on without the "
                f"{sum(split.shards[each].items for each in gone):,} samples."
            )
        opened = Opened(self.storage, self.cache, split, table, gone=sorted(gone))
        if gone:
            log.warning(
                "data.lost=skip: %d of the %d shards of %s of the split %s are lost or damaged (%s, ...): %d of %d samples "
                "are left out", len(gone), len(split.shards), self.storage.url, name, split.shards[min(gone)].name,
                split.items - len(opened.items), split.items,
            )  # fmt: skip
            if not len(opened.items):
                raise DataError(f"{self.storage.url}: no shard of the split '{name}' is left.")
        return opened

    def _lost(self, split: Split) -> dict[int, str]:
        """Shards by their numbers, and what is wrong with them."""
        there, found = self.storage.sizes(), {}
        for number, shard in enumerate(split.shards):
            size = there.get(shard.name)
            if size is None:
                found[number] = "it is not there"
            elif size != shard.bytes:
                found[number] = f"it has {size:,} bytes, expected {shard.bytes:,}"
            elif self.verify and (fault := self._content(shard)):
                found[number] = fault
        return found

    def _content(self, shard: File) -> str:
        """What is wrong with the content of a shard; empty where nothing is."""
        if self.cache is None:
            return check_content(Path(self.storage.url) / shard.name, shard)
        try:
            self.cache.get(self.storage, shard)
        except DamagedError as error:
            return error.fault
        return ""


class Opened:
    """A split of which samples are read. `items`: the rows of `table` of the samples that are there."""

    def __init__(
        self, storage: Storage, cache: Cache | None, split: Split, table: Table, *, gone: Sequence[int] = ()
    ) -> None:
        self.storage, self.cache, self.split, self.table = storage, cache, split, table
        counts = [shard.items for shard in split.shards]
        shard_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.items = np.flatnonzero(~np.isin(shard_of, gone))
        self.shard_of = shard_of[self.items]
        """Of each sample that is there."""
        self.bytes_of = np.array([shard.bytes for shard in split.shards], np.int64)

    def column(self, name: str) -> np.ndarray:
        """A column of the table, of the samples that are there."""
        return self.table[name][self.items]

    def shard(self, row: int) -> File:
        return self.split.shards[int(self.table["shard"][row])]

    def where(self, row: int) -> str:
        return f"{self.storage.url}/{self.shard(row).name}"

    def read(self, row: int) -> bytes:
        """The content of one file of a sample, by its row. Raises `DataError` where it is damaged."""
        file = self.shard(row)
        start, size = int(self.table["start"][row]), int(self.table["size"][row])
        data = self._read(file, start, size)
        if len(data) != size or zlib.crc32(data) != int(self.table["crc"][row]):
            raise DataError(damaged(self.storage, file, f"the bytes from {start:,} on have another crc32"))
        return data

    def _read(self, file: File, start: int, size: int) -> bytes:
        for attempt in range(8):
            path = (
                Path(self.storage.url) / file.name
                if self.cache is None
                else self.cache.get(self.storage, file)
            )
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError as error:
                if self.cache is not None and attempt < 7:
                    self.cache.gone(file)  # another process has made room
                    continue
                raise DataError(
                    f"{self.storage.url}/{file.name}: this shard is not there any more."
                ) from error
            try:
                return os.pread(handle, size, start)
            finally:
                os.close(handle)
        raise AssertionError


LAST = np.iinfo(np.int64).max


def outside(numbers: np.ndarray, limit: int) -> bool:
    """Whether one of them is below 0, or not below the limit."""
    return bool(((numbers < 0) | (numbers >= limit)).any())


def check_table(table: Table, split: Split, index: Index, where: str) -> None:
    """Raise `DataError` where columns are missing, or a sample would be read from where nothing is."""
    files, items = table["start"].size if "start" in table else 0, split.items
    columns = {"name": items}
    for part, kind in index.parts.items():
        columns |= {part: items} if kind == "number" else {f"{part}.file": items, f"{part}.window": items}
    columns |= dict.fromkeys(("shard", "start", "size", "crc"), files)
    for name, length in columns.items():
        kinds = "S" if name == "name" else "iu"
        if name not in table or table[name].shape != (length,) or table[name].dtype.kind not in kinds:
            what = "texts" if name == "name" else "whole numbers"
            raise DataError(
                f"{where}: the column '{name}' is missing or not of {length} {what}. Write the shards again."
            )
    shards = np.array([shard.bytes for shard in split.shards], np.int64)
    bad = (
        outside(table["shard"], len(shards)) or outside(table["start"], LAST) or outside(table["size"], LAST)
    )
    bad = bad or bool((table["size"] > shards[table["shard"]] - table["start"]).any())
    for part, kind in index.parts.items():
        if kind != "number":
            bad = (
                bad or outside(table[f"{part}.file"], files) or outside(table[f"{part}.window"], len(WINDOWS))
            )
    if bad:
        raise DataError(f"{where}: it names bytes outside of the shards. Write the shards again.")
