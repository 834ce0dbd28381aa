"""A checkpoint in parts: a folder that the processes of a run have written together, read as data.

    last.ckpt/index.pt                         everything but weights and the optimiser's state, and what the parts must be
    last.ckpt/STEP-TOKEN/shard-*.safetensors   these, the share of a process each (torch.distributed.checkpoint)

The index is written last and names the folder of the parts, so that a checkpoint is there whole or not at all. Both kinds of
file hold data only. The format of torch.distributed.checkpoint itself is not read: its `.metadata` is a pickle.
"""

from __future__ import annotations

import hashlib
import re
import stat
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dvsn.errors import CheckpointError

if TYPE_CHECKING:  # torch is imported where tensors are: whoever looks for checkpoints does without
    from torch import Tensor

INDEX = "index.pt"
KEY = "parts"
"""Under it the index says of which parts it is."""
NAME = re.compile(r"[\w-]+(\.safetensors)?")


def in_parts(path: Path) -> bool:
    """Whether a path is such a folder."""
    return path.is_dir() and (path / INDEX).is_file()


class Parts(NamedTuple):
    """What an index says of its parts."""

    folder: Path
    files: dict[str, tuple[int, str]]
    """By name: bytes and SHA-256."""
    processes: int
    """How many wrote them."""


def shared(content: Mapping[str, Any]) -> Iterator[tuple[str, dict[Any, Any], Any]]:
    """The tensors of a checkpoint that parts hold: their name there, and the dictionary and key that they are found by."""
    from torch import Tensor

    groups = [("state_dict", content.get("state_dict"))]
    for number, each in enumerate(content.get("optimizer_states") or ()):
        of = each.get("state") if isinstance(each, Mapping) else None
        groups += [(f"optimizer_states.{number}.{name}", kept) for name, kept in (of or {}).items()]
    for prefix, group in groups:
        if isinstance(group, dict):
            yield from (
                (f"{prefix}.{key}", group, key) for key, value in group.items() if isinstance(value, Tensor)
            )


def described(folder: Path, content: dict[str, Any]) -> Parts:
    """What the index of a folder says of its parts, taken out of it. Raises `CheckpointError` for what no index says."""
    told = content.pop(KEY, None)
    told = told if isinstance(told, Mapping) else {}
    name, files, processes = told.get("folder"), told.get("files"), told.get("processes")
    sound = isinstance(name, str) and NAME.fullmatch(name) and isinstance(processes, int)
    if not sound or not isinstance(files, Mapping) or not all(map(_is_entry, files.items())):
        raise CheckpointError(
            f"{folder / INDEX}: is not the index of a checkpoint in parts. Use an older checkpoint."
        )
    assert isinstance(name, str) and isinstance(processes, int)
    return Parts(folder / name, {key: (size, total) for key, (size, total) in files.items()}, processes)


def _is_entry(item: tuple[Any, Any]) -> bool:
    name, told = item
    return (
        isinstance(name, str) and NAME.fullmatch(name) is not None and isinstance(told, list | tuple)
        and [type(each) for each in told] == [int, str]
    )  # fmt: skip


def require_parts(parts: Parts, content: Mapping[str, Any], *, verify: bool) -> None:
    """Raise `CheckpointError` where parts are missing, are others, or cannot hold what the index has of them. `verify`
    compares their sums, too."""
    found = {each.name for each in parts.folder.glob("*.safetensors")} if parts.folder.is_dir() else set()
    written = f"It was written by {parts.processes} processes in {len(parts.files)} parts"
    for name, (size, _) in parts.files.items():
        file = parts.folder / name
        if name not in found or not stat.S_ISREG(file.lstat().st_mode):
            raise CheckpointError(
                f"{file}: this part of a checkpoint is missing. {written}; copy the whole folder, or use an older "
                "checkpoint."
            )
        if file.stat().st_size != size:
            raise other(file)
    if more := sorted(found - set(parts.files)):
        raise CheckpointError(
            f"{parts.folder / more[0]}: is no part of this checkpoint. {written}; remove what else is there."
        )
    most, wanted = sum(size for size, _ in parts.files.values()), 0
    for _, group, key in shared(content):
        wanted += group[key].numel() * group[key].element_size()
    if wanted > most:
        raise CheckpointError(
            f"{parts.folder}: has {most:,} bytes, and {parts.folder.parent / INDEX} speaks of {wanted:,}: one of them was "
            "altered. Use an older checkpoint."
        )
    if verify:
        require_sums(parts)


def require_sums(parts: Parts, rank: int = 0, world: int = 1) -> None:
    """Raise `CheckpointError` where a part has not the sum that the index has of it. Of several processes, which all see the
    folder, each looks at its share."""
    for name in sorted(parts.files)[rank::world]:
        if sum_of(parts.folder / name) != parts.files[name][1]:
            raise other(parts.folder / name)


def other(file: Path) -> CheckpointError:
    """That a file is not the part that was written."""
    return CheckpointError(
        f"{file}: is not the part that was written with {file.parents[1] / INDEX}: it is damaged, or of another checkpoint. "
        "Use an older one."
    )


def sum_of(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def assembled(folder: Path, content: dict[str, Any], *, map_location: Any, verify: bool) -> dict[str, Any]:
    """The whole checkpoint of an index, which is filled. On the device `meta` nothing but the shapes."""
    import torch

    parts = described(folder, content)
    require_parts(parts, content, verify=verify)
    if map_location == "meta":
        return content
    groups = list(shared(content))
    wanted = {name: torch.empty_like(group[key], device="cpu") for name, group, key in groups}
    read_into(wanted, parts.folder)
    for name, group, key in groups:
        group[key] = wanted[name].to(map_location)
    return content


def read_into(wanted: dict[str, Any], folder: Path) -> None:
    """Fill tensors, whole or the own shares of distributed ones, from a folder of parts. Raises `CheckpointError` where a
    tensor is not there in its shape."""
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    try:
        require_tiles(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata, wanted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no other process is asked
            dcp.load(
                wanted,
                storage_reader=HuggingFaceStorageReader(str(folder)),
                planner=DefaultLoadPlanner(flatten_state_dict=False),
                no_dist=True,
            )
    except (Exception, CheckpointException) as error:  # whatever a damaged file makes of its reader
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise CheckpointError(
            f"{folder}: the parts cannot be read: {lines[-1] if lines else type(error).__name__}. Use an older checkpoint."
        ) from error


def require_tiles(found: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` for a tensor that the parts do not hold, or not whole."""
    for name, tensor in wanted.items():
        if name not in found:
            raise ValueError(f"{name} is not there")
        chunks = found[name].chunks
        if found[name].size != tensor.shape or sum(each.sizes.numel() for each in chunks) != tensor.numel():
            raise ValueError(f"{name} is not whole: {len(chunks)} parts of {tuple(found[name].size)}")
