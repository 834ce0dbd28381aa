"""Samples of any reader as files of a tar archive, and what of each is where."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from dvsn.data.dataset import ImageDataset
from dvsn.data.files import read_rgb
from dvsn.data.people import JoinedPeople, PeopleDataset
from dvsn.data.sharded import windowed
from dvsn.errors import DataError
from dvsn.portable.decode import to_photo
from dvsn.shards.index import WINDOWS, Table

RECORD = tarfile.BLOCKSIZE


class Held(NamedTuple):
    """A file of the source that is in the archive already, decoded."""

    row: int
    picture: np.ndarray


class Packer:
    """Writes samples of a dataset into one tar archive; `table` tells where they are.

    A photo is stored as the bytes of its file where these, decoded as the reader decodes them, are the reader's array, or
    one half of it; else as a PNG of the array. Labels are PNG of ids, or arrays of numpy where PNG cannot hold them.
    A picture that several samples show, such as people, is stored once.
    """

    def __init__(self, path: Path, dataset: ImageDataset) -> None:
        self.dataset, self.path = dataset, path
        self.archive = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by `close`
        self.rows: dict[str, list[Any]] = {name: [] for name in ("start", "size", "crc")}
        self.columns: dict[str, list[Any]] = {}
        self.types: dict[str, str] = {}
        self.stored: dict[Path, int] = {}  # files of the source that are in the archive
        self.bytes_kept = 0
        """Photos that are stored as they were."""

    def add(self, index: int) -> None:
        """Append one sample. Raises what its reader raises."""
        with self.dataset.ruled():
            sample = self.dataset.read_at(0, index)
            self._put("name", os.fsencode(self.dataset.name(index)))
            held: dict[Path, Held] = {}
            for part, kind in self.dataset.kinds.items():
                self._add_part(index, part, kind, sample[part], held)
        if isinstance(self.dataset, PeopleDataset | JoinedPeople):
            self._add_person(index)

    def _add_part(self, index: int, part: str, kind: str, value: Any, held: dict[Path, Held]) -> None:
        if kind == "number":
            self._put(part, int(value))
            return
        member = f"{index:09d}.{part}"
        if kind == "photo":
            row, window = self._photo(index, member, value, held)
        else:
            if part != "label" and part in self.dataset.palettes:
                value = self.dataset.palettes[part][value]
            row, window = self._write(*encoded_label(member, value)), 0
            self.types[part] = np.dtype(value.dtype).str
        self._put(f"{part}.file", row)
        self._put(f"{part}.window", window)

    def _photo(self, index: int, member: str, array: np.ndarray, held: dict[Path, Held]) -> tuple[int, int]:
        """The row of the file that holds a photo, and which part of it the photo is."""
        for path in self.dataset.photos(index):
            if path not in held and path in self.stored:
                held[path] = Held(self.stored[path], read_rgb(path))
            data = b"" if path in held else path.read_bytes()
            picture = held[path].picture if path in held else to_photo(path, data)
            for window in range(len(WINDOWS)):
                if np.array_equal(windowed(picture, window), array):
                    if path not in held:
                        held[path] = Held(self._write(member + path.suffix.lower(), data), picture)
                        self.stored[path] = held[path].row
                        self.bytes_kept += 1
                    return held[path].row, window
        return self._write(f"{member}.png", encoded(array)), 0

    def _write(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self.archive.addfile(info, io.BytesIO(data))
        padded = -(-len(data) // RECORD) * RECORD
        self.rows["start"].append(self.archive.offset - padded)
        self.rows["size"].append(len(data))
        self.rows["crc"].append(zlib.crc32(data))
        return len(self.rows["start"]) - 1

    def _add_person(self, index: int) -> None:
        record = self.dataset.records[index]  # type: ignore[attr-defined]
        flags = np.zeros(0, np.uint8) if record.attributes is None else record.attributes
        values = {
            "box": np.array(record.box, np.float64), "keypoints": record.keypoints, "labelled": record.labelled,
            "number": record.number, "image": record.image_id, "score": record.score, "length": record.length,
            "attributes": flags, "group": os.fsencode(record.group),
            "picture": os.fsencode(f"{record.picture.parent.name}/{record.picture.name}"),
        }  # fmt: skip
        for name, value in values.items():
            self._put(name, value)

    def _put(self, name: str, value: Any) -> None:
        self.columns.setdefault(name, []).append(value)

    def close(self) -> tuple[Table, str, int]:
        """End the archive: its table, its sha256 and its bytes."""
        self.archive.close()
        table = {name: np.array(values) for name, values in self.columns.items()}
        table |= {
            "start": np.array(self.rows["start"], np.int64),
            "size": np.array(self.rows["size"], np.int64),
            "crc": np.array(self.rows["crc"], np.uint32),
            "shard": np.zeros(len(self.rows["start"]), np.int32),
        }
        with self.path.open("rb") as content:
            return table, hashlib.file_digest(content, "sha256").hexdigest(), self.path.stat().st_size


def encoded(array: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 RGB, or (H, W) uint8 or uint16, as PNG."""
    done, data = cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)
    if not done:
        raise DataError(f"an array of {array.dtype} {array.shape} cannot be written as PNG.")
    return data.tobytes()


def encoded_label(member: str, array: np.ndarray) -> tuple[str, bytes]:
    """The name and the content of a label: a PNG where PNG holds its values, else an array of numpy."""
    if array.ndim == 3 and array.dtype == np.uint8 and array.shape[2] == 3:
        return f"{member}.png", encoded(array)
    if array.ndim == 2 and array.size and array.min() >= 0 and array.max() <= 0xFFFF:
        return f"{member}.png", encoded(array.astype(np.uint8 if array.max() <= 0xFF else np.uint16))
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return f"{member}.npy", buffer.getvalue()
