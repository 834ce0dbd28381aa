"""Several data sets of one task as one training split, each with its ratio."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dvsn.config.build import options_of
from dvsn.config.types import number
from dvsn.data.dataset import ImageDataset
from dvsn.data.samplers import draw
from dvsn.errors import ConfigError, DataError, nearest

KEYS = ("root", "split", "ratio", "options", "reader", "unlabelled")
Reader = Callable[..., ImageDataset]


class Source(NamedTuple):
    """A further data set to train on."""

    root: str
    split: str
    """Its own name of what is trained on."""
    ratio: float | None
    """Samples of it an epoch for each of the first set; None: each of its own once."""
    reader: Reader
    unlabelled: bool = False
    """Whether it is any pictures, without labels."""


def read_sources(more: Sequence[Any], reader: Reader | None, *, split: str, kind: str) -> list[Source]:
    """The entries of `data.more`, which have the reader of the first set with other `options`, or a `reader` of their own.

    Raises `ConfigError` for an entry without a folder, an unknown key or option, and a ratio that is none.
    """
    found = []
    for place, entry in enumerate(more):
        path = f"data.more.{place}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("root"), str):
            raise ConfigError(
                f"{path}: found {entry!r}, expected a mapping with a root, such as {{root: FOLDER, ratio: 0.5}}."
            )
        for key in entry:
            if key not in KEYS:
                raise ConfigError(f"{path}.{key}: unknown key. {nearest(str(key), KEYS)}")
        ratio = entry.get("ratio")
        if ratio is not None and not (number(ratio) and 0 < ratio < math.inf):
            raise ConfigError(
                f"{path}.ratio: found {ratio!r}, expected a number above 0, or null for each sample once."
            )
        if not isinstance(entry.get("unlabelled", False), bool):
            raise ConfigError(f"{path}.unlabelled: found {entry['unlabelled']!r}, expected true or false.")
        own = entry.get("reader") or reader
        if not callable(own):
            raise ConfigError(
                f"{path}.reader: expected a node with _target_ and _partial_: true, as data.{kind} of data sets."
            )
        options = dict(entry.get("options") or {})
        kind_options = options_of(own.func) if isinstance(own, functools.partial) else None  # type: ignore[arg-type]
        known = options if kind_options is None else kind_options.named
        for key in options:
            if key not in known:
                raise ConfigError(
                    f"{path}.options.{key}: data.{kind} has no such option. {nearest(key, known)}"
                )
        own = functools.partial(own, **options) if options else own
        found.append(
            Source(entry["root"], str(entry.get("split") or split), ratio, own, bool(entry.get("unlabelled")))
        )
    return found


def words_of(reader: Any) -> tuple[str, ...]:
    """The classes that a reader's options name; empty where they name none."""
    tell = getattr(getattr(reader, "func", None), "vocabulary", None)
    found = None if tell is None else tell(**reader.keywords)
    return () if found is None else tuple(found.names)


def require_alike(first: ImageDataset, other: ImageDataset, source: Source, reader: Reader) -> None:
    """Raise for a further set whose samples do not mean the same as those of the first: `ConfigError` for other classes,
    `DataError` for other kinds of arrays."""
    mine = words_of(reader) or tuple(getattr(first, "class_names", ()))
    theirs = words_of(source.reader) or tuple(getattr(other, "class_names", ()))
    if mine != theirs:
        only = [f"'{name}'" for name in theirs if name not in mine]
        only = only or [f"no '{name}'" for name in mine if name not in theirs] or ["another order"]
        raise ConfigError(
            f"data.more: {source.root} has other classes than data.root: {', '.join(only[:8])}. Expected "
            f"{', '.join(mine[:12])}. Set options of its reader, such as id_map."
        )
    if first.kinds != other.kinds:
        raise DataError(f"{source.root}: has {other.kinds}, expected {first.kinds}, as data.root.")
    for key, table in first.palettes.items():
        if key not in other.palettes or not np.array_equal(table, other.palettes[key]):
            raise DataError(f"{source.root}: '{key}' has other colours than that of data.root.")


class Ratios:
    """Which items of joined sets an epoch holds: of each its count, all of them in a random order, again and again."""

    def __init__(self, sizes: Sequence[int], ratios: Sequence[float | None]) -> None:
        self.starts = np.cumsum([0, *sizes[:-1]]).tolist()
        self.sizes = list(sizes)
        first = sizes[0]
        self.counts = [first] + [
            size if ratio is None else max(1, round(ratio * first))
            for size, ratio in zip(sizes[1:], ratios, strict=True)
        ]

    @property
    def length(self) -> int:
        return sum(self.counts)

    def order(self, epoch: int, seed: int) -> np.ndarray:
        """The items of an epoch (length,), a function of the two alone.

        Of a set that has more items than its count, following epochs go on in its shuffled order, so that all have a turn.
        """
        random = draw(seed, epoch)
        parts = [start + self._of_one(number, epoch, seed) for number, start in enumerate(self.starts)]
        return random.permutation(np.concatenate(parts))

    def _of_one(self, number: int, epoch: int, seed: int) -> np.ndarray:
        size, count = self.sizes[number], self.counts[number]
        first = epoch * count
        rounds = range(first // size, (first + count - 1) // size + 1)
        shuffled = [np.random.default_rng([seed, number, turn]).permutation(size) for turn in rounds]
        begin = first - rounds[0] * size
        return np.concatenate(shuffled)[begin : begin + count]


def told(sources: Sequence[Source], root: str | Path, counts: Sequence[int]) -> str:
    """The samples of an epoch by set, in words."""
    roots = [str(root), *(source.root for source in sources)]
    return ", ".join(f"{count} of {each}" for count, each in zip(counts, roots, strict=True))
