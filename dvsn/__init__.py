"""dvsn: dense vision networks, trained with Lightning and configured with Hydra."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from dvsn.version import VERSION as __version__

if TYPE_CHECKING:
    from pathlib import Path

    from dvsn.evaluate import called as evaluate
    from dvsn.portable.result import Result
    from dvsn.predict.model import Model
    from dvsn.train import called as train

__all__ = ["Result", "__version__", "evaluate", "load", "train"]


def load(path: str | Path, *, device: str = "cpu", max_unpacked: int | None = None) -> Model:
    """A trained task, in evaluation mode on `device`, rebuilt from the checkpoint alone; its `predict` takes pictures. An
    exported file (.onnx, .xml) becomes the same, and answers by its own runtime.

    No Hydra, no data and no training code are touched; the file is unpickled weights-only and its recipe
    may only build what the allow-list permits. A packed file may unpack to `max_unpacked` bytes; None: 16 times its size.
    Raises `CheckpointError` with the reason otherwise, and `ConfigError` for a device that is not there; `auto` is the GPU
    if there is one.
    """
    from dvsn.predict.model import as_model
    from dvsn.predict.predictor import find_device
    from dvsn.reading import unpacking
    from dvsn.tasks.exported import is_exported, open_task

    path = os.path.expanduser(path)  # noqa: PTH111 - a name on the hub has two slashes
    with unpacking({"max_unpacked": max_unpacked}):
        return as_model(open_task(path, device=device if is_exported(path) else find_device(device)))


def __getattr__(name: str) -> Any:
    """`dvsn.train` and `dvsn.evaluate`: the modules of the commands, which can be called. `dvsn.Result`: of predictions."""
    if name in ("train", "evaluate"):
        return importlib.import_module(f"dvsn.{name}")
    if name == "Result":
        from dvsn.portable.result import Result

        return Result
    raise AttributeError(f"module 'dvsn' has no attribute '{name}'")
