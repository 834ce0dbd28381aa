"""What readers of objects share that have a file of annotations a picture: YOLO's text and VOC's XML."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dvsn.data.class_ids import distinct_palette
from dvsn.data.objects import Annotation, ObjectDataset, inside
from dvsn.errors import ConfigError, DataError
from dvsn.types import Sample, Vocabulary

log = logging.getLogger(__name__)


class ListedObjects(ObjectDataset):
    """Pictures, each with the objects of its own file, read when the set is opened.

    `names` are the classes by label from 1 on, as the configuration has them. A reader calls `_take` once.
    """

    in_memory = True

    def __init__(
        self,
        *,
        classes: int,
        names: Mapping[int, str],
        masks: bool,
        transform: Callable[[Sample, int], Sample] | None,
        seed: int,
    ) -> None:
        super().__init__(classes=classes, masks=masks, transform=transform, seed=seed)
        if set(names) != set(range(1, classes)):
            raise ConfigError(
                f"data.objects.names: found the labels {sorted(names)[:8]}, expected 1 to {classes - 1}: "
                "data.object_classes counts them and the background."
            )
        self.categories = dict(sorted(names.items()))

    def _take(
        self, pictures: list[Path], sizes: list[tuple[int, int]], objects: list[list[Annotation]], where: Path
    ) -> None:
        """Everything of a split, picture by picture; `where` is what messages name."""
        if not pictures:
            raise DataError(f"{where}: no picture in it. Expected one or more.")
        self.file, self._sizes, self._objects = where, sizes, objects
        self._set_pictures(pictures)
        self.image_ids = list(range(1, len(pictures) + 1))
        number = 0
        for image_id, found in zip(self.image_ids, objects, strict=True):
            for each in found:
                number += 1
                each |= {"id": number, "image_id": image_id}
        outside = [
            (index, each)
            for index, found in enumerate(objects)
            for each in found
            if inside(each["bbox"], sizes[index]) is None
        ]
        if outside:
            index, first = outside[0]
            log.warning(
                "%s: %d boxes are left out of training, the first in %s: found %s, expected an area within its picture",
                where, len(outside), pictures[index], first["bbox"],
            )  # fmt: skip
        lacking = [
            index
            for index, found in enumerate(objects)
            if any(not each.get("segmentation") for each in found)
        ]
        if self.masks and lacking:
            raise DataError(
                f"{self.describe(lacking[0])}: has objects without an outline, and {len(lacking) - 1} more pictures. Train "
                "without masks: network.detector=faster_rcnn."
            )

    def truth(self, index: int) -> list[Annotation]:
        return self._objects[index]

    def size(self, index: int) -> tuple[int, int]:
        return self._sizes[index]

    @classmethod
    def vocabulary(cls, *, classes: int, names: Mapping[int, str], **_: object) -> Vocabulary:
        """The background and the names, by the options alone."""
        words = tuple(names.get(label, f"class {label}") for label in range(classes))
        return Vocabulary(("background", *words[1:]), distinct_palette(classes))


def annotation(label: int, box: tuple[float, float, float, float], **more: Any) -> Annotation:
    """An object by its label and its box x1, y1, x2, y2, in COCO's form; `id` and `image_id` come later."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    found = {"category_id": label, "bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}
    return found | more
