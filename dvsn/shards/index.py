"""The index of a set of shards: which files there are, what they must be, and what the data set is."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dvsn.errors import DataError, MissingError
from dvsn.shards.storage import Storage

NAME, FORMAT, VERSION = "index.json", "dvsn shards", 1
KINDS = ("dataset", "people")
LIMIT, TABLE_LIMIT, TRUTH_LIMIT = 64 << 20, 16 << 30, 4 << 30
"""Bytes of the index, of the table of a split, and of its annotations."""
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,120}")
MAX_DEPTH, MAX_TEXT = 6, 4096
WINDOWS = ("whole", "left half", "right half")
"""Which part of its picture an array is, by the number in the table."""


@dataclass(frozen=True)
class File:
    """A file beside the index."""

    name: str
    bytes: int
    sha256: str
    items: int = 0
    """Of a shard: how many samples begin in it."""

    @property
    def key(self) -> str:
        """Its name in a cache: the same content has the same one."""
        return f"{self.sha256}.shard"


@dataclass(frozen=True)
class Split:
    """A split of the data set: its shards in the order of its samples, and the table of these."""

    items: int
    shards: tuple[File, ...]
    table: File
    truth: File | None = None
    """Of people: the annotations in COCO's format, where a score needs all of them."""


@dataclass(frozen=True)
class Index:
    """What `index.json` says.

    - `kind`: what a task reads of it, `dataset` (pictures) or `people`.
    - `parts`: the kinds of the arrays of a sample, as readers have them; `types`: the type of each label.
    - `config`: options of `data` that were those of the source, by path below `data`.
    """

    kind: str
    parts: dict[str, str]
    types: dict[str, str]
    config: dict[str, Any]
    splits: dict[str, Split] = field(default_factory=dict)

    def dump(self) -> bytes:
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return (json.dumps(content, indent=1) + "\n").encode()


def read_index(storage: Storage) -> Index:
    """The index of a folder of shards. Raises `DataError` where there is none, or one that is broken."""
    where = f"{storage.url}/{NAME}"
    try:
        data = storage.read(NAME, limit=LIMIT)
    except MissingError as error:
        raise MissingError(
            f"{where}: no such file, so that no finished set of shards is there. Set data.root to their folder, or write "
            "them: python -m dvsn.data shard data=NAME target=FOLDER",
            error.path,
        ) from error
    try:
        content = json.loads(data)
    except ValueError as error:
        raise DataError(f"{where}: no readable JSON ({error}). Write the shards again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f'{where}: not an index of dvsn\'s shards, which has "format": "{FORMAT}".')
    if content.get("version") != VERSION:
        raise DataError(
            f"{where}: has the version {content.get('version')!r}, this dvsn reads {VERSION}. Take a newer dvsn, or write "
            "the shards again."
        )
    try:
        return _index(content)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {type(error).__name__}: {error}. Write the shards again.") from error


def _index(content: Mapping[str, Any]) -> Index:
    kind, parts, types, config = (content[key] for key in ("kind", "parts", "types", "config"))
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    for key, value in (("parts", parts), ("types", types)):
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            raise ValueError(f"{key} is no table of words")
    if not set(parts.values()) <= {"photo", "label", "number"} or not all(map(FILE.fullmatch, parts)):
        raise ValueError(f"parts has {parts}, expected photo, label or number for each name")
    for name, value in types.items():
        if np.dtype(value).kind not in "iu":
            raise ValueError(f"types.{name} is {value}, expected a whole number's")
    if not isinstance(config, dict):
        raise ValueError("config is no table")
    require_plain(config, "config")
    splits = {str(name): _split(value) for name, value in content["splits"].items()}
    if not splits or not all(map(FILE.fullmatch, splits)):
        raise ValueError(f"splits has {list(splits)}, expected names")
    return Index(kind, dict(parts), dict(types), config, splits)


def _split(value: Mapping[str, Any]) -> Split:
    shards = tuple(map(_file, value["shards"]))
    if sum(shard.items for shard in shards) != value["items"]:
        raise ValueError(f"items is {value['items']}, and the shards have {sum(s.items for s in shards)}")
    truth = value.get("truth")
    return Split(int(value["items"]), shards, _file(value["table"]), None if truth is None else _file(truth))


def _file(value: Mapping[str, Any]) -> File:
    """A file that lies beside the index, not elsewhere."""
    found = File(value["name"], value["bytes"], value["sha256"], value.get("items", 0))
    if not isinstance(found.name, str) or not FILE.fullmatch(found.name):
        raise ValueError(f"a file is called {found.name!r}, expected a plain name")
    if type(found.bytes) is not int or type(found.items) is not int or min(found.bytes, found.items) < 0:
        raise ValueError(f"{found.name} has {found.bytes!r} bytes and {found.items!r} items")
    if not isinstance(found.sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", found.sha256):
        raise ValueError(f"{found.name} has no sha256")
    return found


def require_plain(value: Any, path: str, depth: int = 0) -> None:
    """Raise `ValueError` unless a value of the config is plain: nothing that a config would build, resolve or open."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{path} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str) or key.startswith("_") or "${" in key:
                raise ValueError(f"{path} has the key {key!r}, which may not be set by an index")
            require_plain(each, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for place, each in enumerate(value):
            require_plain(each, f"{path}[{place}]", depth + 1)
    elif isinstance(value, str):
        if "${" in value or value == "???" or len(value) > MAX_TEXT:
            raise ValueError(f"{path} is {value[:80]!r}, expected plain text")
    elif not isinstance(value, int | float | None):
        raise ValueError(f"{path} is a {type(value).__name__}")


def read_checked(storage: Storage, file: File, *, limit: int) -> bytes:
    """The content of a file that is wholly in memory. Raises `DataError` where it is not what the index says."""
    if file.bytes > limit:
        raise DataError(
            f"{storage.url}/{file.name}: {file.bytes:,} bytes by the index, expected {limit:,} at most."
        )
    data = storage.read(file.name, limit=file.bytes)
    if len(data) != file.bytes or digest(data) != file.sha256:
        raise DataError(
            f"{storage.url}/{file.name}: its content is not what the index says ({len(data):,} bytes, expected "
            f"{file.bytes:,}, or another sha256). Copy it again, or write the shards again."
        )
    return data


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


Table = dict[str, np.ndarray]
"""Of one split or shard. Files: `shard`, `start`, `size`, `crc`, one row each. Samples: `name` (bytes), `PART.file` (the row
of the file of a picture) and `PART.window` (see `WINDOWS`), `PART` of a number, and of people their
records."""


def dump_table(table: Table) -> bytes:
    """As a file of numpy: plain arrays, compressed."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **table)
    return buffer.getvalue()


def load_table(data: bytes, where: str) -> Table:
    """The arrays of `dump_table`. Objects, which numpy would unpickle, are refused."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except Exception as error:  # whatever a damaged file makes of it
        raise DataError(f"{where}: no readable table ({type(error).__name__}: {error}).") from error


def join_tables(tables: list[Table]) -> Table:
    """Those of single shards, in their order, as that of the split: numbers of shards and rows of files go on."""
    rows, joined = 0, []
    for number, table in enumerate(tables):
        moved = dict(table)
        moved["shard"] = np.full(len(table["start"]), number, np.int32)
        for name in table:
            if name.endswith(".file"):
                moved[name] = table[name] + rows
        rows += len(table["start"])
        joined.append(moved)
    return {name: np.concatenate([each[name] for each in joined]) for name in joined[0]}
