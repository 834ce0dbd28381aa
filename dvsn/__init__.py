"""dvsn: dense vision networks, trained with Lightning and configured with Hydra."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dvsn.tasks.base import Task

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: str | Path, *, device: str = "cpu") -> Task:
    """A trained task, in evaluation mode on `device`, rebuilt from the checkpoint alone.

    No Hydra, no data and no training code are touched; the file is unpickled weights-only and its recipe
    may only build what the allow-list permits. Raises `CheckpointError` with the reason otherwise.
    """
    from dvsn.engine.checkpoint import load as load_checkpoint

    return load_checkpoint(path, device=device)
