"""PASCAL-Context: 59 classes, or 60 with the background, in each of the numberings its files come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from dvsn.data.class_ids import ClassIds, distinct_palette
from dvsn.data.files import require_folder
from dvsn.data.labelled import LabelledPhotos, Labels, check_choices, existing_pairs, label_name, listed_pairs
from dvsn.errors import DataError
from dvsn.reading import read_rows
from dvsn.types import IGNORE, Sample, Vocabulary

TREE = """\
    ROOT/JPEGImages/NAME.jpg                           the photos of VOC 2010
    ROOT/SegmentationClassContext/NAME.png             8-bit ids 0..59, or NAME.mat as published (459 ids)
    ROOT/ImageSets/SegmentationContext/{train,val}.txt a name a line, or VOC's own ROOT/ImageSets/Main/{train,val}.txt
    or any tree with data.dataset.list_file"""

LISTED_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor", "bag", "bed",
    "bench", "book", "building", "cabinet", "ceiling", "cloth", "computer", "cup", "door", "fence", "floor",
    "flower", "food", "grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain", "platform", "sign",
    "plate", "road", "rock", "shelves", "sidewalk", "sky", "snow", "bedclothes", "track", "tree", "truck", "wall",
    "water", "window", "wood",
)  # fmt: skip
"""The 60 names in the order in which they are usually listed: those of VOC first."""

SORTED_NAMES = ("background", *sorted(LISTED_NAMES[1:]))
"""The 60 names in the order of their ids among the 459, which is that of the alphabet."""

PUBLISHED_IDS = (
    0, 2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158,
    159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366,
    368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
"""The ids, among the 459 of the annotators, of the 60 classes; all others count as background."""

Ids = Literal["sorted", "listed", "original459"]
Classes = Literal[59, 60]


class PascalContext(LabelledPhotos):
    """4,998 train and 5,105 val photos of VOC 2010, labelled everywhere (Mottaghi et al., 2014).

    Two orders of the classes are in use, and a file does not tell which one it holds. The mIoU is the same in both; the
    names of the classes and trained weights are not. `ids` is what the files hold, and with it the order of the classes:

    - "sorted": 0..59 by the alphabet, the index into the sorted published ids; what the usual conversions of
      `trainval_merged.json` (by the Detail API) store;
    - "listed": 0..59 in the order of the published list of names, VOC's own 20 classes first;
    - "original459": the published ids, of which 59 are kept and all others are background; gives the sorted
      order. MATLAB files always hold this. The merged JSON itself is not read.

    0 is the background: class 0 of 60, ignored with 59, where all others move down by one. 255 occurs in no
    file of these numberings: if it does, the ids were moved down already.
    """

    matlab_variable = "LabelMap"

    def __init__(
        self,
        *,
        root: str,
        split: str,
        labels: Labels = "classes",
        classes: Classes = 59,
        ids: Ids = "sorted",
        list_file: str | None = None,
        ignore_ids: Sequence[int] = (),
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        check_choices({"classes": (classes, get_args(Classes)), "ids": (ids, get_args(Ids))})
        vocabulary = self.vocabulary(classes=classes, ids=ids)
        super().__init__(vocabulary=vocabulary, labels=labels, transform=transform, seed=seed)
        base = require_folder(root, expected=TREE, option="data.root")
        found = _find(base, split) if list_file is None else listed_pairs(base, list_file, split)
        self.pairs = existing_pairs(found, base, tree=TREE)
        self.class_ids = class_ids(classes, ids, ignore_ids)
        self.matlab_ids = class_ids(classes, "original459", ignore_ids)
        if ids == "listed" and any(label.suffix == ".mat" for _, label in self.pairs):
            raise DataError(
                f"{base}: holds MATLAB files, whose classes come in the sorted order. Set data.dataset.ids=original459."
            )

    @classmethod
    def vocabulary(cls, *, classes: Classes = 59, ids: Ids = "sorted", **_: object) -> Vocabulary:
        """The 59 or 60 classes in the order that the numbering of the files brings."""
        names = LISTED_NAMES if ids == "listed" else SORTED_NAMES
        return Vocabulary(names[60 - classes :], distinct_palette(classes, first=60 - classes))


def class_ids(classes: Classes, ids: Ids, ignore_ids: Sequence[int] = ()) -> ClassIds:
    """What the ids of one numbering mean."""
    shift = 60 - classes
    class_of = {each: each - shift if each >= shift else IGNORE for each in range(60)}
    if ids == "original459":
        class_of = dict.fromkeys(range(460), class_of[0]) | {
            each: class_of[number] for number, each in enumerate(PUBLISHED_IDS)
        }
    return ClassIds(
        class_of,
        kind="the published 0..459" if ids == "original459" else "0..59",
        names=PascalContext.vocabulary(classes=classes, ids=ids).names,
        ignore_ids=ignore_ids,
        advice="Files of 0..58 and 255 had their background taken away already: data=segmentation reads those.",
    )


def _find(root: Path, split: str) -> list[tuple[Path, Path]]:
    photos = require_folder(root / "JPEGImages", expected=TREE, option="data.root")
    labels = require_folder(root / "SegmentationClassContext", expected=TREE, option="data.root")
    lists = [root / "ImageSets" / folder / f"{split}.txt" for folder in ("SegmentationContext", "Main")]
    listing = next((each for each in lists if each.is_file()), None)
    if listing is None:
        raise DataError(f"{lists[0]}: no such file, nor {lists[1]}. Expected this tree:\n{TREE}")
    there = {each.name for each in labels.iterdir()}
    stems = [row[0] for _, row in read_rows(listing, expected="a list of names")]
    return [(photos / f"{stem}.jpg", labels / label_name(there, stem, (".png", ".mat"))) for stem in stems]
