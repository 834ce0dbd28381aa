"""A check that memory banks fit, before they are allocated."""

from __future__ import annotations

import math
import os

import torch

from dvsn.errors import ConfigError


def reserve(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> int:
    """The bytes of banks of these shapes. Raises `ConfigError` where the GPU, or without one the machine, has fewer."""
    needed = sum(map(math.prod, shapes)) * dtype.itemsize
    if torch.cuda.is_available():
        free, what = torch.cuda.mem_get_info()[0], "free on the GPU"
    else:
        free, what = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "of memory in this machine"
    if needed > free:
        raise ConfigError(
            f"its memory banks need {needed:,} bytes ({needed / 2**30:.1f} GiB), and there are {free:,} bytes {what}. Lower "
            "the width or the number of what it holds (in its YAML), use fewer items (data.train_samples), or choose a "
            "method without banks."
        )
    return needed
