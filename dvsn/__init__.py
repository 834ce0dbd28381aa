"""dvsn: dense vision networks, trained with Lightning and configured with Hydra."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dvsn.version import VERSION as __version__

if TYPE_CHECKING:
    import os

    from dvsn.engine.records import Run
    from dvsn.evaluate import called as evaluate
    from dvsn.portable.result import Result
    from dvsn.predict import called as predict
    from dvsn.predict.model import Model
    from dvsn.train import called as train

__all__ = ["Result", "__version__", "evaluate", "load", "predict", "train"]


def load(
    path: str | os.PathLike[str] | Run, *, device: str = "cpu", max_unpacked: int | None = None
) -> Model:
    """A trained task, in evaluation mode on `device`, rebuilt from the checkpoint alone; its `predict` takes pictures. An
    exported file (.onnx, .xml) becomes the same, and answers by its own runtime. Of a run that `dvsn.train` gave it is the
    best checkpoint, else the last.

    No Hydra, no data and no training code are touched; the file is unpickled weights-only and its recipe
    may only build what the allow-list permits. A packed file may unpack to `max_unpacked` bytes; None: 16 times its size.
    Raises `CheckpointError` with the reason otherwise, and `ConfigError` for a device that is not there; `auto` is the GPU
    if there is one.
    """
    from dvsn.predict.model import open_model

    return open_model(path, device=device, max_unpacked=max_unpacked)


def __getattr__(name: str) -> Any:
    """`dvsn.train`, `dvsn.evaluate` and `dvsn.predict`: the modules of the commands, which can be called. `dvsn.Result`: of
    predictions."""
    if name in ("train", "evaluate", "predict"):
        return importlib.import_module(f"dvsn.{name}")
    if name == "Result":
        from dvsn.portable.result import Result

        return Result
    raise AttributeError(f"module 'dvsn' has no attribute '{name}'")
