"""The machine that will train, as far as a recipe cares."""

from __future__ import annotations

import os
from typing import NamedTuple


class Machine(NamedTuple):
    """`cores` that this process may use, `memory` in GB, and the GPU's name and memory in GB; "" and 0 without one.

    `minutes`: about how long training may take where there is no GPU.
    """

    cores: int
    memory: float
    gpu: str = ""
    gpu_memory: float = 0.0
    minutes: float = 30.0

    def words(self) -> str:
        gpu = f"{self.gpu}, {self.gpu_memory:.0f} GB" if self.gpu else "no GPU"
        return f"{self.words_of_cores()}, {self.memory:.0f} GB, {gpu}"

    def words_of_cores(self) -> str:
        return f"{self.cores} {'core' if self.cores == 1 else 'cores'}"


def this_machine(*, minutes: float = 30.0) -> Machine:
    """The one that runs this."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # Windows
        memory = 8.0
    if not torch.cuda.is_available():
        return Machine(cores, memory, minutes=minutes)
    properties = torch.cuda.get_device_properties(0)
    return Machine(cores, memory, properties.name, properties.total_memory / 2**30, minutes)
