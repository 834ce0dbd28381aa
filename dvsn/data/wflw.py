"""Faces as lines of numbers, as WFLW publishes them; and what readers of faces share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dvsn.data.coco_files import first_present
from dvsn.data.files import SUFFIXES, require_file, require_folder
from dvsn.data.people import PeopleDataset, PersonRecord, require_pictures
from dvsn.errors import DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.reading import read_rows, to_numbers
from dvsn.types import Sample

Box = tuple[float, float, float, float]

TREE = """\
    ROOT/{annotations}
    ROOT/{images}/EVENT/NAME.jpg"""


class Wflw(PeopleDataset):
    """WFLW (Wu et al., CVPR 2018, arXiv:1805.10483), and lists of your own in its layouts. One face a line:

    - x and y of every keypoint, then the face's rectangle x_min y_min x_max y_max, a flag 0 or 1 for each of
      `attributes`, and the picture's name below `images`: `list_98pt_rect_attr_{train,test}.txt`.
    - x and y of every keypoint, and the picture's name: `list_98pt_test/*.txt`, the test faces of an attribute. The box
      is that of the points, and the split's name is the `group`.

    `annotations` is the file of a split below `root`, with `{split}` in its name; of several the first that is there.
    Points may lie outside their picture; `python -m dvsn.data check` counts them.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        keypoints: KeypointSet,
        annotations: str | Sequence[str],
        images: str = "WFLW_images",
        attributes: Sequence[str] = (),
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(keypoints=keypoints, transform=transform, seed=seed)
        self.attribute_names = tuple(attributes)
        shown = annotations if isinstance(annotations, str) else " or ".join(annotations)
        tree = TREE.format(annotations=shown, images=images)
        self.file = require_file(
            first_present(root, annotations, split),
            expected=tree,
            option="data.root or data.people.annotations",
        )
        folder = require_folder(Path(root) / images, expected=tree, option="data.root or data.people.images")
        points = 2 * len(keypoints)
        widths = (points + 1, points + 4 + len(self.attribute_names) + 1)
        self.records = [
            self._record(columns, number, folder, split)
            for number, columns in read_rows(self.file, columns=widths, expected="a list of faces")
        ]
        if not self.records:
            raise DataError(f"{self.file}: no face in it. Expected:\n{tree}")
        if len({each.attributes is None for each in self.records}) > 1:
            odd = next(each for each in self.records if each.attributes is None)
            raise DataError(
                f"{self.file}: line {odd.number}: without rectangle and flags, which others have."
            )
        require_pictures([record.picture for record in self.records], self.file, tree=tree)

    def _record(self, columns: list[str], line: int, folder: Path, split: str) -> PersonRecord:
        where, points = f"{self.file}: line {line}", 2 * len(self.keypoints)
        flags, name = len(self.attribute_names), columns[-1]
        short, long = points + 1, points + 4 + flags + 1
        if len(columns) not in (short, long) or Path(name).suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{where}: found {len(columns)} columns, the last '{name[-60:]}'; expected {long} ({points} numbers of "
                f"{len(self.keypoints)} keypoints, 4 of the rectangle, {flags} flags, the picture's name), or {short} "
                "without rectangle and flags."
            )
        values = parse_numbers(columns[:-1], where)
        place = values[:points].reshape(-1, 2)
        record = face_record(folder / name, place, number=line)
        if len(columns) == short:
            return record._replace(group=split)
        box = corners_to_box(values[points : points + 4], where)
        marks = values[points + 4 :]
        for attribute, mark in zip(self.attribute_names, marks, strict=True):
            if mark not in (0, 1):
                raise DataError(f"{where}: the flag '{attribute}' is {mark:g}, expected 0 or 1.")
        return record._replace(box=box, attributes=marks.astype(np.uint8))


def face_record(picture: Path, points: np.ndarray, *, number: int) -> PersonRecord:
    """A face all of whose points (K, 2) are labelled, in their tight box."""
    return PersonRecord(
        picture=picture,
        box=points_box(points),
        keypoints=points.astype(np.float32),
        labelled=np.ones(len(points), np.uint8),
        number=number,
    )


def points_box(points: np.ndarray) -> Box:
    """The box of points (K, 2): x, y, width, height; a pixel wide and high at least."""
    (x, y), (width, height) = points.min(axis=0), np.maximum(1, np.ptp(points, axis=0))
    return float(x), float(y), float(width), float(height)


def corners_to_box(corners: np.ndarray, where: str) -> Box:
    """x_min, y_min, x_max, y_max -> x, y, width, height. Raises `DataError` for a box without an inside."""
    left, top, right, bottom = (float(value) for value in corners)
    if not (left < right and top < bottom):
        raise DataError(
            f"{where}: the rectangle is {left:g} {top:g} {right:g} {bottom:g}, expected x_min y_min x_max y_max with an "
            "inside."
        )
    return left, top, right - left, bottom - top


def parse_numbers(fields: Sequence[str], where: str) -> np.ndarray:
    """Finite numbers, float64. Raises `DataError` for the first field that is none."""
    return np.array(to_numbers(fields, where))
