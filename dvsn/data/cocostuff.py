"""COCO-Stuff-10k: 171 classes of things and stuff, in each of the numberings its files come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dvsn.data.class_ids import ClassIds, distinct_palette
from dvsn.data.cocostuff_names import CLASS_NAMES, PUBLISHED_IDS
from dvsn.data.files import list_pictures, read_labels, require_folder
from dvsn.data.labelled import (
    ADVICE,
    LabelledPhotos,
    Labels,
    check_choices,
    existing_pairs,
    label_name,
    listed_pairs,
)
from dvsn.errors import DataError
from dvsn.reading import read_rows
from dvsn.types import IGNORE, Sample, Vocabulary

TREE = """\
    as published:  ROOT/images/NAME.jpg + ROOT/annotations/NAME.mat (or NAME.png), the names of a split, one a
                   line, in ROOT/imageLists/{train,test}.txt
    converted:     ROOT/images/train2014/NAME.jpg + ROOT/annotations/train2014/NAME.png (or
                   NAME_labelTrainIds.png), test2014 alike, also train, test, train2017 and so on
    or any tree with data.dataset.list_file"""

Ids = Literal["auto", "one_based", "zero_based", "original182"]

MEANINGS: dict[str, tuple[str, dict[int, int]]] = {
    "one_based": ("1..171 and 0", {each + 1: each for each in range(171)} | {0: IGNORE}),
    "zero_based": ("0..170 and 255", {each: each for each in range(171)} | {IGNORE: IGNORE}),
    "original182": (
        "the published 1..182 and 0",
        {each: number for number, each in enumerate(PUBLISHED_IDS)} | {0: IGNORE},
    ),
}
"""For each numbering, in words and as file id -> class."""

LOOKED_AT = 500
"""The most label files that `ids=auto` reads."""


class CocoStuff(LabelledPhotos):
    """9,000 train and 1,000 test photos of varying size (Caesar et al., 2018, arXiv:1612.03716).

    Label files exist in three numberings, and `ids` says which one the PNG files hold:

    - "one_based": 1..171, 0 ignored; what conversions of the 10k set store;
    - "zero_based": 0..170, 255 ignored; what conversions of the 164k set store;
    - "original182": 1..182 as published, of which 11 never occur, 0 ignored. MATLAB files always hold this;
    - "auto": the one numbering that allows every id found. Label files of the split are read until two are excluded: by 255
      (zero_based is left), by an id above 171 (original182), or by 171 together with one of the 11 reserved ids
      (one_based). If 500 files leave a choice, `DataError` is raised, since a wrong one shifts every class by one.

    `ignore_ids` are further ids to ignore, in the numbering of the files.
    """

    matlab_variable = "S"

    def __init__(
        self,
        *,
        root: str,
        split: str,
        labels: Labels = "classes",
        ids: Ids = "auto",
        list_file: str | None = None,
        ignore_ids: Sequence[int] = (),
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        check_choices({"ids": (ids, get_args(Ids))})
        super().__init__(vocabulary=self.vocabulary(), labels=labels, transform=transform, seed=seed)
        base = require_folder(root, expected=TREE, option="data.root")
        found = _find(base, split) if list_file is None else listed_pairs(base, list_file, split)
        self.pairs = existing_pairs(found, base, tree=TREE)
        if ids == "auto":
            ids = numbering([label for _, label in self.pairs if label.suffix != ".mat"], ignore_ids)
        self.class_ids = class_ids(ids, ignore_ids)
        self.matlab_ids = class_ids("original182", ignore_ids)

    @classmethod
    def vocabulary(cls, **_: object) -> Vocabulary:
        """The 171 classes, person first, wood last, whatever the numbering of the files."""
        return Vocabulary(CLASS_NAMES, distinct_palette(len(CLASS_NAMES)))


def class_ids(ids: Ids, ignore_ids: Sequence[int] = ()) -> ClassIds:
    """What the ids of one numbering mean."""
    kind, class_of = MEANINGS[ids]
    return ClassIds(
        class_of,
        kind=kind,
        names=CLASS_NAMES,
        ignore_ids=ignore_ids,
        advice=f"This is data.dataset.ids={ids}; the others are {', '.join(each for each in MEANINGS if each != ids)}.",
    )


def numbering(labels: Sequence[Path], ignore_ids: Sequence[int] = ()) -> Ids:
    """The numbering that the values in these files are possible in; a `DataError` unless it is one alone."""
    if not labels:
        return "original182"  # MATLAB files only
    seen = np.zeros(256, bool)
    choices: list[Ids] = ["one_based", "zero_based", "original182"]
    looked_at = labels[:: -(-len(labels) // LOOKED_AT)]
    for path in looked_at:
        ids = read_labels(path, advice=ADVICE)
        if ids.max() > 255:
            raise DataError(f"{path}: holds id {ids.max()}; expected 182 at most, or 255 for ignored.")
        seen |= np.bincount(ids.ravel(), minlength=256).astype(bool)
        values = set(np.flatnonzero(seen).tolist()) - set(ignore_ids)
        choices = [each for each in choices if values <= MEANINGS[each][1].keys()]
        if len(choices) == 1:
            return choices[0]
        if not choices:
            break
    told = "; ".join(f"{name}: {kind}" for name, (kind, _) in MEANINGS.items())
    found = f"{len(looked_at)} label files, such as {looked_at[0]}, hold ids {min(values)} to {max(values)}"
    if choices:
        raise DataError(
            f"{path}: data.dataset.ids=auto cannot decide: {found}, which {' and '.join(choices)} allow. Set "
            f"data.dataset.ids ({told})."
        )
    raise DataError(
        f"{path}: data.dataset.ids=auto found no numbering that has all ids seen so far, {min(values)} to "
        f"{max(values)}. Known: {told}. Set data.dataset.ids, and data.dataset.ignore_ids for what it lacks."
    )


def _find(root: Path, split: str) -> list[tuple[Path, Path]]:
    """The pairs of a split, as published or converted."""
    images, annotations = (
        require_folder(root / name, expected=TREE, option="data.root") for name in ("images", "annotations")
    )
    listing = root / "imageLists" / f"{split}.txt"
    if listing.is_file():
        photos = [images / f"{row[0]}.jpg" for _, row in read_rows(listing, expected="a list of names")]
    else:
        folder = next(
            (each for year in ("", "2014", "2017") if (each := images / f"{split}{year}").is_dir()), None
        )
        if folder is None:
            raise DataError(
                f"{listing}: no such file, and no folder {images}/{split}. Expected one of these trees:\n{TREE}"
            )
        photos, annotations = list_pictures(folder), annotations / folder.name
    there = {each.name for each in annotations.iterdir()} if annotations.is_dir() else set()
    endings = (".png", "_labelTrainIds.png", ".mat")
    return [(photo, annotations / label_name(there, photo.stem, endings)) for photo in photos]
