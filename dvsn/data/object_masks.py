"""Masks that lie apart: a file for each object of a picture, joined to classes of pixels or told apart as objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from pycocotools import mask as rle

from dvsn.data.class_ids import distinct_palette
from dvsn.data.files import open_stored, pictures_below, require_folder
from dvsn.data.folders import ALL
from dvsn.data.labelled import LabelledPhotos, Labels
from dvsn.data.objects import Annotation
from dvsn.data.own_objects import ListedObjects, annotation
from dvsn.errors import ConfigError, DataError, MissingError
from dvsn.portable import headers
from dvsn.types import Sample, Vocabulary

MASK_WORDS = {
    "masks", "mask", "labels", "label", "annotations", "annotation", "ann", "anns", "annot", "gt", "groundtruth",
    "ground_truth", "targets", "target", "seg", "segs", "segmentation", "segmentations", "segmentationclass", "y", "gtfine",
    "semantic", "labelids", "label_ids", "annos", "anno", "truth", "lbl", "segmaps",
}  # fmt: skip
"""What people call folders and endings of masks, in lower case."""
OBJECT = "object"
"""The class of a mask that lies in no folder of a class."""
TREE = """\
    ROOT/images/1.jpg + ROOT/masks/1_0.png, ROOT/masks/1_1.png, ...      or
    ROOT/images/1.jpg + ROOT/masks/1/a.png, ROOT/masks/1/b.png, ...      or
    ROOT/1/images/1.png + ROOT/1/masks/a.png, ROOT/1/masks/b.png, ...    or
    ROOT/1.jpg + ROOT/1_mask_0.png, ROOT/1_mask_1.png, ...
    of a class, where there are several: ROOT/masks/CLASS/1_0.png; of a split, below a folder of its name"""

_WORDS = "|".join(sorted({*MASK_WORDS, "object", "obj", "instance", "inst"} - {"y"}, key=len, reverse=True))
_NUMBERED = re.compile(rf"(?P<photo>.+?)[_\-. ](?P<word>(?:{_WORDS})[_\-. ]?)?\d+", re.IGNORECASE)
_WORD = re.compile(r"[^a-z0-9]+")


def says_mask(name: str) -> bool:
    """Whether a name, or a word of it, is one of `MASK_WORDS`."""
    low = name.lower()
    return bool({low, *_WORD.split(low)} & MASK_WORDS)


def masks_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The masks of each photo that has several or one of several, by relative paths with `/`: `1_mask_0.png` belongs to
    `1.jpg`, `masks/1_0.png` and `masks/1/0.png` to `images/1.jpg`, `1/masks/a.png` to `1/images/1.png`, and
    `masks/cat/1.png` to `images/1.jpg`. Of photos of one name the one with the most folders in common counts."""
    names = sorted(names)
    photos: dict[str, list[str]] = {}
    for name in names:
        if not any(map(says_mask, name.split("/")[:-1])):
            photos.setdefault(PurePosixPath(name).stem, []).append(name)
    found: dict[str, list[str]] = {}
    for name in names:
        photo = _owner(name, photos)
        if photo is not None and photo != name:
            found.setdefault(photo, []).append(name)
    return found


def _owner(name: str, photos: Mapping[str, Sequence[str]]) -> str | None:
    path = PurePosixPath(name)
    folders, match = path.parts[:-1], _NUMBERED.fullmatch(path.stem)
    below = any(map(says_mask, folders))
    if match and match["photo"] in photos and (below or match["word"]):
        return _nearest(photos[match["photo"]], folders)
    if not below:
        return None
    if path.stem in photos:
        photo = _nearest(photos[path.stem], folders)
        return photo if class_of(name, photo) != OBJECT else None
    return next((_nearest(photos[part], folders) for part in folders if part in photos), None)


def _nearest(photos: Sequence[str], folders: Sequence[str]) -> str:
    """The photo that shares the most folders with a mask."""
    return max(photos, key=lambda each: len({*each.split("/")[:-1]} & {*folders}))


def class_of(mask: str, photo: str) -> str:
    """The folder below that of the masks which is neither the photo's name nor one of its folders; `OBJECT` without one."""
    parts, known = mask.split("/")[:-1], {*photo.split("/")[:-1], PurePosixPath(photo).stem}
    first = next((place for place, part in enumerate(parts) if says_mask(part)), len(parts))
    return next((part for part in parts[first + 1 :] if part not in known and not says_mask(part)), OBJECT)


