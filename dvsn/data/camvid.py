"""CamVid, in SegNet's copy (label ids) and as first published (label colours)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from dvsn.data.class_ids import ClassIds, ColorIds, palette_table
from dvsn.data.files import list_pictures, read_colors, read_labels, require_folder
from dvsn.data.labelled import PairedPhotos, check_choices, existing_pairs
from dvsn.errors import ConfigError, DataError
from dvsn.reading import read_rows
from dvsn.types import IGNORE, Sample, Vocabulary

TREE = """\
    SegNet's copy:       ROOT/train/NAME.png + ROOT/trainannot/NAME.png (ids 0..11), val and test alike,
                         ROOT/train.txt with 'photo label' a line (without it the folders are paired by name)
    as first published:  ROOT/701_StillsRaw_full/NAME.png + ROOT/LabeledApproved_full/NAME_L.png (32 colours),
                         or ROOT/images + ROOT/labels; ROOT/train.txt is used if it is there"""

CLASS_NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
"""The 11 grouped classes in the order of their ids; 11 is void."""

VOID = 11


class Color(NamedTuple):
    """One of the 32 published colours: RGB, its grouped id 0..11, its exact id 0..10 or 255."""

    name: str
    rgb: tuple[int, int, int]
    grouped: int
    exact: int


COLORS = (
    Color("Animal", (64, 128, 64), 9, 255),
    Color("Archway", (192, 0, 128), 1, 255),
    Color("Bicyclist", (0, 128, 192), 10, 0),
    Color("Bridge", (0, 128, 64), 1, 255),
    Color("Building", (128, 0, 0), 1, 1),
    Color("Car", (64, 0, 128), 8, 2),
    Color("CartLuggagePram", (64, 0, 192), 9, 255),
    Color("Child", (192, 128, 64), 9, 255),
    Color("Column_Pole", (192, 192, 128), 2, 3),
    Color("Fence", (64, 64, 128), 7, 4),
    Color("LaneMkgsDriv", (128, 0, 192), 3, 255),
    Color("LaneMkgsNonDriv", (192, 0, 64), 3, 255),
    Color("Misc_Text", (128, 128, 64), 6, 255),
    Color("MotorcycleScooter", (192, 0, 192), 10, 255),
    Color("OtherMoving", (128, 64, 64), 8, 255),
    Color("ParkingBlock", (64, 192, 128), 4, 255),
    Color("Pedestrian", (64, 64, 0), 9, 5),
    Color("Road", (128, 64, 128), 3, 6),
    Color("RoadShoulder", (128, 128, 192), 4, 255),
    Color("SUVPickupTruck", (64, 128, 192), 8, 255),
    Color("Sidewalk", (0, 0, 192), 4, 7),
    Color("SignSymbol", (192, 128, 128), 6, 8),
    Color("Sky", (128, 128, 128), 0, 9),
    Color("TrafficCone", (0, 0, 64), 2, 255),
    Color("TrafficLight", (0, 64, 64), 6, 255),
    Color("Train", (192, 64, 128), 8, 255),
    Color("Tree", (128, 128, 0), 5, 10),
    Color("Truck_Bus", (192, 128, 192), 8, 255),
    Color("Tunnel", (64, 0, 64), 1, 255),
    Color("VegetationMisc", (192, 192, 0), 5, 255),
    Color("Void", (0, 0, 0), VOID, 255),
    Color("Wall", (64, 192, 0), 1, 255),
)

PALETTE = palette_table((
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
))  # fmt: skip
"""(256, 3) uint8 RGB by grouped id, as SegNet displays them; void and everything else is black."""

EXACT = tuple(sorted((each for each in COLORS if each.exact != IGNORE), key=lambda each: each.exact))
"""The 11 colours of `exact`, in the order of their ids: alphabetical, as PIDNet has them."""

ALPHABETICAL_OF = {each.grouped: each.exact for each in EXACT} | {VOID: IGNORE}
"""Grouped id -> id of the same class in alphabetical order: sky 0 -> 9, ... bicyclist 10 -> 0, void -> 255."""

ADVICE = "SegNet's copy holds ids; for the colours of the original see data.dataset.layout=original."

STRAY = 0.01
"""The share of pixels whose colour may lie outside the table (they become void) in an intact file."""

Labels = Literal["color", "ids", "classes"]
Layout = Literal["auto", "segnet", "original"]
Classes = Literal["grouped", "alphabetical", "exact"]


class CamVid(PairedPhotos):
    """701 driving frames (Brostow et al., 2009): 367 train, 101 val, 233 test, as SegNet divided them.

    A sample: `photo` (H, W, 3) uint8 RGB and `label`. `labels="color"` gives (H, W, 3) RGB: the 11 display
    colours in SegNet's copy (360x480), the file's own 32 in the original (720x960). `labels="ids"` gives (H,
    W) ids, "classes" the same with 255 for everything ignored. What the ids are, `classes` says:

    - "grouped": all 32 colours in SegNet's 11 classes, `CLASS_NAMES`, void 11. SegNet's files hold these;
    - "alphabetical": the same, with labels="classes" in the order of "exact", for weights that were trained
      in it;
    - "exact": 11 colours alone in alphabetical order, everything else 255, as PIDNet's authors read the
      original, which alone can serve it. It is another task (lane markings, trucks and walls are ignored), and
      scores of the two do not compare.

    Ids outside 0..11 are an error unless listed in `ignore_ids`; so is an original label file of which more
    than the share `stray` has a colour outside the table.

    The original has no list of its splits. Without one the frames are divided by drive and number, which
    gives SegNet's lists exactly.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        labels: Labels = "color",
        layout: Layout = "auto",
        classes: Classes = "grouped",
        ignore_ids: Sequence[int] = (),
        stray: float = STRAY,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        choices = {"labels": (labels, Labels), "layout": (layout, Layout), "classes": (classes, Classes)}
        check_choices({option: (value, get_args(choice)) for option, (value, choice) in choices.items()})
        super().__init__(transform=transform, seed=seed)
        self.root = require_folder(root, expected=TREE, option="data.root")
        folders = _original_folders(self.root) if layout != "segnet" else None
        if layout == "original" and folders is None:
            raise DataError(
                f"{root}: found neither 701_StillsRaw_full nor images. Expected this tree:\n{TREE}"
            )
        self.original, self.labels, self.classes = folders is not None, labels, classes
        if folders is None and classes == "exact":
            raise ConfigError(
                "data.dataset.classes: 'exact' needs the original colour labels; SegNet's copy has its "
                "colours grouped already. Use data.dataset.classes=grouped, or alphabetical for the order of exact."
            )
        self.class_ids = class_ids(classes, ignore_ids)
        self.color_ids = color_ids(classes, stray)
        self.palettes = {"label": PALETTE} if labels == "color" and folders is None else {}
        self.pairs = self._segnet_pairs(split) if folders is None else self._original_pairs(split, *folders)

    @classmethod
    def vocabulary(cls, *, classes: Classes = "grouped", **_: object) -> Vocabulary:
        """The 11 classes of a convention: SegNet's names and display colours, or the published ones."""
        grouped = Vocabulary(CLASS_NAMES, tuple(map(tuple, PALETTE[:VOID].tolist())))
        if classes == "grouped":
            return grouped
        if classes == "exact":
            return Vocabulary(tuple(each.name for each in EXACT), tuple(each.rgb for each in EXACT))
        order = sorted(range(VOID), key=ALPHABETICAL_OF.__getitem__)
        return Vocabulary(
            tuple(grouped.names[each] for each in order), tuple(grouped.palette[each] for each in order)
        )

    def read_classes(self, path: Path) -> np.ndarray:
        if self.original:
            colors = read_colors(path)
            if self.labels == "color":
                return colors
            ids = self.color_ids(colors, path)
        else:
            ids = read_labels(path, advice=ADVICE)
        classes = self.class_ids(ids, path)
        return classes if self.labels == "classes" else ids.astype(np.uint8, copy=False)

    def _segnet_pairs(self, split: str) -> list[tuple[Path, Path]]:
        listing = self.root / f"{split}.txt"
        photos = require_folder(self.root / split, expected=TREE, option="data.root")
        annotations = require_folder(self.root / f"{split}annot", expected=TREE, option="data.root")
        if listing.is_file():
            rows = _rows(listing, columns=2)
            pairs = [(_last_two(self.root, photo), _last_two(self.root, label)) for photo, label in rows]
        else:
            pairs = [(photo, annotations / f"{photo.stem}.png") for photo in list_pictures(photos)]
        return existing_pairs(pairs, self.root / split, tree=TREE)

    def _original_pairs(self, split: str, photos: Path, labels: Path) -> list[tuple[Path, Path]]:
        listing = self.root / f"{split}.txt"
        if listing.is_file():
            stems = [Path(row[0]).stem for row in _rows(listing)]
        else:
            stems = [path.stem for path in list_pictures(photos) if split_of(path.stem) == split]
        files = {path.stem: path for path in list_pictures(photos)}
        return existing_pairs(
            [(files.get(stem, photos / f"{stem}.png"), labels / f"{stem}_L.png") for stem in stems],
            photos,
            tree=TREE,
        )


