"""Which classes the items of a data set hold, from their labels alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from dvsn.data.dataset import ImageDataset
from dvsn.data.objects import ObjectDataset
from dvsn.errors import ConfigError

log = logging.getLogger("dvsn")
SAID_AFTER = 5.0  # seconds


class Holdings:
    """The classes of each item: of whole pictures their class, of label maps the classes of their pixels, of objects those
    of their boxes. `label` is the array of `read` that holds the classes; `names` are the classes in their order.

    Label maps are read from the disk, when a table is asked for.
    """

    def __init__(self, dataset: ImageDataset, *, label: str, names: Sequence[str]) -> None:
        self.dataset, self.label, self._names = dataset, label, tuple(names)

    @property
    def names(self) -> tuple[str, ...]:
        """Raises `ConfigError` for a data set whose items hold no classes."""
        if not self._names:
            raise ConfigError(
                f"sampler: {type(self.dataset).__name__} has no classes by which samples could be chosen. Set "
                "sampler=null, or sampler=hard, which needs none."
            )
        return self._names

    def table(self, size: int) -> np.ndarray:
        """(size, K) bool: whether each of the first items holds each class."""
        held = np.zeros((size, len(self.names)), bool)
        targets = getattr(self.dataset, "targets", None)
        if targets is not None:
            held[np.arange(size), np.asarray(targets)[:size]] = True
            return held
        began, said = time.monotonic(), False
        for index in range(size):
            held[index] = self._of_item(index)
            if not said and time.monotonic() - began > SAID_AFTER:
                said = True
                log.info("sampler: reading %d labels once, for the classes that they hold", size)
        return held

    def _of_item(self, index: int) -> np.ndarray:
        """(K,) bool of one item."""
        count = len(self.names)
        if isinstance(self.dataset, ObjectDataset):
            labels = [each["category_id"] for each in self.dataset.trained(index) if not each["iscrowd"]]
            ids = np.asarray(labels, np.int64) - 1  # label 0 is the background, which no object has
        else:
            with self.dataset.ruled():
                ids = self.dataset.read_label(index, self.label).ravel()
        return np.bincount(ids, minlength=count)[:count] > 0
