"""dvsn: dense vision networks, trained with Lightning and configured with Hydra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dvsn.version import VERSION as __version__

if TYPE_CHECKING:
    from pathlib import Path

    from dvsn.tasks.base import Task

__all__ = ["__version__", "load"]


def load(path: str | Path, *, device: str = "cpu") -> Task:
    """A trained task, in evaluation mode on `device`, rebuilt from the checkpoint alone.

    No Hydra, no data and no training code are touched; the file is unpickled weights-only and its recipe
    may only build what the allow-list permits. Raises `CheckpointError` with the reason otherwise.
    """
    from dvsn.tasks.recipe import load as load_checkpoint

    return load_checkpoint(path, device=device)
