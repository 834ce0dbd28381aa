"""What every reader of objects shares, and COCO's: a picture, and the boxes, classes and masks in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle

from dvsn.data.class_ids import distinct_palette
from dvsn.data.coco_files import check_ids, first_present, list_pictures, read_coco, table
from dvsn.data.dataset import ImageDataset
from dvsn.data.files import read_rgb, require_file, unique_names
from dvsn.data.people import require_pictures
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.types import Batch, Sample, Vocabulary

log = logging.getLogger(__name__)
Annotation = dict[str, Any]


class ObjectDataset(ImageDataset):
    """Pictures with the objects in them; readers fill `pictures` and `image_ids` and tell `truth`.

    An item is `photo`, `boxes` (n, 4) float32, `labels` (n,) int64, `crowd` (n,) uint8, `area` (n,) float32 and, with
    `masks`, `masks` (n, H, W) uint8 of 0 and 1. A box is x1, y1, x2, y2 by its outer edges, as COCO has it: a
    picture spans 0 to W, and the box of a mask's single pixel has the width 1. Label 0 is the background and never
    given. `crowd` marks regions of many objects: never trained on, and neither wanted nor punished by the score.

    A picture without objects is an item too, and trains as one.
    """

    pictures: list[Path]
    image_ids: list[int]
    categories: dict[int, str]
    """Name by label."""

    def __init__(
        self,
        *,
        classes: int,
        masks: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        if classes < 2:
            raise ConfigError(
                f"data.object_classes: found {classes}, expected 2 or more: the background is one of them."
            )
        self.kinds = {"photo": "photo"}
        self.classes, self.masks = classes, masks
        super().__init__(transform=transform, seed=seed)

    def truth(self, index: int) -> list[Annotation]:
        """The objects of a picture as COCO writes them: id, bbox (x, y, w, h), category_id, area, iscrowd and
        segmentation (polygons or RLE). What the score counts."""
        raise NotImplementedError

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of a picture."""
        raise NotImplementedError

    def trained(self, index: int) -> list[Annotation]:
        """The objects that can be trained on: those whose box has an area within the picture."""
        return [each for each in self.truth(index) if inside(each["bbox"], self.size(index)) is not None]

    def __len__(self) -> int:
        return len(self.pictures)

    def describe(self, index: int) -> str:
        return str(self.pictures[index])

    def name(self, index: int) -> str:
        return self._names[index]

    def _set_pictures(self, pictures: list[Path]) -> None:
        self.pictures, self._names = pictures, unique_names(pictures)

    def read(self, index: int) -> Sample:
        objects, size = self.trained(index), self.size(index)
        photo = read_rgb(self.pictures[index])
        if photo.shape[:2] != size:
            raise DataError(
                f"found a picture of {photo.shape[0]}x{photo.shape[1]} (height x width), but its annotations say "
                f"{size[0]}x{size[1]}. Pictures are read as stored: an EXIF rotation is not applied."
            )
        boxes = [inside(each["bbox"], size) for each in objects]
        sample = {
            "photo": photo,
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "labels": np.array([each["category_id"] for each in objects], np.int64),
            "crowd": np.array([each["iscrowd"] for each in objects], np.uint8),
            "area": np.array([each["area"] for each in objects], np.float32),
        }
        if self.masks:
            planes = [decode_mask(each, size, self.describe(index)) for each in objects]
            sample["masks"] = np.array(planes, np.uint8).reshape(-1, *size)
        return sample

    @staticmethod
    def collate(samples: Sequence[Sample]) -> Batch:
        """Pictures of any sizes: `image`, a list of (3, H, W), and `target`, a list of dicts; `index`, `name`."""
        return {
            "image": [sample["image"] for sample in samples],
            "target": [sample["target"] for sample in samples],
            "index": torch.tensor([sample["index"] for sample in samples]),
            "name": [sample["name"] for sample in samples],
        }


