"""What a run of W&B has logged, read from its own file: the truth after a kill, whatever was on its way when it came."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEP = "trainer/global_step"
BLOCK, HEADER = 32768, 7
WHOLE, FIRST, LAST = 1, 2, 4
"""Kinds of chunks of a LevelDB log, whose records may be cut into several."""


@dataclass
class Logged:
    """How far a run has come: the last `step` as the trainer counts, the names logged at it, and the last row of W&B's own
    count; -1 where there is none."""

    step: int = -1
    names: set[str] = field(default_factory=set)
    row: int = -1

    def add(self, row: dict[str, Any]) -> None:
        self.row = max(self.row, whole(row.get("_step")))
        step = whole(row.get(STEP))
        if step > self.step:
            self.step, self.names = step, set()
        if step == self.step:
            self.names |= {name for name in row if not name.startswith("_")}


def whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else -1


def logged_by(folder: Path, run: str) -> Logged:
    """What the parts of a run have logged whose files are below `folder`. A file that is cut counts up to there."""
    found = Logged()
    for file in sorted(folder.glob(f"wandb/*run-*-{run}/run-{run}.wandb")):
        for row in history(file):
            found.add(row)
    return found


def history(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file. Pictures and tables stand under their names, without what they hold."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    make: Any = wandb_internal_pb2
    for data in records(file.read_bytes()):
        record = make.Record()
        try:
            record.ParseFromString(data)
        except DecodeError:
            return
        if record.HasField("history"):
            row: dict[str, Any] = {}
            for item in record.history.item:
                if item.nested_key and len(item.nested_key) > 1:
                    row[item.nested_key[0]] = None
                else:
                    row[item.key or item.nested_key[0]] = json.loads(item.value_json)
            yield row


def records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log after W&B's header of 7 bytes: blocks of 32 KiB, of chunks with a checksum, a length and
    a kind. Ends where a chunk is cut."""
    position, buffer = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        position += HEADER
        if not kind or position + length > len(data):
            return
        buffer = (
            data[position : position + length]
            if kind in (WHOLE, FIRST)
            else buffer + data[position : position + length]
        )
        position += length
        if kind in (WHOLE, LAST):
            yield buffer
            buffer = b""
