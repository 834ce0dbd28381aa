"""The base of all readers of objects, and COCO's: a picture, and the boxes, classes and masks in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pycocotools import mask as rle

from dvsn import reading
from dvsn.data.class_ids import distinct_palette
from dvsn.data.coco_files import (
    Picture,
    check_ids,
    check_picture_sizes,
    contradiction,
    first_present,
    is_numbers,
    list_pictures,
    read_coco,
    table,
)
from dvsn.data.dataset import ImageDataset
from dvsn.data.files import read_labels, read_rgb, require_file, require_folder, unique_names
from dvsn.data.people import require_pictures
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.types import Batch, Sample, Vocabulary

log = logging.getLogger(__name__)
Annotation = dict[str, Any]


class ObjectDataset(ImageDataset):
    """Pictures with the objects in them; readers fill `pictures` and `image_ids` and tell `truth`.

    An item, also of a picture without objects:

    - `photo` (H, W, 3) uint8;
    - `boxes` (n, 4) float32: x1, y1, x2, y2 of the outer edges, as COCO has them: a picture spans 0 to W, and a single pixel
      has the width 1;
    - `labels` (n,) int64, above 0: label 0 is the background;
    - `crowd` (n,) uint8: 1 for a region of many objects, which is not trained on and ignored by the score;
    - `area` (n,) float32, and with `masks` also `masks` (n, H, W) uint8 of 0 and 1;
    - `stuff` (H, W) uint8, the class of each pixel with 255 for none, where the reader has such labels of the picture.
    """

    file: Path = Path("its annotations")
    pictures: list[Path]
    image_ids: list[int]
    categories: dict[int, str]
    """Name by label."""
    file_ids: Mapping[int, int] = {}
    """A label's category id in the files and in results, where it is another number."""

    in_memory = False
    """Whether `truth` opens no file."""
    reads_stuff = False
    """Whether pictures have labels of stuff."""

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

    def stuff(self, index: int) -> np.ndarray | None:
        """(H, W) uint8: the class of each pixel, 255 for none; None for a picture without such labels."""
        return None

    def __len__(self) -> int:
        return len(self.pictures)

    def describe(self, index: int) -> str:
        return str(self.pictures[index])

    def name(self, index: int) -> str:
        return self._names[index]

    def photos(self, index: int) -> list[Path]:
        return [self.pictures[index]]

    def _set_pictures(self, pictures: list[Path]) -> None:
        self.pictures, self._names = pictures, unique_names(pictures)

    def read(self, index: int) -> Sample:
        objects, size = self.trained(index), self.size(index)
        photo = read_rgb(self.pictures[index])
        if photo.shape[:2] != size:
            said = Picture(self.pictures[index], size[1], size[0])
            found = (photo.shape[0], photo.shape[1])
            raise DataError(contradiction(said, found, self.file, option="data.objects.sizes"))
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
        labels = self.stuff(index)
        if labels is not None:
            if labels.shape != size:
                raise DataError(
                    f"{self.describe(index)}: its labels of stuff are {labels.shape[0]}x{labels.shape[1]}, expected the "
                    f"picture's {size[0]}x{size[1]} (height x width)."
                )
            sample["stuff"] = labels
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


def mask_fault(given: Any, size: tuple[int, int]) -> str:
    """What keeps a segmentation of a picture (H, W) from being read, or "": nothing is decoded."""
    if not given:
        return "there is none"
    if isinstance(given, list):
        for polygon in given:
            if not isinstance(polygon, list) or not is_numbers(polygon, len(polygon)):
                return (
                    f"found {reading.shown(polygon)} for a polygon, expected finite numbers x, y, x, y, ..."
                )
            if len(polygon) < 6 or len(polygon) % 2:
                return f"a polygon of {len(polygon)} numbers"
        return ""
    if not isinstance(given, dict) or "counts" not in given:
        return f"found {reading.shown(given)}"
    if given.get("size") not in (list(size), tuple(size)):
        return f"run lengths of size {reading.shown(given.get('size'))}, the picture has {list(size)} (height, width)"
    counts = given["counts"]
    if isinstance(counts, str | bytes):
        counts = run_lengths(counts)
    if not isinstance(counts, list) or any(type(each) is not int or each < 0 for each in counts):
        return "run lengths that are no whole numbers"
    if sum(counts) != size[0] * size[1]:
        return f"run lengths of {sum(counts)} pixels, the picture has {size[0] * size[1]}"
    return ""


