"""Checkpoint files: written atomically, read as data only, rebuilt into tasks."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from torch import Tensor

from dvsn.config.build import build
from dvsn.errors import CheckpointError, ConfigError, nearest
from dvsn.tasks.base import Task

FORMAT = 1


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


def read_recipe(content: Mapping[str, Any], path: Any) -> dict[str, Any]:
    """The part of a checkpoint that says how to rebuild its task."""
    header = content.get("dvsn")
    if not isinstance(header, dict) or not isinstance(header.get("recipe"), dict):
        keys = ", ".join(list(map(str, content))[:5])
        raise CheckpointError(
            f"{path}: not a dvsn checkpoint (it holds {keys}). Convert a published one first: "
            f"python -m dvsn.convert {path} converted.ckpt"
        )
    number = header.get("format")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise CheckpointError(f"{path}: found the format {number!r}, expected a number from 1 to {FORMAT}.")
    if number > FORMAT:
        raise CheckpointError(
            f"{path}: written by dvsn {header.get('version')}, in a newer format than this version reads. Update dvsn."
        )
    if not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path}: the file holds no weights (state_dict); it cannot be used.")
    return header


def build_task(recipe: dict[str, Any], *, data: dict[str, Any] | None = None, path: Any = None) -> Task:
    """A task from its recipe, a plain dictionary; the recipe passes the allow-list first. Its `graft` is what a method of
    distillation has added to the network, and no option of the task.

    `path` is the checkpoint that the recipe comes from, for messages.
    """
    try:
        task = build({key: node for key, node in recipe.items() if key != "graft"}, path="task")
        if not isinstance(task, Task):
            raise ConfigError(
                "task: expected a node whose _target_ is a task, such as dvsn.tasks.pix2pix.Pix2Pix."
            )
        if recipe.get("graft") is not None:
            task.use_graft(recipe["graft"])
    except ConfigError as error:
        if path is None:
            raise
        raise CheckpointError(f"{path}: its recipe is refused: {error}") from error
    task.recipe, task.data_recipe = recipe, data or {}
    return task


def load(path: Any, *, device: str = "cpu") -> Task:
    """See `dvsn.load`."""
    content = read_checkpoint(path, map_location="cpu")
    header = read_recipe(content, path)
    task = build_task(header["recipe"], data=header.get("data"), path=path)
    load_state(task, content["state_dict"], path)
    task.to(device)
    task.eval()
    return task.requires_grad_(False)  # type: ignore[return-value]


def load_state(task: Task, state: Mapping[str, Tensor], path: Any) -> None:
    """Strictly load a task's weights; a difference is refused with the keys listed.

    What a distilled run holds beside its student, the modules and memory of the methods, is left out.
    """
    if task.distiller is None:
        state = {key: value for key, value in state.items() if not key.startswith("distiller.")}
    require_equal(task.state_dict(), state, path)
    task.load_state_dict(state, strict=True)


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
