"""A file of weights is read as data: tensors and plain containers, checked, never executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvsn.errors import CheckpointError, nearest


def read_checkpoint(
    path: Any, *, map_location: Any = "cpu", verify: bool = True, plain: Sequence[type] = ()
) -> dict[str, Any]:
    """The content of a checkpoint, unpickled weights-only. `plain` are further classes that may be in it: such as hold
    values and nothing else, for they are made and their attributes are set.

    `verify` checks the stored CRC of every part first, because torch does not notice a flipped byte. Without
    it the tensors are mapped, not read: for a second look at a file that was checked.
    Raises `CheckpointError` for a file that is missing, truncated, altered, or would run code.
    """
    file = Path(path)
    if not file.is_file():
        near = nearest(
            file.name, [p.name for p in file.parent.glob("*.ckpt")] if file.parent.is_dir() else []
        )
        raise CheckpointError(f"{file}: no such checkpoint. {near}".rstrip())
    if verify and zipfile.is_zipfile(file):
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise CheckpointError(
                f"{file}: the file is damaged: {error}. Use an older checkpoint."
            ) from error
        if broken is not None:
            raise CheckpointError(
                f"{file}: the part '{broken}' was altered on disk. Use an older checkpoint."
            )
    with file.open("rb") as opened:
        start = opened.read(8)
    if start and not start.startswith((b"PK", b"\x80")) and file.suffix != ".safetensors":
        raise CheckpointError(
            f"{file}: not a checkpoint: {file.stat().st_size} bytes that start with {start!r}."
        )
    try:
        with torch.serialization.safe_globals(list(plain)):
            content = torch.load(file, map_location=map_location, weights_only=True, mmap=not verify)
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
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{file}: found a {type(content).__name__}, expected a checkpoint's dictionary."
        )
    return content


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