def run_lengths(code: str | bytes) -> list[int] | None:
    """COCO's compressed run lengths as numbers: 5 bits a character, the lowest first, with a sign; from the third run on
    the difference to the one before the last. None where it breaks off."""
    counts: list[int] = []
    value = shift = 0
    for character in code.encode("latin1", "replace") if isinstance(code, str) else code:
        bits = character - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    return None if shift else counts


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

    - `annotations`: the file, and `images`: the folder below `root`, or several, of which the first that exists counts.
      `{split}` in them stands for the split.
    - Labels are the category ids of the file where these lie between 1 and `classes` - 1: 91 for COCO, whose 80 classes
      leave gaps, as torchvision's weights were trained. Other ids become 1, 2, ... in their order; results have the
      file's ids again.
    - `names`, by label: what the categories must be called; null: anything. Training writes them into the checkpoint,
      and `ids`, the file's category ids by label, where they differ.
    - `sizes`: "file" compares the pictures' headers with the file's sizes when the set is opened; "picture" does not.
    - Boxes without any area within their picture (COCO's own file has a few) are left out of training with one warning;
      the score counts the file as it is.
    - `stuff`: the folder of pictures of classes, NAME.png for NAME.jpg, as COCO-Stuff publishes them (stuffthingmaps: 0 to
      181 and 255 for none; Caesar et al., 2018, arXiv:1612.03716); pictures without one have no such labels. Null: none.
    - `unmasked`: with `masks`, an object without a readable mask is an error ("refuse"), or left out of training and
      score ("leave_out").
    """

    in_memory = True

    def __init__(
        self,
        *,
        root: str,
        split: str,
        classes: int,
        annotations: str = "annotations/instances_{split}2017.json",
        images: str | Sequence[str] = ("images/{split}2017", "{split}2017"),
        names: dict[int, str] | None = None,
        ids: dict[int, int] | None = None,
        masks: bool = False,
        unmasked: Literal["refuse", "leave_out"] = "refuse",
        stuff: str | None = None,
        sizes: Literal["file", "picture"] = "file",
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(classes=classes, masks=masks, transform=transform, seed=seed)
        for option, value, valid in (
            ("sizes", sizes, ("file", "picture")),
            ("unmasked", unmasked, ("refuse", "leave_out")),
        ):
            if value not in valid:
                raise ConfigError(f"data.objects.{option}: found '{value}'. {nearest(str(value), valid)}")
        self.file = require_file(
            Path(root) / annotations.replace("{split}", split), expected=TREE, option="data.root"
        )
        self.names, self.ids = names or None, ids or {}
        content = read_coco(self.file, needs="category_id")
        folder = first_present(root, images, split)
        pictures = list_pictures(content["images"], folder, self.file, sizes_from=sizes)
        check_ids(content["annotations"], pictures, self.file)
        self.categories, self.label_of = self._read_categories(content["categories"])
        self.file_ids = {label: number for number, label in self.label_of.items() if number != label}
        self.image_ids = sorted(pictures)
        self._sizes = [(pictures[number].height, pictures[number].width) for number in self.image_ids]
        self._objects: dict[int, list[Annotation]] = {number: [] for number in self.image_ids}
        self._set_pictures([pictures[number].path for number in self.image_ids])
        require_pictures(self.pictures, self.file, tree=TREE)
        if sizes == "file":
            known = [pictures[number] for number in self.image_ids]
            check_picture_sizes(known, self.file, option="data.objects.sizes")
        self.reads_stuff, self._stuff = stuff is not None, self._list_stuff(root, stuff, split)
        self._sort_in(content["annotations"])
        if masks:
            self._check_masks(leave_out=unmasked == "leave_out")
        self._warn_of_empty_boxes()

    def truth(self, index: int) -> list[Annotation]:
        return self._objects[self.image_ids[index]]

    def size(self, index: int) -> tuple[int, int]:
        return self._sizes[index]

    def stuff(self, index: int) -> np.ndarray | None:
        file = self._stuff.get(self.pictures[index].stem)
        return None if file is None else read_labels(file)

    def _list_stuff(self, root: str, folder: str | None, split: str) -> dict[str, Path]:
        """The pictures of classes of those in this set, by their names."""
        if folder is None:
            return {}
        place = require_folder(
            Path(root) / folder.replace("{split}", split),
            expected="    ROOT/stuffthingmaps/{train,val}2017/000000000139.png",
            option="data.objects.stuff",
        )
        wanted = {path.stem for path in self.pictures}
        found = {path.stem: path for path in place.glob("*.png") if path.stem in wanted}
        if not found:
            raise DataError(
                f"{place}: no NAME.png for any picture of {self.file}. Set data.objects.stuff=null."
            )
        if len(found) < len(wanted):
            log.info("%s: labels of stuff for %d of %d pictures", place, len(found), len(wanted))
        return found

    def _read_categories(self, entries: list[Any]) -> tuple[dict[int, str], dict[int, int]]:
        """Names by label, and labels by the file's category ids."""
        found: dict[int, str] = {}
        for place, each in enumerate(entries):
            where = f"{self.file}: categories[{place}]"
            number = reading.to_whole(each.get("id"), f"{where}: id")
            if number in found:
                raise DataError(f"{where}: a second category with the id {number}, beside '{found[number]}'.")
            found[number] = reading.to_text(each.get("name"), f"{where}: name")
        if not found:
            raise DataError(f"{self.file}: found no category, expected one or more.")
        labels = self._choose_labels(found)
        for number, name in found.items():
            expected = (self.names or {}).get(labels[number], name if self.names is None else None)
            if expected != name:
                raise ConfigError(
                    f"{self.file}: category {number} is '{name}', but data.objects.names has {expected!r} for it: these are "
                    "other classes than those trained on. Choose the data set of the checkpoint."
                )
        return {labels[number]: name for number, name in found.items()}, labels

    def _choose_labels(self, found: dict[int, str]) -> dict[int, int]:
        """The label of each category id; see the class."""
        if min(found) >= 1 and max(found) < self.classes:
            return {number: number for number in found}
        by_id = {number: label for label, number in self.ids.items()}
        if by_id and found.keys() <= by_id.keys():
            return {number: by_id[number] for number in found}
        by_name = {name: label for label, name in (self.names or {}).items()}
        if by_name and set(found.values()) <= by_name.keys():
            return {number: by_name[name] for number, name in found.items()}
        if self.classes > len(found):
            labels = {number: label for label, number in enumerate(sorted(found), 1)}
            shown = ", ".join(f"{number} is {label}" for number, label in list(labels.items())[:8])
            log.info("%s: category ids become labels from 1 on, 0 being the background: %s", self.file, shown)
            return labels
        raise ConfigError(
            f"data.object_classes: found {self.classes}, but {self.file} has {len(found)} categories with ids up to "
            f"{max(found)}, and 0 is the background. Set data.object_classes={len(found) + 1}."
        )

    def _sort_in(self, annotations: list[Annotation]) -> None:
        """Each annotation to its picture, its category and its box looked at; crowd and area default to the usual."""
        table(annotations, "bbox", 4, self.file, "x, y, width, height")
        for each in annotations:
            label = self.label_of.get(each.get("category_id"))  # type: ignore[arg-type]
            if label is None:
                raise DataError(
                    f"{self.file}: annotation {each['id']}: found category_id {each.get('category_id')!r}, expected one of "
                    f"the file's categories. {nearest(str(each.get('category_id')), map(str, self.label_of))}"
                )
            each["category_id"] = label
            each.setdefault("iscrowd", 0)
            if "area" not in each:
                each["area"] = float(each["bbox"][2]) * float(each["bbox"][3])
            self._objects[each["image_id"]].append(each)

    def _check_masks(self, *, leave_out: bool) -> None:
        """Find objects whose mask cannot be read now, not in the middle of an epoch."""
        wrong: list[tuple[Annotation, str]] = []
        for index, number in enumerate(self.image_ids):
            found = self._objects[number]
            faults = [mask_fault(each.get("segmentation"), self._sizes[index]) for each in found]
            if any(faults):
                wrong += [(each, fault) for each, fault in zip(found, faults, strict=True) if fault]
                self._objects[number] = [each for each, fault in zip(found, faults, strict=True) if not fault]
        if not wrong:
            return
        (first, fault), more = wrong[0], f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        picture = self.pictures[self.image_ids.index(first["image_id"])]
        message = f"{self.file}: annotation {first['id']}{more}, in {picture}: its segmentation cannot be read ({fault})"
        if not leave_out:
            raise DataError(
                f"{message}; expected polygons of three points or more, or run lengths. Mend the file, leave such objects "
                "out of training and score by data.objects.unmasked=leave_out, or train without masks: "
                "network.detector=faster_rcnn."
            )
        log.warning("%s: left out of training and score", message)

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

    def __init__(self, parts: Sequence[ObjectDataset], places: Sequence[Sequence[int]] | None = None) -> None:
        first = parts[0]
        super().__init__(classes=first.classes, masks=first.masks, transform=first.transform, seed=first.seed)
        self.parts = list(parts)
        self.in_memory = all(part.in_memory for part in parts)
        self.reads_stuff = any(part.reads_stuff for part in parts)
        self.categories, self.file_ids = first.categories, first.file_ids
        require_same_classes(parts)
        taken = [range(len(part)) for part in parts] if places is None else places
        self._places = [(part, place) for part, each in zip(parts, taken, strict=True) for place in each]
        self._set_pictures([part.pictures[place] for part, place in self._places])
        numbers = [part.image_ids[place] for part, place in self._places]
        self.image_ids = numbers if len(set(numbers)) == len(numbers) else list(range(1, len(numbers) + 1))

    def truth(self, index: int) -> list[Annotation]:
        part, place = self._places[index]
        return part.truth(place)

    def size(self, index: int) -> tuple[int, int]:
        part, place = self._places[index]
        return part.size(place)

    def stuff(self, index: int) -> np.ndarray | None:
        part, place = self._places[index]
        return part.stuff(place)

    def describe(self, index: int) -> str:
        part, place = self._places[index]
        return part.describe(place)


def require_same_classes(parts: Sequence[ObjectDataset]) -> None:
    """Raise `DataError` where a label means one class in one split and another in the next."""
    for part in parts[1:]:
        for label, name in part.categories.items():
            other = parts[0].categories.get(label, name)
            if other != name or part.file_ids.get(label, label) != parts[0].file_ids.get(label, label):
                raise DataError(
                    f"{part.file}: class {label} is '{name}' (category {part.file_ids.get(label, label)}), but "
                    f"{parts[0].file} has '{other}' (category {parts[0].file_ids.get(label, label)}) for it. Expected the "
                    "same categories in the files of all splits: list them all in each, also those without an object."
                )