def split_of(name: str) -> str:
    """SegNet's split of a frame, by drive and number: '0016E5_07959' -> 'val'. Unknown drives: ''."""
    match = re.fullmatch(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)", name)
    if match is None:
        return ""
    drive, number = match[1], int(match[2])
    if drive == "0001TP":
        return "train" if number <= 8520 else "test"
    if drive == "0016E5":
        return "val" if 7959 <= number <= 8159 else "train"
    return "train" if drive == "0006R0" else "test"


def class_ids(classes: Classes, ignore_ids: Sequence[int] = ()) -> ClassIds:
    """What the ids of a convention mean, with void among the ignored."""
    vocabulary = CamVid.vocabulary(classes=classes)
    kept = {each: each for each in range(len(vocabulary.names))}
    if classes == "exact":
        return ClassIds(kept | {IGNORE: IGNORE}, kind="0..10", names=vocabulary.names, ignore_ids=ignore_ids)
    return ClassIds(
        ALPHABETICAL_OF if classes == "alphabetical" else kept | {VOID: IGNORE},
        kind=f"0..{VOID}",
        names=vocabulary.names,
        ignore_ids=ignore_ids,
    )


def color_ids(classes: Classes, stray: float = STRAY) -> ColorIds:
    """(H, W, 3) uint8 RGB -> (H, W) uint8: exact ids (0..10 and 255), or grouped ids (0..11)."""
    exact = classes == "exact"
    return ColorIds(
        {each.rgb: each.exact if exact else each.grouped for each in COLORS},
        default=IGNORE if exact else VOID,
        stray=stray,
        known="CamVid's 32",
    )


def ids_of_colors(colors: np.ndarray, path: Path, *, classes: Classes = "grouped") -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W) uint8 ids. Colours must match exactly; a few strays become void."""
    return color_ids(classes)(colors, path)


def _original_folders(root: Path) -> tuple[Path, Path] | None:
    for photos, labels in (("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels")):
        if (root / photos).is_dir():
            return root / photos, require_folder(root / labels, expected=TREE, option="data.root")
    return None


def _rows(path: Path, *, columns: int | None = None) -> list[list[str]]:
    rows = read_rows(path, columns=(columns,) if columns else (1, 2), expected="a list of file names")
    for number, row in rows:
        if columns is not None and len(row) != columns:
            raise DataError(f"{path}: line {number} has {len(row)} names, expected 'photo label'.")
    return [row for _, row in rows]


def _last_two(root: Path, name: str) -> Path:
    """SegNet's lists hold absolute paths of another machine: only folder and file count."""
    return root.joinpath(*Path(name.replace("\\", "/")).parts[-2:])
