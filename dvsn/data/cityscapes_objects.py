"""Objects of Cityscapes, read off its instance files: eight classes, boxes and masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from dvsn.data.cityscapes import TREE, class_ids
from dvsn.data.cityscapes_labels import LABELS
from dvsn.data.files import read_labels, require_folder
from dvsn.data.objects import Annotation, ObjectDataset
from dvsn.errors import ConfigError, DataError
from dvsn.types import Sample, Vocabulary

CLASSES = tuple(label for label in LABELS if label.has_instances and label.train_id != 255)
LABEL_OF = {label.id: number for number, label in enumerate(CLASSES, 1)}


class CityscapesObjects(ObjectDataset):
    """Objects of a Cityscapes tree, the street scenes' too (Cordts et al., 2016, arXiv:1604.01685).

    The `_instanceIds` files hold 1000 * label id + number for a single object and the plain label id for a group,
    which becomes a crowd. Labels are 1 person, 2 rider, 3 car, 4 truck, 5 bus, 6 train, 7 motorcycle, 8 bicycle:
    the classes that are evaluated. An object's box is that of its visible pixels.

    Objects of fewer than `smallest` pixels become crowd regions: not trained on, and ignored by the score. 100 is what
    Cityscapes' own evaluation of instances has at 1024x2048; 0 counts them all.

    With `stuff` also the class of each pixel, the 19 evaluated ones and 255, off the `_labelIds` files.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        classes: int = 1 + len(CLASSES),
        smallest: int = 100,
        masks: bool = False,
        stuff: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(classes=classes, masks=masks, transform=transform, seed=seed)
        if classes != 1 + len(CLASSES):
            raise ConfigError(
                f"data.object_classes: found {classes}, but Cityscapes has {len(CLASSES)} classes of objects and the "
                f"background. Set data.object_classes={1 + len(CLASSES)}."
            )
        if smallest < 0:
            raise ConfigError(f"data.objects.smallest: found {smallest}, expected 0 or more pixels.")
        self.smallest, self.reads_stuff = smallest, stuff
        self.categories = {number: label.name for number, label in enumerate(CLASSES, 1)}
        place = require_folder(root, expected=TREE, option="data.root")
        photos = require_folder(place / "leftImg8bit" / split, expected=TREE, option="data.root")
        found = sorted(p for p in photos.glob("*/*_leftImg8bit.png") if not p.name.startswith("."))
        if not found:
            raise DataError(f"{photos}: no CITY/*_leftImg8bit.png below it. Expected this tree:\n{TREE}")
        self._set_pictures(found)
        self.files = [self._labels(place / "gtFine" / split, photo, "instanceIds") for photo in found]
        self._stuff = [self._labels(place / "gtFine" / split, photo, "labelIds") for photo in found if stuff]
        self.image_ids = list(range(1, len(found) + 1))
        self._known: dict[int, tuple[list[Annotation], tuple[int, int]]] = {}

    @classmethod
    def vocabulary(cls, **_: object) -> Vocabulary:
        """The background and the eight classes, in the order of their labels."""
        names = ("background", *(label.name for label in CLASSES))
        return Vocabulary(names, ((0, 0, 0), *(label.color for label in CLASSES)))

    @staticmethod
    def _labels(folder: Path, photo: Path, kind: str) -> Path:
        file = folder / photo.parent.name / photo.name.replace("_leftImg8bit.png", f"_gtFine_{kind}.png")
        if not file.is_file():
            raise DataError(f"{photo}: its {kind} file is missing: {file}. Expected this tree:\n{TREE}")
        return file

    def describe(self, index: int) -> str:
        return f"{self.pictures[index]} + {self.files[index]}"

    def stuff(self, index: int) -> np.ndarray | None:
        if not self._stuff:
            return None
        return class_ids()["labelIds"](read_labels(self._stuff[index]), self._stuff[index])

    def truth(self, index: int) -> list[Annotation]:
        return self._objects(index)[0]

    def size(self, index: int) -> tuple[int, int]:
        return self._objects(index)[1]

    def _objects(self, index: int) -> tuple[list[Annotation], tuple[int, int]]:
        """The objects of a picture, decoded once and kept, with masks as run lengths."""
        if index not in self._known:
            ids = read_labels(self.files[index]).astype(np.int32)
            self._known[index] = self._annotations(ids, self.files[index]), (ids.shape[0], ids.shape[1])
        return self._known[index]

    def _annotations(self, ids: np.ndarray, file: Path) -> list[Annotation]:
        found = []
        for value in np.unique(ids).tolist():
            single = value >= 1000
            label = value // 1000 if single else value
            if label > 33 or value < 0:
                raise DataError(
                    f"{file}: found the instance id {value}; expected label ids (0..33), or 1000 times one plus a number."
                )
            if label not in LABEL_OF:
                continue
            code = rle.encode(np.asfortranarray(ids == value))
            area = int(rle.area(code))
            found.append(
                {
                    "id": value,
                    "bbox": [float(side) for side in rle.toBbox(code)],
                    "category_id": LABEL_OF[label],
                    "area": float(area),
                    "iscrowd": int(not single or area < self.smallest),
                    "segmentation": code,
                }
            )
        return found
