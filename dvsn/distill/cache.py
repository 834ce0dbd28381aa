"""A teacher's answers on disk, for training pictures that are the same in every epoch."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.method import Shape
from dvsn.errors import ConfigError

SPREAD = 0x1E3779B97F4A7C15
"""An odd number whose multiples lie far apart among 64-bit words."""


class Answers:
    """A float32 answer for each of `samples` items, in two files of `folder`: `answers.bin`, and `pictures.bin`, which holds
    of each answered item a `digest` of the picture that was shown, 0 of the others.

    An item without an answer, or whose picture has become another, is asked for with its whole batch, and kept. Processes on
    one machine share the files; each writes what it has asked for. Raises `ConfigError` where the disk has too little room.
    """

    def __init__(self, folder: Path, samples: int, shape: Shape) -> None:
        self.folder, size = folder, (samples, *shape)
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = 4 * math.prod(size), shutil.disk_usage(folder).free
        if not (folder / "pictures.bin").is_file() and needed > free:
            raise ConfigError(
                f"distillation.cache: the answers to {samples:,} items need {needed:,} bytes, and {folder} has {free:,} "
                "free. Choose another disk, or leave the teacher to be asked every time."
            )
        self.answers = opened(folder / "answers.bin", np.float32, size)
        self.pictures = opened(folder / "pictures.bin", np.int64, (samples,))

    def __deepcopy__(self, _: Any) -> Answers:
        return self

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.pictures))

    def __call__(self, index: Tensor, shown: Tensor, ask: Callable[[], Tensor]) -> Tensor:
        """Of the items `index` (N,) with the pictures `shown` (N, ...) the answers (N, ...); `ask` gives those of the batch
        where one is not known."""
        rows, pictures = index.cpu().numpy(), digest(shown).cpu().numpy()
        if np.array_equal(self.pictures[rows], pictures):
            return torch.from_numpy(self.answers[rows]).to(index.device, non_blocking=True)
        found = ask()
        self.answers[rows] = found.cpu().numpy()
        self.pictures[rows] = pictures  # after what it speaks of
        return found


def digest(pictures: Tensor) -> Tensor:
    """A number other than 0 for each of the pictures (N, ...), (N,) int64, by which another picture is told: their bytes as
    64-bit words, each times an odd number of its own (Dietzfelbinger et al., 1997, multiply-shift hashing)."""
    data = pictures.contiguous().view(len(pictures), -1).view(torch.uint8)
    words = F.pad(data, (0, -data.shape[1] % 8)).view(torch.int64)
    factor = torch.arange(1, words.shape[1] + 1, device=words.device) * SPREAD
    factor = ((factor ^ (factor >> 29)) * SPREAD) | 1
    return (words * factor).sum(dim=1) | 1


def opened(file: Path, kind: type, size: tuple[int, ...]) -> np.memmap:
    """An array in a file, made with zeros where there is none."""
    with file.open(
        "ab"
    ) as new:  # of several processes all may do so; zeros take no room before they are written
        new.truncate(math.prod(size) * np.dtype(kind).itemsize)
    return np.memmap(file, dtype=kind, mode="r+", shape=size)
