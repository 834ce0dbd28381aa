"""A file of weights is read as data: tensors and plain containers, checked, never executed."""

from __future__ import annotations

import pickle
import stat
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvsn.errors import CheckpointError, nearest
from dvsn.parts import INDEX, assembled, in_parts
from dvsn.reading import most_unpacked

CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "network", "net", "params")
"""Under these, training scripts save a network."""

AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "module_ema", "net_ema", "ema")
"""Under these, the running average of its weights."""

INFLATION = (
    16  # bytes of a checkpoint in memory for each of its file; weights hardly shrink when they are packed
)
SMALL = 64 << 20  # bytes in memory that no limit is needed for


def read_checkpoint(
    path: Any,
    *,
    map_location: Any = "cpu",
    verify: bool = True,
    plain: Sequence[type] = (),
    shapes: bool = False,
) -> dict[str, Any]:
    """The content of a checkpoint, unpickled weights-only. `plain` are further classes that may be in it: such as hold
    values and nothing else, for they are made and their attributes are set.

    `verify` checks the stored CRC of every part first, because torch does not notice a flipped byte. Without
    it the tensors are mapped, not read: for a second look at a file that was checked. Numbers of numpy beside the
    weights, as training scripts save their best score, become plain ones. A folder of `trainer.fsdp_checkpoint=sharded` is
    read as the whole file that it stands for; with `shapes` its tensors are left on the device `meta`.
    Raises `CheckpointError` for a file that is missing, truncated, altered, unpacks to many times its size
    (`dvsn.reading.unpacking` sets another limit), or would run code.
    """
    file = Path(path)
    if in_parts(file):
        index = read_checkpoint(file / INDEX)
        return assembled(file, index, map_location="meta" if shapes else map_location, verify=verify)
    if (file / ".metadata").is_file():
        raise CheckpointError(
            f"{file}: refused. It is a folder of torch.distributed.checkpoint, whose .metadata could run code. If you trust "
            f"it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {file} whole.pt"
        )
    if file.is_dir():
        raise CheckpointError(
            f"{file}: is a folder without a checkpoint, expected a file of weights or the folder of a run."
        )
    if file.exists() and not stat.S_ISREG(file.stat().st_mode):
        raise CheckpointError(f"{file}: is a pipe or a device, expected a file of weights.")
    if not file.is_file():
        near = nearest(
            file.name, [p.name for p in file.parent.glob("*.ckpt")] if file.parent.is_dir() else []
        )
        raise CheckpointError(f"{file}: no such checkpoint. {near}".rstrip())
    if verify and zipfile.is_zipfile(file):
        require_intact(file)
    with file.open("rb") as opened:
        start = opened.read(8)
    if start and not start.startswith((b"PK", b"\x80")) and file.suffix != ".safetensors":
        raise CheckpointError(
            f"{file}: not a checkpoint: {file.stat().st_size} bytes that start with {start!r}."
        )
    content = unpickled(file, map_location=map_location, plain=plain, mapped=not verify)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{file}: found a {type(content).__name__}, expected a checkpoint's dictionary."
        )
    return content


def unpickled(file: Path, *, map_location: Any, plain: Sequence[type], mapped: bool) -> Any:
    """What a file holds, unpickled weights-only. Raises `CheckpointError` as `read_checkpoint` does."""
    try:
        with torch.serialization.safe_globals([*plain, *PLAIN_NUMPY]):
            return torch.load(file, map_location=map_location, weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error).replace("\n", " ")
        found = (
            reason.split("GLOBAL ")[1].split(" ")[0]
            if "GLOBAL " in reason
            else "objects that are not plain data"
        )
        raise CheckpointError(
            f"{file}: refused. The file holds {found}, which could run code; a checkpoint may hold tensors and plain "
            "containers only. If you trust it, load it where it was made and save its state_dict() alone."
        ) from error
    except Exception as error:  # whatever a damaged file makes of an unpickler
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{file}: not a readable checkpoint ({file.stat().st_size} bytes): {reason}. It may be truncated."
        ) from error


def require_intact(file: Path) -> None:
    """Raise `CheckpointError` where a part of an archive does not have its stored CRC, or unpacks to too much."""
    try:
        with zipfile.ZipFile(file) as archive:
            require_bounded(archive, file)
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise CheckpointError(f"{file}: the file is damaged: {error}. Use an older checkpoint.") from error
    if broken is not None:
        raise CheckpointError(f"{file}: the part '{broken}' was altered on disk. Use an older checkpoint.")


