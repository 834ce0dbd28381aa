"""Checkpoint files, written atomically."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from dvsn.parts import in_parts
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
                    raise _own_error(error) from error
                file.flush()
                os.fsync(file.fileno())
            take_place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path, map_location=map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        remove(Path(path))


ASIDE = "_being_replaced"
"""What is put to the name of a checkpoint while one of the other form, file or folder, takes its place. It is removed
later, so it must be no name that somebody gives to a copy."""


def take_place(temporary: Path, target: Path) -> None:
    """Rename a checkpoint that is written to its own name, for good. A file and a folder cannot replace each other: the
    older one steps aside, under a name that `resume=auto` finds too, and is removed."""
    if target.is_dir() and not in_parts(target):
        raise IsADirectoryError(f"{target} is a folder, and no checkpoint")
    if target.exists() and target.is_dir() != temporary.is_dir():
        aside = target.with_name(f"{target.stem}{ASIDE}{target.suffix}")
        remove(aside)
        target.rename(aside)
        temporary.rename(target)
        remove(aside)
    else:
        temporary.replace(target)
    sync_folder(target.parent)


def remove(path: Path) -> None:
    """A checkpoint, file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine have left of `AtomicCheckpointIO` and of folders in parts."""
    for path in folder.glob(".*.ckpt.*.tmp"):
        number = path.name.split(".")[-2]
        if number.isdecimal() and int(number) != os.getpid() and not _lives(int(number)):
            remove(path)
    for path in folder.glob(f"*{ASIDE}.ckpt"):
        if path.with_name(path.name.replace(ASIDE, "")).exists():
            remove(path)


def _lives(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _own_error(error: RuntimeError) -> BaseException:
    """The error behind a RuntimeError of torch.save: an OSError if the write failed, or the RuntimeError of a
    data loader's worker that died meanwhile, which PyTorch raises wherever the main process happens to be."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) or "DataLoader worker" in str(cause):
            return cause
        cause = cause.__cause__ or cause.__context__
    return OSError(str(error).splitlines()[0])


def sync_folder(folder: Path) -> None:
    """Flush the folder, so that the rename survives a power failure. Systems that cannot do this are left alone."""
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
