"""What every dataset shares: one item from file to sample, seeded by item, and errors that name the files."""

from __future__ import annotations

import bisect
import contextlib
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from dvsn.data.files import Rule, read_by
from dvsn.errors import ConfigError, DataError, UserError
from dvsn.types import Sample


class ImageDataset(Dataset[Sample]):
    """A dataset of pictures that belong together. A reader says how many there are and how one is read.

    `kinds` names the arrays of `read` and what they are: a "photo" is interpolated and may be recoloured, a
    "label" is neither, ever; a "number", such as the class of a whole picture, is an int that no step sees.
    `palettes` holds, for a label that `read` gives as ids but the network shall see as colours, its (256, 3)
    uint8 table: painting after the resize gives the same picture for a fraction of the work.

    `dataset[i]` and `dataset[epoch, i]` give an item; a plain index means epoch 0. The random numbers of the
    transform depend on (seed, epoch, index) and on nothing else, so workers differ and runs repeat.
    """

    kinds: dict[str, str]
    palettes: dict[str, np.ndarray]
    rule: Rule | None = None
    """How its pictures are read; None: by the rule in force."""
    takes_bands: ClassVar[bool] = False
    """Whether one of its pictures may have other bands than red, green and blue: the one called `banded`."""
    banded: str = "photo"
    mix: Any = None
    """What joins an item with others (`dvsn.data.mixes.SampleMix`), in training; None: nothing."""

    def __init__(self, *, transform: Callable[[Sample, int], Sample] | None = None, seed: int = 0) -> None:
        if seed < 0:
            raise ConfigError(f"seed: found {seed}, expected 0 or more.")
        self.transform, self.seed = transform, seed
        self.palettes = getattr(self, "palettes", {})
        check = getattr(transform, "check", None)
        if check is not None:
            check(self.kinds)  # a pair that this dataset cannot serve is refused before any file is opened

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int) -> Sample:
        """The decoded arrays: photos (H, W, 3) uint8 RGB, or (H, W, N) of the rule's bands; labels (H, W, 3) uint8 RGB or
        (H, W) ids."""
        raise NotImplementedError

    def read_at(self, epoch: int, index: int) -> Sample:
        """`read` in an epoch, of data sets whose items differ from one to the next."""
        return self.read(index)

    def describe(self, index: int) -> str:
        """The files of an item, for messages."""
        raise NotImplementedError

    def photos(self, index: int) -> list[Path]:
        """The files of an item that hold photos, as far as they are files."""
        return []

    def banded_photo(self, index: int) -> Path:
        """The file of the picture of an item that the rule's bands are of."""
        return self.photos(index)[0]

    def read_label(self, index: int, name: str) -> np.ndarray:
        """The array `name` of `read`, alone, so that readers can leave the photo out."""
        array: np.ndarray = self.read(index)[name]
        return array

    def ruled(self) -> contextlib.AbstractContextManager[Any]:
        """Within it pictures are read by the rule of this dataset."""
        return contextlib.nullcontext() if self.rule is None else read_by(self.rule)

    def name(self, index: int) -> str:
        """A file stem, unique in the dataset, for pictures made from this item."""
        raise NotImplementedError

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        epoch, index = operator.index(epoch), operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of a dataset with {len(self)} items")
        index %= len(self)
        try:
            with self.ruled():
                sample = self.read_at(epoch, index) if self.mix is None else self.mix.read(self, epoch, index)
            pictures = [name for name, kind in self.kinds.items() if kind != "number"]
            check_sizes({name: sample[name] for name in pictures if name in sample})
            sample |= {"index": index, "name": self.name(index)}
            if self.transform is None:
                return sample | {name: table[sample[name]] for name, table in self.palettes.items()}
            sample |= {"kinds": self.kinds, "palettes": self.palettes}
            return self.transform(sample, item_seed(self.seed, epoch, index))
        except UserError as error:
            files = self.describe(index)
            if any(part in str(error) for part in files.split(" + ")):
                raise
            raise type(error)(f"{files}: {error}") from error
        except Exception as error:
            raise DataError(f"{self.describe(index)}: {type(error).__name__}: {error}") from error


