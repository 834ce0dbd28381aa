"""Cityscapes, straight from its published tree."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, get_args

import cv2
import numpy as np

from dvsn.data.cityscapes_labels import (
    CLASS_NAMES,
    FILE_IDS,
    IGNORE,
    LABELS,
    PALETTE,
    TRAIN_ID_OF,
    TRAIN_PALETTE,
)
from dvsn.data.class_ids import ClassIds
from dvsn.data.dataset import ImageDataset
from dvsn.data.files import read_colors, read_labels, read_rgb, require_folder
from dvsn.data.files import unique_names as unique
from dvsn.data.labelled import listed_pairs
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.types import Sample, Vocabulary

TREE = """\
    ROOT/leftImg8bit/{train,val,test}/CITY/CITY_000000_000019_leftImg8bit.png
    ROOT/gtFine/{train,val,test}/CITY/CITY_000000_000019_gtFine_color.png
                                      CITY_000000_000019_gtFine_labelIds.png
                                      CITY_000000_000019_gtFine_instanceIds.png"""

Labels = Literal["color", "painted", "ids", "train_ids", "classes", "parts"]

FILES = {
    "color": ("color", "labelIds"),
    "painted": ("labelIds",),
    "ids": ("labelIds",),
    "train_ids": ("labelTrainIds", "labelIds"),
    "classes": ("labelIds", "labelTrainIds"),
    "parts": ("partIds",),
}
"""The label files that can serve each choice, the preferred one first."""

ADVICE = "The ids lie in the files _labelIds.png and _labelTrainIds.png; colours are for data.dataset.labels=color alone."

_ENDING = re.compile(r"_(color|labelIds|labelTrainIds|instanceIds|partIds)\.png$")


class Cityscapes(ImageDataset):
    """Street scenes of 50 cities, 1024x2048: 2,975 train, 500 val, 1,525 test (Cordts et al., 2016).

    A sample: `photo` (H, W, 3) uint8 RGB; `label`; with `instances` also `instance` (H, W) int32 ids. Labels:

    - "color": (H, W, 3) RGB of the `_color` file, its alpha dropped; painted from `_labelIds` where that is
      missing;
    - "painted": the same picture painted from `_labelIds` after the transform, which saves most of its
      decoding;
    - "ids": (H, W) label ids 0..33; "train_ids": 0..18 and 255, from `_labelTrainIds` or mapped from
      `_labelIds`;
    - "classes": (H, W) ids of the 19 evaluated classes, 255 elsewhere, mapped from `_labelIds`, or read from
      `_labelTrainIds` where only these exist (the two differ in a few pixels). Any id outside 0..33, or outside
      0..18 and 255 in train-id files, is an error unless it is one of `ignore_ids`;
    - "parts": (H, W) ids of `dvsn.data.street_parts.PARTS`, of the embedded scenes alone.

    Files are listed from the folders, sorted by name; or read from `list_file`, one "photo label" a line, relative to
    `root`, with `{split}` for the split's name. Of the label file in a line the sibling of the wanted kind is read. Label
    files of the test split are placeholders.
    """

    gives: ClassVar[dict[str, str]] = {"photo": "photo", "label": "label"}
    takes_bands: ClassVar[bool] = True

    def __init__(
        self,
        *,
        root: str,
        split: str,
        labels: Labels = "color",
        instances: bool = False,
        list_file: str | None = None,
        ignore_ids: Sequence[int] = (),
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        if labels not in FILES:
            raise ConfigError(
                f"data.dataset.labels: found '{labels}'. {nearest(str(labels), get_args(Labels))}"
            )
        self.kinds = self.gives | ({"instance": "label"} if instances else {})
        self.palettes = {"label": PALETTE} if labels == "painted" else {}
        super().__init__(transform=transform, seed=seed)
        self.root = require_folder(root, expected=TREE, option="data.root")
        self.labels = labels
        self.class_ids = class_ids(ignore_ids)
        listed = self._list(split) if list_file is None else listed_pairs(self.root, list_file, split)
        exists = lru_cache(maxsize=None)(_names)
        self.items = [(photo, *self._siblings(photo, label, exists)) for photo, label in listed]
        self.names = unique(photo for photo, *_ in self.items)

    @classmethod
    def vocabulary(cls, **_: object) -> Vocabulary:
        """The 19 evaluated classes, in the order of their train ids, whatever the options."""
        palette = tuple(map(tuple, TRAIN_PALETTE[: len(CLASS_NAMES)].tolist()))
        return Vocabulary(CLASS_NAMES, palette, file_ids=FILE_IDS)

    def __len__(self) -> int:
        return len(self.items)

    def describe(self, index: int) -> str:
        return " + ".join(str(path) for path in self.items[index] if path is not None)

    def photos(self, index: int) -> list[Path]:
        return [self.items[index][0]]

    def name(self, index: int) -> str:
        return self.names[index]

    def read_label(self, index: int, name: str) -> np.ndarray:
        return self._read_label(self.items[index][1]) if name == "label" else super().read_label(index, name)

    def read(self, index: int) -> Sample:
        photo, label, instance = self.items[index]
        sample = {"photo": read_rgb(photo), "label": self._read_label(label)}
        return sample if instance is None else sample | {"instance": read_labels(instance).astype(np.int32)}

    def _read_label(self, path: Path) -> np.ndarray:
        if self.labels == "classes":
            kind = path.stem.rpartition("_")[2]
            return self.class_ids[kind](read_labels(path, advice=ADVICE), path)
        from_ids = path.name.endswith("_labelIds.png")
        if self.labels == "color" and not from_ids:
            return read_colors(path)
        ids = read_labels(path)
        if self.labels == "parts":
            return ids  # against the number of parts the transform checks them
        check_ids(ids, path, highest=33 if from_ids or self.labels != "train_ids" else len(CLASS_NAMES) - 1)
        ids = ids.astype(np.uint8, copy=False)
        if self.labels == "color":
            return PALETTE[ids]
        return cv2.LUT(ids, TRAIN_ID_OF) if self.labels == "train_ids" and from_ids else ids

    def _list(self, split: str) -> list[tuple[Path, Path]]:
        """Every photo of a split, and the label file that stands for its siblings."""
        photos = require_folder(self.root / "leftImg8bit", expected=TREE, option="data.root")
        folder = require_folder(photos / split, expected=TREE, option="data.root")
        pairs = []
        for photo in sorted(folder.glob("*/*_leftImg8bit.png")):
            if not photo.name.startswith("."):
                stem = photo.name.removesuffix("_leftImg8bit.png")
                pairs.append(
                    (photo, self.root / "gtFine" / split / photo.parent.name / f"{stem}_gtFine_color.png")
                )
        if not pairs:
            raise DataError(
                f"{folder}: no CITY/*_leftImg8bit.png below this folder. Expected this tree:\n{TREE}"
            )
        return pairs

    def _siblings(
        self, photo: Path, label: Path, names: Callable[[Path], frozenset[str]]
    ) -> tuple[Path, Path | None]:
        """The label file and the instance file to read, or a `DataError` if the photo has none."""
        named = _ENDING.search(label.name) is not None
        if self.labels == "classes" and not named:
            raise DataError(
                f"{label}: its name does not say what its ids are; expected an ending of Cityscapes, such as "
                "_labelIds.png (0..33) or _labelTrainIds.png (0..18 and 255). For files of other names use "
                "data=segmentation, with data.dataset.list_file and id_map."
            )
        wanted = (
            [_ENDING.sub(f"_{kind}.png", label.name) for kind in FILES[self.labels]]
            if named
            else [label.name]
        )
        found = next((label.with_name(name) for name in wanted if name in names(label.parent)), None)
        if found is None:
            raise DataError(
                f"{photo}: its label file is missing: {label.parent}/{' or '.join(wanted)}. Expected this "
                f"tree:\n{TREE}"
            )
        if photo.name not in names(photo.parent):
            raise DataError(f"{photo}: no such file, although {found} is there. Expected this tree:\n{TREE}")
        if "instance" not in self.kinds:
            return found, None
        instance = label.with_name(_ENDING.sub("_instanceIds.png", label.name))
        if instance.name not in names(label.parent):
            raise DataError(
                f"{photo}: its instance file is missing: {instance}. Set data.dataset.instances=false."
            )
        return found, instance


def class_ids(ignore_ids: Sequence[int] = ()) -> dict[str, ClassIds]:
    """By kind of file: what its ids mean."""
    kept = {each: each for each in range(len(CLASS_NAMES))}
    return {
        "labelIds": ClassIds(
            {label.id: label.train_id for label in LABELS if label.id >= 0},
            kind="label ids (0..33)",
            names=CLASS_NAMES,
            ignore_ids=ignore_ids,
            advice="If these are train ids, the file's name should end in _labelTrainIds.png.",
        ),
        "labelTrainIds": ClassIds(
            kept | {IGNORE: IGNORE},
            kind="train ids (0..18 and 255)",
            names=CLASS_NAMES,
            ignore_ids=ignore_ids,
            advice="If these are label ids, the file's name should end in _labelIds.png.",
        ),
    }


def check_ids(ids: np.ndarray, path: Path, *, highest: int) -> None:
    """Refuse ids above `highest`, other than 255, since they mean another kind of file."""
    if ids.max() <= highest:
        return
    wrong = ids[(ids > highest) & (ids != IGNORE)]
    if wrong.size:
        kind = "train ids (0..18 and 255)" if highest < 33 else "label ids (0..33)"
        values = ", ".join(map(str, np.unique(wrong)[:5]))
        raise DataError(
            f"{path}: {wrong.size} pixels hold ids outside {kind}: {values}. Is it another kind of file?"
        )


def _names(folder: Path) -> frozenset[str]:
    """One look into a folder answers for all its files."""
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()
