"""A folder for each class: the layout of ImageNet, and the simplest one for pictures of your own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from dvsn.data.dataset import ImageDataset, split_names
from dvsn.data.files import JUNK, SUFFIXES, pictures_below, read_rgb, require_folder
from dvsn.data.folders import split_folder
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.types import Sample

TREE = """\
    ROOT/{train}/CLASS/NAME.jpg
    ROOT/{split}/CLASS/NAME.jpg     or, of a split called all, ROOT/CLASS/NAME.jpg
    One folder a class, of any name; below it pictures of any name, also in folders of their own."""


class ImageFolder(ImageDataset):
    """Pictures whose class is the folder that they lie in. Keys `photo` and `class`, a number.

    - A class has the number of its folder among the sorted folders of the split `classes_from` (of several splits joined by
      +, and of ranges, among all of theirs), in every split: a split that lacks a class does not shift the others.
    - `names` lists the folders in their order instead. Checkpoints carry it.
    - A folder that is not a class, and a class folder without a picture, raise `DataError`.
    - Items alternate between the classes: the first picture of each, the second of each, ...
    """

    gives: ClassVar[dict[str, str]] = {"photo": "photo", "class": "number"}
    takes_bands: ClassVar[bool] = True

    def __init__(
        self,
        *,
        root: str,
        split: str,
        names: Sequence[str] | None = None,
        classes_from: str = "train",
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        self.kinds = dict(self.gives)
        super().__init__(transform=transform, seed=seed)
        tree = TREE.format(train=split_names(classes_from)[0], split=split)
        base = require_folder(root, expected=tree, option="data.root")
        self.folder = require_folder(
            split_folder(base, split), expected=tree, option="data.root (or data.splits)"
        )
        origin = "those of data.dataset.names"
        if names is None:
            origin = f"the folders of the split '{classes_from}'"
            sources = [
                require_folder(
                    split_folder(base, part),
                    expected=tree,
                    option="data.root (or state the classes without it in data.dataset.names)",
                )
                for part in split_names(classes_from)
            ]
            names = sorted({name for source in sources for name in class_folders(source, tree)})
        if len(set(names)) != len(names):
            raise ConfigError("data.dataset.names: the same folder is named twice; expected each class once.")
        self.class_names = tuple(names)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        found: list[tuple[int, int, str]] = []
        for name in class_folders(self.folder, tree):
            if name not in numbers:
                raise DataError(
                    f"{self.folder / name}: no class of this name. {nearest(name, self.class_names)} The classes "
                    f"are {origin}."
                )
            pictures = sorted(pictures_below(self.folder / name, prefix=f"{name}/"))
            if not pictures:
                raise DataError(
                    f"{self.folder / name}: this class has no picture ({', '.join(sorted(SUFFIXES))}). Add some, or "
                    "remove the folder."
                )
            found += [(place, numbers[name], picture) for place, picture in enumerate(pictures)]
        found.sort()
        self.targets = np.array([number for _, number, _ in found])
        self.files = np.array([os.fsencode(file) for *_, file in found])  # one block, which workers share

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.files[index])

    def describe(self, index: int) -> str:
        return str(self.path(index))

    def photos(self, index: int) -> list[Path]:
        return [self.path(index)]

    def name(self, index: int) -> str:
        """The path below the split in one word, its ending included: two files may differ in it alone."""
        return os.fsdecode(self.files[index]).replace("/", "_").replace(".", "_")

    def read(self, index: int) -> Sample:
        return {"photo": read_rgb(self.path(index)), "class": int(self.targets[index])}


def class_folders(folder: Path, tree: str) -> list[str]:
    """The sorted names of the folders in a split; hidden ones are none. Raises `DataError` without any."""
    names = sorted(
        item.name
        for item in os.scandir(folder)
        if item.is_dir() and not item.name.startswith(".") and item.name not in JUNK
    )
    if not names:
        loose = sum(1 for item in os.scandir(folder) if Path(item.name).suffix.lower() in SUFFIXES)
        raise DataError(
            f"{folder}: found no class folder{f', but {loose} pictures' if loose else ''}. Expected this tree:\n{tree}"
        )
    return names
