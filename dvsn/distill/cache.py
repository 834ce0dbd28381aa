"""A teacher's answers on disk, for training pictures that are the same in every epoch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.distill.method import Shape
from dvsn.errors import ConfigError


class Answers:
    """A float32 answer for each of `samples` items, in two files of `folder`: `answers.bin`, and `known.bin`, which says of
    which items there is one.

    An item without one is asked for with its whole batch, and kept. Processes on one machine share the files; each writes
    what it has asked for. Raises `ConfigError` where the disk has too little room.
    """

    def __init__(self, folder: Path, samples: int, shape: Shape) -> None:
        self.folder, size = folder, (samples, *shape)
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = 4 * math.prod(size), shutil.disk_usage(folder).free
        if not (folder / "known.bin").is_file() and needed > free:
            raise ConfigError(
                f"distillation.cache: the answers to {samples:,} items need {needed:,} bytes, and {folder} has {free:,} "
                "free. Choose another disk, or leave the teacher to be asked every time."
            )
        self.answers = opened(folder / "answers.bin", np.float32, size)
        self.known = opened(folder / "known.bin", np.bool_, (samples,))

    def __deepcopy__(self, _: Any) -> Answers:
        return self

    @property
    def count(self) -> int:
        return int(self.known.sum())

    def __call__(self, index: Tensor, ask: Callable[[], Tensor]) -> Tensor:
        """Of the items `index` (N,) the answers (N, ...); `ask` gives those of the batch where one is not known."""
        rows = index.cpu().numpy()
        if self.known[rows].all():
            return torch.from_numpy(self.answers[rows]).to(index.device, non_blocking=True)
        found = ask()
        self.answers[rows] = found.cpu().numpy()
        self.known[rows] = True  # after what it speaks of
        return found


def opened(file: Path, kind: type, size: tuple[int, ...]) -> np.memmap:
    """An array in a file, made with zeros where there is none."""
    with file.open(
        "ab"
    ) as new:  # of several processes all may do so; zeros take no room before they are written
        new.truncate(math.prod(size) * np.dtype(kind).itemsize)
    return np.memmap(file, dtype=kind, mode="r+", shape=size)
