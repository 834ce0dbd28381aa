"""The cache of shards: bounded in bytes, fetched once, whole or not there; and what is fetched ahead."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from dvsn.errors import ConfigError, DataError
from dvsn.shards.cache import Ahead, Cache
from dvsn.shards.index import File
from dvsn.shards.storage import Folder


class Counting(Folder):
    """A folder as if it were far away: it counts what is fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.fetched: list[str] = []

    def fetch(self, name: str, to: Path) -> None:
        self.fetched.append(name)
        time.sleep(0.002)
        super().fetch(name, to)


@pytest.fixture
def far(tmp_path: Path) -> tuple[Counting, list[File]]:
    folder, files = tmp_path / "far", []
    folder.mkdir()
    for number in range(6):
        data = bytes([number]) * 1000
        (folder / f"{number}.tar").write_bytes(data)
        files.append(File(f"{number}.tar", 1000, hashlib.sha256(data).hexdigest(), 10))
    return Counting(folder), files


def test_what_was_used_least_lately_makes_room(far: tuple[Counting, list[File]], tmp_path: Path) -> None:
    storage, files = far
    cache = Cache(tmp_path / "near", 3000)
    for age, number in enumerate((0, 1, 2)):
        os.utime(cache.get(storage, files[number]), (age, age))
    cache._used.clear()
    cache.get(storage, files[0])  # now the newest
    cache.get(storage, files[3])
    assert cache.held() == 3000
    assert not cache.path(files[1]).exists() and cache.path(files[0]).exists()
    assert storage.fetched == ["0.tar", "1.tar", "2.tar", "3.tar"]


def test_many_at_once_fetch_each_once_and_stay_within_the_bound(
    far: tuple[Counting, list[File]], tmp_path: Path
) -> None:
    storage, files = far
    cache, most, ended = Cache(tmp_path / "near", 6000), [0], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            most[0] = max(most[0], cache.held())

    def read() -> None:
        for file in files:
            assert cache.get(storage, file).read_bytes()[:1] == bytes([int(file.name[0])])

    threads = [threading.Thread(target=read) for _ in range(4)]
    watcher = threading.Thread(target=watch)
    watcher.start()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    ended.set()
    watcher.join()
    assert sorted(storage.fetched) == [file.name for file in files] and most[0] <= 6000


def test_the_bound_counts_what_is_being_fetched(far: tuple[Counting, list[File]], tmp_path: Path) -> None:
    storage, files = far
    cache = Cache(tmp_path / "near", 2000)
    cache.get(storage, files[0])
    part = tmp_path / "near" / "part"
    with cache._reserved(part.with_name(f"{files[1].sha256}.1000.1_1.part"), files[1]):
        assert cache.held() == 2000  # nothing of it has come yet
        cache.get(storage, files[2])
        assert cache.held() == 2000 and not cache.path(files[0]).exists()


def test_a_part_of_a_killed_process_is_removed(far: tuple[Counting, list[File]], tmp_path: Path) -> None:
    storage, files = far
    cache = Cache(tmp_path / "near", 1000)
    stale = tmp_path / "near" / f"{files[1].sha256}.1000.1_1.part"
    stale.write_bytes(b"half")
    cache.get(storage, files[0])
    assert not stale.exists()


def test_a_damaged_or_too_large_shard_is_named(far: tuple[Counting, list[File]], tmp_path: Path) -> None:
    storage, files = far
    (storage.path / "4.tar").write_bytes(b"x" * 1000)
    (storage.path / "5.tar").write_bytes(b"short")
    cache = Cache(tmp_path / "near", 3000)
    with pytest.raises(DataError, match=r"4\.tar: this shard is damaged: its sha256"):
        cache.get(storage, files[4])
    with pytest.raises(DataError, match=r"5\.tar: this shard is damaged: it has 5 bytes, .* says 1,000"):
        cache.get(storage, files[5])
    with pytest.raises(ConfigError, match=r"data\.cache_mb: .*0\.tar alone has 1,000 bytes"):
        Cache(tmp_path / "small", 999).get(storage, files[0])
    assert cache.held() == 0


def test_ahead_holds_no_more_than_its_bytes(far: tuple[Counting, list[File]], tmp_path: Path) -> None:
    storage, files = far
    ahead = Ahead(Cache(tmp_path / "near", 9000), storage, 2500)
    ahead.tell([(10 * number, file) for number, file in enumerate(files)])

    def fetched(count: int) -> list[str]:
        for _ in range(500):
            if ahead.fetched >= count:
                break
            time.sleep(0.005)
        time.sleep(0.02)  # no more come
        return storage.fetched

    assert fetched(2) == ["1.tar", "2.tar"]  # 0 is being read
    ahead.at(10)
    assert fetched(3) == ["1.tar", "2.tar", "3.tar"]
    ahead.at(45)
    assert fetched(4) == ["1.tar", "2.tar", "3.tar", "5.tar"]  # 4 is being read by then
    ahead.close()
