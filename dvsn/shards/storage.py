"""The folder that shards lie in: of this machine, or of a bucket or a hub through fsspec."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dvsn.errors import ConfigError, DataError, MissingError, UserError

EXTRA = "pip install 'dvsn[shards]'"
REMOTE = {"s3": "s3fs", "hf": "huggingface_hub"}
"""What an address may start with, and the package that fsspec needs for it."""
ADDRESS = re.compile(r"(?P<scheme>[a-z0-9+]+)://(?P<rest>.*)", re.DOTALL)


class Storage(Protocol):
    """Files of one folder by their names. Every write is whole or not there. Errors are `UserError`s of one sentence."""

    url: str

    def sizes(self) -> dict[str, int]:
        """The bytes of each file that lies in the folder; nothing where the folder is not there."""

    def read(self, name: str, *, limit: int) -> bytes:
        """The content of a file of `limit` bytes at most. `MissingError` where it is not there."""

    def fetch(self, name: str, to: Path) -> None:
        """Copy a file into a file of this machine."""

    def store(self, name: str, source: Path) -> None:
        """Copy a file of this machine into the folder."""

    def remove(self, name: str) -> None: ...


def open_storage(url: str, *, option: str = "data.root") -> Storage:
    """The storage at a path, `file://PATH`, `s3://BUCKET/FOLDER` or `hf://datasets/OWNER/NAME/FOLDER`. Nothing is asked yet.

    Raises `ConfigError` for another address, one that holds a password, and where a package is missing.
    """
    match = ADDRESS.fullmatch(url)
    if match is None:
        return Folder(Path(url))
    if match["scheme"] == "file":
        return Folder(Path(match["rest"]))
    if "@" in match["rest"].partition("/")[0] and match["scheme"] != "hf":
        raise ConfigError(
            f"{option}: an address holds no password or key, since configs are saved. Give them as the library of the "
            "storage reads them, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment."
        )
    if match["scheme"] not in REMOTE:
        raise ConfigError(
            f"{option}: found '{url}'. Expected a folder, or an address that starts with s3:// or hf://"
        )
    if not match["rest"].strip("/"):
        raise ConfigError(
            f"{option}: found '{url}', expected the folder of the shards in it, such as {url}BUCKET/FOLDER"
        )
    return Bucket(url.rstrip("/"), match["scheme"], option)


def is_remote(url: str) -> bool:
    match = ADDRESS.fullmatch(url)
    return match is not None and match["scheme"] != "file"


class Folder:
    """A folder of this machine, mounted disks included."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def sizes(self) -> dict[str, int]:
        if not self.path.is_dir():
            return {}
        return {each.name: each.stat().st_size for each in os.scandir(self.path) if each.is_file()}

    def read(self, name: str, *, limit: int) -> bytes:
        path = self.path / name
        if not path.is_file():
            raise MissingError(f"{path}: no such file.", path)
        if (size := path.stat().st_size) > limit:
            raise DataError(f"{path}: has {size:,} bytes, expected {limit:,} at most.")
        return path.read_bytes()

    def fetch(self, name: str, to: Path) -> None:
        if not (self.path / name).is_file():
            raise MissingError(f"{self.path / name}: no such file.", self.path / name)
        shutil.copyfile(self.path / name, to)

    def store(self, name: str, source: Path) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{name}.{os.getpid()}.tmp"
        try:
            with source.open("rb") as found, temporary.open("wb") as made:
                shutil.copyfileobj(found, made, 1 << 20)
                made.flush()
                os.fsync(made.fileno())
            temporary.replace(self.path / name)
        except OSError as error:
            raise ConfigError(
                f"{self.path / name}: cannot be written ({error.strerror}). Choose another folder."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)


class Bucket:
    """A folder of a bucket, by fsspec. Each process opens its own connection: those of a parent do not survive a fork."""

    def __init__(self, url: str, scheme: str, option: str) -> None:
        self.url, self.scheme, self.option = url, scheme, option
        self._opened: tuple[int, Any] | None = None
        with self.explained(""):
            self._system()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _system(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                import fsspec

                logging.getLogger("botocore").setLevel(logging.WARNING)  # else it says where it found a key
                logging.getLogger("aiobotocore").setLevel(logging.WARNING)
                system = fsspec.filesystem(self.scheme, skip_instance_cache=True, use_listings_cache=False)
            except ImportError as error:
                raise ConfigError(
                    f"{self.option}: '{self.url}' needs the packages fsspec and {REMOTE[self.scheme]} ({error}). Install "
                    f"them: {EXTRA}"
                ) from error
            self._opened = os.getpid(), system
        return self._opened[1]

    def _path(self, name: str = "") -> str:
        path = self.url.partition("://")[2]
        return f"{path}/{name}" if name else path

    def sizes(self) -> dict[str, int]:
        with self.explained(""):
            try:
                rows = self._system().ls(self._path(), detail=True)
            except FileNotFoundError:
                return {}
            return {row["name"].rpartition("/")[2]: int(row["size"]) for row in rows if row["type"] == "file"}
        raise AssertionError

    def read(self, name: str, *, limit: int) -> bytes:
        with self.explained(name):
            found: bytes = self._system().cat_file(self._path(name), start=0, end=limit + 1)
            if len(found) > limit:
                raise DataError(f"{self.url}/{name}: has more than {limit:,} bytes, expected no more.")
            return found
        raise AssertionError

    def fetch(self, name: str, to: Path) -> None:
        with self.explained(name):
            self._system().get_file(self._path(name), str(to))

    def store(self, name: str, source: Path) -> None:
        with self.explained(name):
            self._system().put_file(str(source), self._path(name))

    def remove(self, name: str) -> None:
        with self.explained(name):
            self._system().rm_file(self._path(name))

    @contextmanager
    def explained(self, name: str) -> Iterator[None]:
        """What the libraries raise, as one sentence."""
        where = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except UserError:
            raise
        except FileNotFoundError as error:
            raise MissingError(
                f"{where}: nothing is there. Check the bucket and the folder ({self.option}).", Path(where)
            ) from error
        except PermissionError as error:
            raise ConfigError(
                f"{where}: this account has no right to it ({first(error)}). {RIGHTS}"
            ) from error
        except Exception as error:  # whatever it is: the network, the library's own errors
            if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
                raise ConfigError(f"{where}: no account is known ({first(error)}). {RIGHTS}") from error
            raise DataError(
                f"{where}: cannot be reached or read ({type(error).__name__}: {first(error)}). Check the network, and "
                "AWS_ENDPOINT_URL where the bucket is not Amazon's."
            ) from error


RIGHTS = "Give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (of hf:// HF_TOKEN) of an account that may list and read it."


def first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