def inside(bbox: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """A box (x, y, w, h) -> (x1, y1, x2, y2) within a picture (H, W); None where nothing is left of it."""
    x, y, width, height = bbox
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(float(size[1]), x + width), min(float(size[0]), y + height)
    # in float32, as networks have it: a sliver may lose its width there
    return (
        (left, top, right, bottom)
        if np.float32(right) > np.float32(left) and np.float32(bottom) > np.float32(top)
        else None
    )


def decode_mask(annotation: Annotation, size: tuple[int, int], where: str) -> np.ndarray:
    """(H, W) uint8 of 0 and 1, from COCO's polygons or its run lengths, compressed or not."""
    given, (height, width) = annotation.get("segmentation"), size
    try:
        if isinstance(given, list) and given:
            code = rle.merge(rle.frPyObjects(given, height, width))
        elif isinstance(given, dict) and isinstance(given.get("counts"), list):
            code = rle.frPyObjects(given, height, width)
        elif isinstance(given, dict):
            code = given
        else:
            raise ValueError("there is none")
        plane: np.ndarray = rle.decode(code)
    except Exception as error:
        raise DataError(
            f"{where}, annotation {annotation['id']}: its segmentation cannot be read ({error}); expected polygons or run "
            "lengths. Train without masks: network.detector=faster_rcnn."
        ) from error
    if plane.shape != size:
        raise DataError(
            f"{where}, annotation {annotation['id']}: its mask is {plane.shape[0]}x{plane.shape[1]}, expected the "
            f"picture's {height}x{width} (height x width)."
        )
    return plane


TREE = """\
    ROOT/annotations/instances_{train,val}2017.json
    ROOT/images/{train,val}2017/000000000139.jpg
(another layout: data.objects.annotations and data.objects.images)"""


class CocoObjects(ObjectDataset):
    """Objects in COCO's format (Lin et al., 2014, arXiv:1405.0312): `instances` files, or `person_keypoints`.

    `annotations` is the file and `images` the folder below `root`, or several of which the first that is there counts;
    `{split}` in them stands for the split. Labels are the category ids of the file, so that `classes` is one more
    than the highest: 91 for COCO, whose 80 classes leave gaps, and which torchvision's weights were trained with.
    `names`, by category id, are what the file's categories must be called; null: anything. Training writes them into
    the checkpoint, so that class 3 stays the same class.

    Boxes without any area within their picture cannot be trained on (COCO's own file has a few); they are left out
    with one warning. The score counts the file as it is.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        classes: int,
        annotations: str = "annotations/instances_{split}2017.json",
        images: str | Sequence[str] = ("images/{split}2017", "{split}2017"),
        names: dict[int, str] | None = None,
        masks: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(classes=classes, masks=masks, transform=transform, seed=seed)
        self.file = require_file(
            Path(root) / annotations.replace("{split}", split), expected=TREE, option="data.root"
        )
        self.names = names
        content = read_coco(self.file, needs="category_id")
        pictures = list_pictures(content["images"], first_present(root, images, split), self.file)
        check_ids(content["annotations"], pictures, self.file)
        self.categories = self._read_categories(content["categories"])
        self.image_ids = sorted(pictures)
        self._sizes = [(pictures[number].height, pictures[number].width) for number in self.image_ids]
        self._objects: dict[int, list[Annotation]] = {number: [] for number in self.image_ids}
        self._sort_in(content["annotations"])
        self._set_pictures([pictures[number].path for number in self.image_ids])
        require_pictures(self.pictures, self.file, tree=TREE)
        self._warn_of_empty_boxes()

    def truth(self, index: int) -> list[Annotation]:
        return self._objects[self.image_ids[index]]

    def size(self, index: int) -> tuple[int, int]:
        return self._sizes[index]

    def _read_categories(self, entries: list[Any]) -> dict[int, str]:
        try:
            found = {int(each["id"]): str(each["name"]) for each in entries}
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(f"{self.file}: a category lacks its id or its name ({error!r}).") from error
        if not found or min(found) < 1:
            raise DataError(
                f"{self.file}: found the category ids {sorted(found)}, expected 1 or more: 0 is the background."
            )
        if max(found) >= self.classes:
            raise ConfigError(
                f"data.object_classes: found {self.classes}, but {self.file} has category ids up to {max(found)}, and 0 is "
                f"the background. Set data.object_classes={max(found) + 1}."
            )
        for number, name in found.items():
            expected = (self.names or found).get(number)
            if expected != name:
                raise ConfigError(
                    f"{self.file}: category {number} is '{name}', but data.objects.names has {expected!r} for it: these are "
                    "other classes than those trained on. Choose the data set of the checkpoint."
                )
        return found

    def _sort_in(self, annotations: list[Annotation]) -> None:
        """Each annotation to its picture, its category and its box looked at; crowd and area default to the usual."""
        table(annotations, "bbox", 4, self.file, "x, y, width, height")
        for each in annotations:
            if each.get("category_id") not in self.categories:
                raise DataError(
                    f"{self.file}: annotation {each['id']}: found category_id {each.get('category_id')!r}, expected one of "
                    f"the file's categories. {nearest(str(each.get('category_id')), map(str, self.categories))}"
                )
            each.setdefault("iscrowd", 0)
            each.setdefault("area", float(each["bbox"][2]) * float(each["bbox"][3]))
            self._objects[each["image_id"]].append(each)

    def _warn_of_empty_boxes(self) -> None:
        found = [
            (each, self._sizes[index])
            for index in range(len(self))
            for each in self.truth(index)
            if inside(each["bbox"], self._sizes[index]) is None
        ]
        if found:
            first, (height, width) = found[0]
            log.warning(
                "%s: %d boxes are left out of training, the first of annotation %s: found the bbox %s, expected a width and "
                "a height within its picture of %dx%d (height x width).",
                self.file, len(found), first["id"], first["bbox"], height, width,
            )  # fmt: skip

    @classmethod
    def vocabulary(cls, *, classes: int, names: dict[int, str] | None = None, **_: object) -> Vocabulary:
        """Names by label, as far as the options have them: the file is not opened here."""
        words = tuple((names or {}).get(label, f"class {label}") for label in range(classes))
        return Vocabulary(words, distinct_palette(classes))


class JoinedObjects(ObjectDataset):
    """Several splits of one data set of objects, or ranges of them, one after the other."""

    def __init__(
        self, parts: Sequence[ObjectDataset], ranges: Sequence[tuple[int, int]] | None = None
    ) -> None:
        first = parts[0]
        super().__init__(classes=first.classes, masks=first.masks, transform=first.transform, seed=first.seed)
        self.categories = first.categories
        limits = [(0, len(part)) for part in parts] if ranges is None else ranges
        self._places = [
            (part, place) for part, limit in zip(parts, limits, strict=True) for place in range(*limit)
        ]
        self._set_pictures([part.pictures[place] for part, place in self._places])
        numbers = [part.image_ids[place] for part, place in self._places]
        self.image_ids = numbers if len(set(numbers)) == len(numbers) else list(range(1, len(numbers) + 1))

    def truth(self, index: int) -> list[Annotation]:
        part, place = self._places[index]
        return part.truth(place)

    def size(self, index: int) -> tuple[int, int]:
        part, place = self._places[index]
        return part.size(place)

    def describe(self, index: int) -> str:
        part, place = self._places[index]
        return part.describe(place)
