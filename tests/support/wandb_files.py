"""An offline run of W&B, read from its file."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


def keep_quiet(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """No network, no console, and everything that W&B keeps of its own in a folder."""
    patch.setenv("WANDB_MODE", "offline")
    patch.setenv("WANDB_SILENT", "true")
    patch.setenv("WANDB_CONSOLE", "off")
    patch.delenv("WANDB_API_KEY", raising=False)
    patch.delenv("WANDB_RUN_GROUP", raising=False)
    for name in ("DIR", "DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR", "CONFIG_DIR"):
        patch.setenv(f"WANDB_{name}", str(folder))


def records(path: Path) -> Iterator[Any]:
    """The records of an offline run: a LevelDB log of protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    data, position, buffer = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        position += 7
        if not kind and not length:
            break
        buffer += data[position : position + length]
        position += length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(buffer)
            buffer = b""
            yield record


def values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


@dataclass
class OfflineRun:
    """What the file of a run holds, in the order in which it was logged."""

    run: Any
    """W&B's record: run_id, display_name, run_group, job_type, tags, project."""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)


def read_run(file: Path) -> OfflineRun:
    """Call `wandb.teardown()` before: W&B's own process may still be writing when `finish` returns."""
    found = OfflineRun(None)
    for record in records(file):
        if record.HasField("run"):
            found.run = record.run
            found.config |= values(record.run.config.update)
        found.config |= values(record.config.update)
        found.summary |= values(record.summary.update)
        if record.HasField("history"):
            found.history.append(values(record.history.item))
        if record.HasField("artifact"):
            found.artifacts.append(record.artifact)
    return found
