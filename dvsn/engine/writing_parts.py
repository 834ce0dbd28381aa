"""A checkpoint in parts (`dvsn.parts`) is written by all processes of a run together, whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.io import CheckpointIO
from torch.distributed.checkpoint import save
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from dvsn.engine.checkpoint import remove, sync_folder, take_place
from dvsn.parts import INDEX, KEY, in_parts, shared, sum_of

OURS = re.compile(r"\d{8,}-[0-9a-f]{8}")
"""The names of folders of parts."""


def write_parts(checkpoint: dict[str, Any], path: Path, *, io: CheckpointIO) -> None:
    """Write a checkpoint whose tensors are shared out; all processes call it. `io` writes the index.

    The parts are written to a folder of their own, then the index that names it, and the older parts are removed: a run that
    is killed in between leaves the checkpoint before. What several processes have alike the first one writes. Raises
    `OSError` on all processes where one cannot write, or where the first does not see the parts of another.
    """
    place, name = _agreed(checkpoint, path)
    folder, groups = place / name, list(shared(checkpoint))
    trouble, files = _write({key: group[at] for key, group, at in groups}, folder)
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, (trouble, files))
    trouble = next((each for each, _ in told if each is not None), None)
    if trouble is None and dist.get_rank() == 0:
        trouble = _finish(checkpoint, place, path, name, [found for _, found in told], io)
    said = [trouble]
    dist.broadcast_object_list(said, src=0)
    if said[0] is not None:
        if dist.get_rank() == 0:
            remove(folder if place == path else place)
        raise OSError(*said[0])


def _agreed(checkpoint: dict[str, Any], path: Path) -> tuple[Path, str]:
    """The folder to write to, which is not yet that of the checkpoint where a file or nothing is in its place, and the name
    of the folder of the parts: both as process 0 has them."""
    chosen: list[Any] = [None]
    if dist.get_rank() == 0:
        place = path if in_parts(path) else path.with_name(f".{path.name}.{os.getpid()}.tmp")
        chosen = [(str(place), f"{int(checkpoint.get('global_step', 0)):08d}-{secrets.token_hex(4)}")]
    dist.broadcast_object_list(chosen, src=0)
    place, name = chosen[0]
    return Path(place), str(name)


def _write(
    tensors: dict[str, Any], folder: Path
) -> tuple[tuple[Any, ...] | None, dict[str, tuple[int, str]]]:
    """Write the own part. Returns number and text of an error of the system, and what the part is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)
            save(
                tensors,
                storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
                planner=DefaultSavePlanner(flatten_state_dict=False, dedup_save_to_lowest_rank=True),
            )
        mine = folder.glob(f"shard-{dist.get_rank() + 1:05d}-*.safetensors")
        return None, {file.name: (file.stat().st_size, sum_of(file)) for file in mine}
    except CheckpointException as error:  # of all processes alike
        rank, (cause, _) = sorted(error.failures.items())[0]
        number = cause.errno if isinstance(cause, OSError) else errno.EIO
        return (number, f"process {rank}: {getattr(cause, 'strerror', None) or cause}"), {}
    except OSError as error:
        return (error.errno or errno.EIO, f"process {dist.get_rank()}: {error.strerror or error}"), {}


def _finish(
    checkpoint: dict[str, Any],
    place: Path,
    path: Path,
    name: str,
    found: list[dict[str, tuple[int, str]]],
    io: CheckpointIO,
) -> tuple[Any, ...] | None:
    """Write the index, by process 0, and remove the parts of before. Returns number and text of an error of the system."""
    files = {key: told for each in found for key, told in each.items()}
    try:
        hidden = [key for key, (size, _) in files.items() if not _is_seen(place / name / key, size)]
        if hidden:
            return (
                errno.ENOENT,
                f"process 0 does not see {hidden[0]}, which another process has written: trainer.fsdp_checkpoint=sharded "
                "needs a folder of runs that all machines share. Or set trainer.fsdp_checkpoint=whole",
            )
        sync_folder(place / name)
        told = {
            "folder": name,
            "files": {key: list(each) for key, each in files.items()},
            "processes": len(found),
        }
        io.save_checkpoint({**shapes_of(checkpoint), KEY: told}, place / INDEX)
        if place != path:
            take_place(place, path)
        remove_older(path, name)
    except OSError as error:
        return (error.errno or errno.EIO, error.strerror or str(error))
    return None


def remove_older(path: Path, name: str) -> None:
    """Remove the folders of parts that are not those of this name, of earlier checkpoints and of broken writes, and indexes
    that were not written to their end."""
    for folder in path.iterdir():
        if folder.is_dir() and folder.name != name and OURS.fullmatch(folder.name):
            remove(folder)
    for file in path.glob(f".{INDEX}.*.tmp"):
        remove(file)


def _is_seen(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def shapes_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint whose shared tensors are those of the device `meta`: shapes and types."""
    bare = {**checkpoint, "state_dict": dict(checkpoint["state_dict"])}
    bare["optimizer_states"] = [
        {**each, "state": {key: dict(kept) for key, kept in each.get("state", {}).items()}}
        for each in checkpoint.get("optimizer_states", [])
    ]
    for _, group, key in shared(bare):
        group[key] = torch.empty(group[key].shape, dtype=group[key].dtype, device="meta")
    return bare
