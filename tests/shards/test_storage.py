"""Where shards lie: folders and addresses, and each fault of a bucket as one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dvsn.errors import ConfigError, DataError, MissingError
from dvsn.shards.storage import Bucket, Folder, is_remote, open_storage


def test_addresses(tmp_path: Path) -> None:
    assert isinstance(open_storage(str(tmp_path)), Folder)
    assert open_storage(f"file://{tmp_path}").url == str(tmp_path)
    assert is_remote("s3://bucket/x") and not is_remote("/mnt/x") and not is_remote("file:///x")
    for url in ("ftp://x/y", "memory://x", "file+evil://x"):
        with pytest.raises(ConfigError, match="starts with s3:// or hf://"):
            open_storage(url)
    with pytest.raises(ConfigError, match="expected the folder of the shards"):
        open_storage("s3://")


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="holds no password") as caught:
        open_storage("s3://key:secret@bucket/x")
    assert "secret@" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*_: Any, **__: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ConfigError, match=r"s3fs .*pip install 'dvsn\[shards\]'"):
        open_storage("s3://bucket/x")


class NoCredentialsError(Exception):
    pass


FAULTS = [
    (FileNotFoundError("NoSuchKey"), MissingError, "nothing is there"),
    (PermissionError("Access Denied"), ConfigError, "no right to it"),
    (NoCredentialsError("Unable to locate"), ConfigError, "no account is known"),
    (OSError("timed out\nmore"), DataError, r"cannot be reached or read \(OSError: timed out\)"),
]


@pytest.mark.parametrize(("error", "kind", "words"), FAULTS)
def test_faults_of_a_bucket(
    error: Exception, kind: type, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    class System:
        def cat_file(self, *_: Any, **__: Any) -> bytes:
            raise error

    monkeypatch.setattr(fsspec, "filesystem", lambda *_, **__: System())
    storage = open_storage("s3://bucket/set")
    assert isinstance(storage, Bucket)
    with pytest.raises(kind, match=words) as caught:
        storage.read("index.json", limit=10)
    assert str(caught.value).startswith("s3://bucket/set/index.json: ") and "\n" not in str(caught.value)


def test_a_file_of_a_folder_is_stored_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, folder = tmp_path / "a", Folder(tmp_path / "target")
    source.write_bytes(b"content")
    folder.store("x", source)
    assert folder.read("x", limit=7) == b"content" and folder.sizes() == {"x": 7}
    with pytest.raises(DataError, match="expected 6 at most"):
        folder.read("x", limit=6)

    def full(_: Path, __: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigError, match="cannot be written"):
        folder.store("y", source)
    assert set(folder.sizes()) == {"x"}