def require_bounded(archive: zipfile.ZipFile, file: Path) -> None:
    """Raise `CheckpointError` for parts that unpack to many times the size of their file, or to more than the option
    `max_unpacked` allows, before any is unpacked."""
    total, size = sum(part.file_size for part in archive.infolist()), file.stat().st_size
    most = most_unpacked()
    if total > (max(SMALL, INFLATION * size) if most is None else most):
        usual = f"{INFLATION} times its size at most, as weights hardly shrink when they are packed"
        expected = usual if most is None else f"{most:,} at most (max_unpacked)"
        raise CheckpointError(
            f"{file}: {size:,} bytes that unpack to {total:,}; expected {expected}. If it is meant, set max_unpacked={total}"
        )


# Numbers of numpy, without numpy -------------------------------------------------------------------------


class PlainType:
    """In place of numpy's dtype: its name and the order of its bytes."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"


class PlainArray:
    """In place of an array of numpy: beside weights it is not used, so its content is not kept."""

    def __setstate__(self, state: Any) -> None:
        self.shape = state[1] if isinstance(state, tuple) and len(state) > 1 else ()


CODES = {"f2": "e", "f4": "f", "f8": "d", "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q",
         "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}  # fmt: skip


def plain_number(kind: Any, data: Any = b"") -> float | int | bool:
    """What numpy's `scalar` makes of its bytes."""
    code = CODES.get(kind.name) if isinstance(kind, PlainType) else None
    data = data.encode("latin1") if isinstance(data, str) else data
    if code is None or not isinstance(data, bytes) or len(data) != struct.calcsize(f"<{code}"):
        raise pickle.UnpicklingError("a scalar of numpy that is no number")
    number: float | int | bool = struct.unpack(f"{kind.order}{code}", data)[0]
    return number


def plain_array(*_: Any) -> PlainArray:
    return PlainArray()


PLAIN_NUMPY: list[Any] = [
    (PlainType, "numpy.dtype"),
    (PlainArray, "numpy.ndarray"),
    *((plain_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((plain_array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""What a pickle calls for numbers and arrays of numpy, and what is called instead."""


# The network in a file -----------------------------------------------------------------------------------


class Found(NamedTuple):
    """A network's weights in a training script's file."""

    state: Any
    taken: str = ""
    """The entry that it was found under; "" where the file is the network's alone."""
    others: tuple[str, ...] = ()
    """Entries beside it that hold weights, too."""


def find_weights(content: Any, container: str | None = None) -> Found:
    """The network's state dict out of a training script's file; what else stands beside it there is ignored.

    `container` names the entry; without one it is the first of `CONTAINERS`, then of `AVERAGED`.
    """
    if container is not None:
        if not isinstance(content, Mapping) or not isinstance(content.get(container), Mapping):
            keys = [str(key) for key in content] if isinstance(content, Mapping) else []
            raise CheckpointError(
                f"container: the file has no weights under '{container}'. {nearest(container, keys)}".rstrip()
            )
        return Found(find_weights(content[container]).state, container)
    result = Found(content)
    for _ in range(len(CONTAINERS)):
        known = (*CONTAINERS, *AVERAGED)
        inside = [
            key
            for key in known
            if isinstance(result.state, Mapping) and isinstance(result.state.get(key), Mapping)
        ]
        if not inside:
            break
        result = Found(result.state[inside[0]], result.taken or inside[0], result.others or tuple(inside[1:]))
    return result


def require_equal(expected: Mapping[str, Any], found: Mapping[str, Any], where: Any) -> None:
    """Raise `CheckpointError` that lists the differences in keys and shapes, if there are any."""
    differences = compare(expected, found)
    if differences:
        listed = "\n  ".join(differences[:8])
        more = f"\n  and {len(differences) - 8} more" if len(differences) > 8 else ""
        raise CheckpointError(
            f"{where}: the weights do not fit this network, {len(differences)} differences:\n  {listed}{more}"
        )


def compare(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What keeps `found` from being loaded into `expected`: missing, unexpected and mis-shaped keys."""
    lines = [f"missing: {key} {tuple(expected[key].shape)}" for key in expected if key not in found]
    for key, value in found.items():
        if key not in expected:
            lines.append(f"unexpected: {key} {tuple(getattr(value, 'shape', ()))}")
        elif not isinstance(value, Tensor):
            lines.append(f"not a tensor: {key} is a {type(value).__name__}")
        elif value.shape != expected[key].shape:
            lines.append(f"shape: {key} is {tuple(value.shape)}, expected {tuple(expected[key].shape)}")
    return lines
