"""A task asked about a stream of frames: what every `dvsn.predict.NAME` has, and what they share."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dvsn.errors import ConfigError
from dvsn.portable.frame import Frame
from dvsn.portable.result import Result

Item = TypeVar("Item")
Options = Mapping[str, Any]
"""By name, as `dvsn.predict.options.COMMAND` has them, and `inference`: see `asked_otherwise`."""


class Predictor(ABC):
    """Frames in, a `Result` for each out, in their order; batches are made inside, and no more than that is kept.

    `sources` are the files that will come, where they are known: their names and order give COCO's numbers of pictures, see
    `dvsn.predict.person_boxes.picture_ids`. It may be called several times; each stream is one by itself.
    """

    def __init__(self, task: Any, options: Options, device: str, sources: Sequence[Path] = ()) -> None:
        self.task, self.options, self.device, self.sources = task, options, device, list(sources)
        self.batch_size = int(options["batch_size"])

    @property
    def reads(self) -> str:
        """What a frame's picture must be: see `reads_of`."""
        return reads_of(self.task)

    @abstractmethod
    def __call__(self, frames: Iterable[Frame]) -> Iterator[Result]: ...


def reads_of(task: Any) -> str:
    """What pictures a task is asked about: `photo` (RGB), or `ids`, maps of class ids."""
    return "ids" if task.shows == "pictures" and task.input_classes > 0 else "photo"


@contextmanager
def random_kept() -> Iterator[None]:
    """Within it random numbers may be seeded; afterwards those of the caller go on where they were."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        torch.set_rng_state(state[2])
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)


@contextmanager
def replaced(task: Any, **values: Any) -> Iterator[None]:
    """Within it the task has other attributes."""
    before = {name: getattr(task, name) for name in values}
    for name, value in values.items():
        setattr(task, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(task, name, value)


def grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last perhaps shorter."""
    group: list[Item] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def find_device(wanted: str) -> str:
    """The device by name; `auto` is the GPU if there is one. Raises `ConfigError` where it cannot be used."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted).item()
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"device: '{wanted}' cannot be used here: {reason} Expected auto, cpu, cuda, cuda:1 or mps."
        ) from error
    return wanted
