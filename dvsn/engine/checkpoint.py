"""Checkpoint files: written atomically, and the newest of a folder that loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from dvsn.errors import CheckpointError
from dvsn.weights import read_checkpoint


class AtomicCheckpointIO(CheckpointIO):
    """Whole files only: a temporary file in the same folder, flushed to the disk, then renamed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:  # torch's writer hides what the system said
                    raise _system_error(error) from error
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path, map_location=map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _system_error(error: RuntimeError) -> OSError:
    """torch.save reports a failed write as a RuntimeError, with the reason as its context at best."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return OSError(str(error).splitlines()[0])


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def newest(folder: Path, *, pattern: str = "*.ckpt") -> Path | None:
    """The newest checkpoint below `folder` that loads; broken ones are passed over."""
    files = [p for p in folder.rglob(pattern) if p.is_file() and not p.name.startswith(".")]
    for file in sorted(files, key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            content = read_checkpoint(file)
        except CheckpointError:
            continue
        if "dvsn" in content and "loops" in content:
            return file
    return None