class Joined(ImageDataset):
    """Several splits of one data set, or ranges of them, one after the other: such as train and val before a test
    submission, or the first nine tenths of train. `places` are the items of each part, in their order; None: all."""

    def __init__(self, parts: Sequence[ImageDataset], places: Sequence[Sequence[int]] | None = None) -> None:
        first = parts[0]
        self.kinds, self.palettes = first.kinds, first.palettes
        super().__init__(transform=first.transform, seed=first.seed)
        self.parts = list(parts)
        self.places: list[Sequence[int]]
        self.places = [range(len(part)) for part in parts] if places is None else list(places)
        for name in ("collate", "class_names", "highest_deep"):
            if hasattr(first, name):
                setattr(self, name, getattr(first, name))
        if all(hasattr(part, "targets") for part in parts):  # a class for each item
            chosen = zip(parts, self.places, strict=True)
            self.targets = np.concatenate([part.targets[np.asarray(each, int)] for part, each in chosen])  # type: ignore[attr-defined]
        counts = [len(each) for each in self.places]
        self.starts = [sum(counts[:number]) for number in range(len(counts))]

    def __len__(self) -> int:
        return sum(map(len, self.places))

    def at(self, index: int) -> tuple[ImageDataset, int]:
        """The part that an item lies in, and its number there."""
        number = bisect.bisect_right(self.starts, index) - 1
        return self.parts[number], self.places[number][index - self.starts[number]]

    def read(self, index: int) -> Sample:
        part, place = self.at(index)
        return part.read(place)

    def read_at(self, epoch: int, index: int) -> Sample:
        part, place = self.at(index)
        return part.read_at(epoch, place)

    def describe(self, index: int) -> str:
        part, place = self.at(index)
        return part.describe(place)

    def photos(self, index: int) -> list[Path]:
        part, place = self.at(index)
        return part.photos(place)

    def banded_photo(self, index: int) -> Path:
        part, place = self.at(index)
        return part.banded_photo(place)

    def read_label(self, index: int, name: str) -> np.ndarray:
        part, place = self.at(index)
        return part.read_label(place, name)

    def name(self, index: int) -> str:
        part, place = self.at(index)
        return part.name(place)


PART = re.compile(r"(?P<name>[^\[\]]+)\[(?:(?P<first>\d{1,3})%)?:(?:(?P<last>\d{1,3})%)?\]")


def split_parts(text: str) -> list[tuple[str, int, int]]:
    """`data.splits` as (split, first percent, last percent): `train+val`, or `train[:90%]` and `train[90%:]`."""
    found = []
    for part in text.split("+"):
        match = PART.fullmatch(part)
        name, first, last = part, 0, 100
        if match:
            name, first, last = match["name"], int(match["first"] or 0), int(match["last"] or 100)
        if "[" in name or "]" in name or not 0 <= first < last <= 100:
            raise ConfigError(
                f"data.splits: found '{part}', expected the name of a split, or a range of one in percent, such as "
                "train[:90%] and train[90%:]."
            )
        found.append((name, first, last))
    return found


def split_names(text: str) -> list[str]:
    """The data set's own names in `data.splits`, each once, whatever the ranges."""
    return list(dict.fromkeys(name for name, _, _ in split_parts(text)))


def item_seed(seed: int, epoch: int, index: int) -> int:
    """32 bits that depend on all three numbers."""
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1)[0])


def check_sizes(arrays: dict[str, Any]) -> None:
    """Pictures that belong together must have one size; a `DataError` lists the sizes (H x W) otherwise."""
    sizes = {name: array.shape[:2] for name, array in arrays.items()}
    if len(set(sizes.values())) <= 1:
        return
    listed = ", ".join(f"{name} is {height}x{width}" for name, (height, width) in sizes.items())
    turned = len({tuple(sorted(size)) for size in sizes.values()}) == 1
    hint = " (one is turned: photos are read as stored, an EXIF rotation is not applied)" if turned else ""
    raise DataError(
        f"the pictures of this pair differ in size (height x width): {listed}{hint}. Expected one size."
    )