def read_plane(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: where the mask of one object is at least half as bright as its brightest pixel.

    Raises `DataError` for another size than that of its photo.
    """
    image = open_stored(path)  # by Pillow: OpenCV's threads must be idle when worker processes are forked
    grey = np.array(image if image.mode.startswith("I") else image.convert("L"), np.int32)
    if grey.shape != size:
        raise DataError(
            f"{path}: a mask of {grey.shape[0]}x{grey.shape[1]}, its photo has {size[0]}x{size[1]} (height x width). "
            "Expected one size: resize the mask without interpolation, or move it away."
        )
    plane: np.ndarray = 2 * grey >= int(grey.max())
    return plane & (grey > 0)


def find(root: str, split: str, *, skip_lonely: bool) -> list[tuple[Path, list[tuple[Path, str]]]]:
    """The photos of a split, sorted, each with its masks and their classes. Raises `DataError` where there is none, and for
    photos without a mask, unless these are passed over."""
    base = require_folder(root, expected=TREE, option="data.root")
    names = [n for n in pictures_below(base) if split == ALL or split in n.split("/")[:-1]]
    if not names:
        raise MissingError(
            f"{base}: no picture below a folder called {split}. Expected:\n{TREE}", base / split
        )
    owned = masks_of(names)
    if not owned:
        raise DataError(f"{base}: no photo with masks in split {split}. Expected:\n{TREE}")
    used = {*owned, *(mask for masks in owned.values() for mask in masks)}
    lonely = sorted({*names} - used)
    if lonely and not skip_lonely:
        raise DataError(
            f"{base}: {len(lonely)} pictures are neither a mask nor a photo that has one, such as {lonely[0]}. Expected:\n"
            f"{TREE}\nSet data.dataset.skip_lonely=true to pass over them."
        )
    return [
        (base / photo, [(base / mask, class_of(mask, photo)) for mask in masks])
        for photo, masks in sorted(owned.items())
    ]


class JoinedMasks(LabelledPhotos):
    """Photos with a mask file for each object, joined to one map of classes a photo.

    `names` are the classes: first the background, which no mask covers, then those of the masks: the folders that they lie
    in, or `object`. Where masks overlap, the later name counts. `skip_lonely` passes over pictures without masks.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        names: Sequence[str] = ("background", OBJECT),
        labels: Labels = "classes",
        skip_lonely: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            vocabulary=self.vocabulary(names=names), labels=labels, transform=transform, seed=seed
        )
        numbers = {name: number for number, name in enumerate(names) if number}
        self.masks: dict[Path, list[tuple[int, Path]]] = {}
        self.pairs = []
        for photo, masks in find(root, split, skip_lonely=skip_lonely):
            for mask, name in masks:
                if name not in numbers:
                    raise DataError(
                        f"{mask}: of the class '{name}', by its folder; data.dataset.names has {', '.join(names)}."
                    )
            self.pairs.append((photo, masks[0][0]))
            self.masks[masks[0][0]] = sorted((numbers[name], mask) for mask, name in masks)

    @classmethod
    def vocabulary(cls, *, names: Sequence[str] = ("background", OBJECT), **_: object) -> Vocabulary:
        """The background and the classes of the masks."""
        if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
            raise ConfigError(
                f"data.dataset.names: found {list(names)}, expected the background and 1 to 254 other names."
            )
        two = ((0, 0, 0), (255, 255, 255)) if len(names) == 2 else None
        return Vocabulary(tuple(names), two or distinct_palette(len(names), first=0))

    def read_classes(self, path: Path) -> np.ndarray:
        """(H, W) uint8 classes of the photo whose first mask is `path`."""
        ids: np.ndarray | None = None
        for number, mask in self.masks[path]:
            if ids is None:
                ids = np.zeros(picture_size(mask), np.uint8)
            ids[read_plane(mask, (ids.shape[0], ids.shape[1]))] = number
        assert ids is not None
        return ids


class MaskedObjects(ListedObjects):
    """Objects that have a mask file each: the mask, and the box around it. A mask without a pixel is no object.

    `names` are the classes by label from 1 on: the folders that the masks lie in, or `object`. All masks are read when the
    set is opened, and kept as run lengths.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        classes: int,
        names: Mapping[int, str],
        masks: bool = False,
        skip_lonely: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(classes=classes, names=names, masks=masks, transform=transform, seed=seed)
        found = find(root, split, skip_lonely=skip_lonely)
        labels = {name: label for label, name in self.categories.items()}
        for _, each in found:
            for mask, name in each:
                if name not in labels:
                    raise DataError(
                        f"{mask}: of the class '{name}', by its folder; data.objects.names has {', '.join(labels)}."
                    )
        sizes = [picture_size(photo) for photo, _ in found]
        with ThreadPoolExecutor(4) as pool:
            objects = list(
                pool.map(lambda at: read_objects(found[at][1], sizes[at], labels), range(len(found)))
            )
        self._take([photo for photo, _ in found], sizes, objects, Path(root))


def read_objects(
    masks: Sequence[tuple[Path, str]], size: tuple[int, int], labels: Mapping[str, int]
) -> list[Annotation]:
    """The objects of one photo, in COCO's form."""
    found = []
    for path, name in masks:
        plane = read_plane(path, size)
        if plane.any():
            rows, columns = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
            box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
            code = rle.encode(np.asfortranarray(plane.astype(np.uint8)))
            found.append(annotation(labels[name], box, area=float(plane.sum()), segmentation=code))
    return found


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) by the header. Raises `DataError` for a file that is no picture."""
    size = headers.size_of(path)
    if size is None:
        raise DataError(f"{path}: no picture that can be read.")
    return size
