"""300-W: faces of 68 points, a text file of points beside each picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dvsn.data.files import SUFFIXES, require_folder
from dvsn.data.folders import ALL
from dvsn.data.people import PeopleDataset, PersonRecord
from dvsn.data.wflw import face_record, parse_numbers
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.geometry.keypoints import KeypointSet
from dvsn.reading import read_text
from dvsn.types import Sample

TREE = """\
    ROOT/FOLDER/NAME.png (or .jpg, ...)   a picture of a face
    ROOT/FOLDER/NAME.pts                  its points"""


class W300(PeopleDataset):
    """300-W (Sagonas et al., ICCV workshops 2013): every NAME.pts of the folders of a split, in the order of their names.

    `parts` lists the folders of each part of the set; a split is a part, or one of `unions` of parts, such as full =
    common + challenge; without `parts`, a split is the folder of its name. Its faces' `group` is the part, so that parts
    are also measured alone. Published files count
    pixels from `first_pixel` = 1, which is subtracted. Pictures without points are left alone.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        keypoints: KeypointSet,
        parts: Mapping[str, Sequence[str]] | None = None,
        unions: Mapping[str, Sequence[str]] | None = None,
        first_pixel: int = 1,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(keypoints=keypoints, transform=transform, seed=seed)
        unions = unions or {}
        if parts is None:  # a folder a split; the set called all lies in the root
            place = split if split != ALL or (Path(root) / split).is_dir() else "."
            parts, unions = {split: [place]}, {}
        chosen = list(unions.get(split, [split]))
        for part in chosen:
            if part not in parts:
                raise ConfigError(
                    f"data.splits: '{part}' is no part of this data set. {nearest(part, [*parts, *unions])}"
                )
        self.records = []
        for part in chosen:
            for name in parts[part]:
                folder = require_folder(
                    Path(root) / name, expected=TREE, option="data.root or data.people.parts"
                )
                self.records += self._faces(folder, part, first_pixel)

    def _faces(self, folder: Path, part: str, first_pixel: int) -> list[PersonRecord]:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        pictures = {Path(name).stem: name for name in names if Path(name).suffix.lower() in SUFFIXES}
        found = []
        for name in (name for name in names if name.lower().endswith(".pts")):
            if Path(name).stem not in pictures:
                raise DataError(
                    f"{folder / name}: no picture {Path(name).stem}.png or .jpg beside it. Expected:\n{TREE}"
                )
            points = read_pts(folder / name, len(self.keypoints)) - first_pixel
            found.append(
                face_record(folder / pictures[Path(name).stem], points, number=0)._replace(group=part)
            )
        if not found:
            raise DataError(f"{folder}: no .pts file in it. Expected:\n{TREE}")
        return found

    def describe(self, index: int) -> str:
        return str(self.records[index].picture)


def read_pts(path: Path, count: int) -> np.ndarray:
    """The points of a .pts file as they stand, (count, 2) float64.

    It reads `version: 1`, `n_points: COUNT`, `{`, a line `x y` for each point, `}`.
    """
    lines = read_text(path, expected="the points of a face").splitlines()
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    head = [("version:", "1"), ("n_points:", str(count)), ("{", "")]
    for place, (key, value) in enumerate(head):
        number, line = numbered[place] if place < len(numbered) else (place + 1, "")
        if line.split() != [word for word in (key, value) if word]:
            raise DataError(
                f"{path}: line {number}: found '{line[:40]}', expected '{f'{key} {value}'.strip()}'."
            )
    body = numbered[len(head) :]
    end = next((place for place, (_, line) in enumerate(body) if line == "}"), None)
    if end != count or len(body) != count + 1:
        found = (
            "no closing '}'"
            if end is None
            else f"{end} lines of points, then '}}' and {len(body) - end - 1} more"
        )
        raise DataError(f"{path}: found {found}; expected {count} lines 'x y', then '}}', and nothing else.")
    rows = []
    for number, line in body[:count]:
        fields = line.split()
        if len(fields) != 2:
            raise DataError(f"{path}: line {number}: found '{line[:40]}', expected two numbers, 'x y'.")
        rows.append(parse_numbers(fields, f"{path}: line {number}"))
    return np.array(rows)
