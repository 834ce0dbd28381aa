"""People as the rows of a CSV file: a picture, and a column for each number of each keypoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from dvsn.data.coco_files import Picture, check_picture_sizes
from dvsn.data.files import require_file
from dvsn.data.labelled import check_choices
from dvsn.data.people import PeopleDataset, PersonRecord, require_pictures
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable import headers
from dvsn.reading import LARGEST, Line, read_table, to_text
from dvsn.types import Sample

TREE = """\
    ROOT/{table}        image,width,height,JOINT_x,JOINT_y,JOINT_v,... with a person a line
    ROOT/{pictures}/NAME.jpg
    JOINT_v is 0 (not labelled), 1 or 2; coordinates in pixels. With data.people.visibility=false there is no such column."""


HEADINGS = {"image": "image", "x": "{name}_x", "y": "{name}_y", "v": "{name}_v"}


class KeypointTable(PeopleDataset):
    """One person a line: `image`, `width`, `height`, then `NAME_x`, `NAME_y`, `NAME_v` for every keypoint.

    `table` is the file of a split below `root`, with `{split}` in its name; `pictures` the folder of the pictures,
    likewise. Without `visibility` there is no `NAME_v`, and every keypoint is labelled whose cells are not empty or NaN.
    `box` frames the person: `picture`, the whole of it, which tells nothing about the answer; or `keypoints`, the extent of
    those labelled, with which scores are not comparable. Columns of further keypoints are refused unless `extra_columns`,
    since leaving out some may be a mistake. `first_pixel` is what the table calls the centre of the first pixel: 0,
    1, or 0.5 where it counts from the picture's edge. It is subtracted: only so do mirrored labels lie where plain ones do.

    `columns` are the headings of another table: `image`, and `x`, `y` and `v` as patterns with `{name}` or `{number}`, from
    0, such as {image: file, x: "x{number}", y: "y{number}"}; what is left out is as above.

    `sizes`: "file" compares the columns `width` and `height` with the pictures when the set is opened; "picture" believes
    the pictures, and needs no such columns.
    """

    numbered: ClassVar[str] = "line"

    def __init__(
        self,
        *,
        root: str,
        split: str,
        keypoints: KeypointSet,
        table: str = "{split}.csv",
        pictures: str = "images",
        box: Literal["picture", "keypoints"] = "picture",
        visibility: bool = True,
        first_pixel: float = 0,
        extra_columns: bool = False,
        sizes: Literal["file", "picture"] = "file",
        columns: dict[str, str] | None = None,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        check_choices(
            {
                "box": (box, ("picture", "keypoints")),
                "sizes": (sizes, ("file", "picture")),
                "first_pixel": (first_pixel, (0, 0.5, 1)),
            },
            node="data.people",
        )
        super().__init__(keypoints=keypoints, transform=transform, seed=seed)
        self.marks, self.sizes, self.first_pixel = "xyv" if visibility else "xy", sizes, first_pixel
        self.headings = HEADINGS | (columns or {})
        unknown = next((key for key in self.headings if key not in HEADINGS), None)
        if unknown:
            raise ConfigError(f"data.people.columns.{unknown}: unknown key. {nearest(unknown, HEADINGS)}")
        name, pictures = table.replace("{split}", split), pictures.replace("{split}", split)
        tree = TREE.format(table=table, pictures=pictures)
        path = require_file(Path(root) / name, expected=tree, option="data.root (or data.people.table)")
        rows = read_table(path, expected="a CSV table of people")
        found = [each.strip() for each in rows[0].columns] if rows else []
        self._check_columns(found, path, extra_columns)
        folder = Path(root) / pictures
        self.said: list[Picture] = []
        self.records = [self._record(row, found, folder, box, path) for row in rows[1:]]
        if not self.records:
            raise DataError(f"{path}: no person in it. Expected:\n{tree}")
        require_pictures([record.picture for record in self.records], path, tree=tree)
        if sizes == "file":
            said = {picture.path: picture for picture in self.said}
            check_picture_sizes(list(said.values()), path, option="data.people.sizes")

    def _check_columns(self, columns: list[str], path: Path, extra: bool) -> None:
        wanted = [self.headings["image"], *(["width", "height"] if self.sizes == "file" else [])]
        wanted += [each for row in self._columns() for each in row]
        for column in wanted:
            if column not in columns:
                raise DataError(
                    f"{path}: has no column '{column}'. {nearest(column, columns)} The keypoints are data.keypoints.names."
                )
        twice = next((column for column in columns if column in wanted and columns.count(column) > 1), None)
        if twice:
            raise DataError(f"{path}: line 1: the column '{twice}' is there twice, expected it once.")
        left = [column for column in columns if column not in (*wanted, "width", "height")]
        if left and not extra:
            raise DataError(
                f"{path}: columns of no keypoint: {', '.join(left[:6])}{', ...' if len(left) > 6 else ''}. Name them in "
                "data.keypoints.names, or set data.people.extra_columns=true to leave them out."
            )

    def _columns(self) -> list[list[str]]:
        """The headings of each keypoint."""
        return [
            [self.headings[part].format(name=name, number=number) for part in self.marks]
            for number, name in enumerate(self.keypoints.names)
        ]

    def _record(self, line: Line, columns: list[str], folder: Path, box: str, path: Path) -> PersonRecord:
        where, names = f"{path}: line {line.number}", self.keypoints.names
        if len(line.columns) != len(columns):
            raise DataError(
                f"{where}: found {len(line.columns)} columns, expected {len(columns)} as in line 1."
            )
        row = dict(zip(columns, line.columns, strict=True))
        heading = self.headings["image"]
        picture = folder / to_text(row[heading], f"{where}: {heading}", "the name of a picture")
        try:
            values = np.array(
                [[number_in(row[each]) for each in found] for found in self._columns()], np.float32
            )
            width, height = self._sides(row, picture, where)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{where}: expected a number in every column ({error}).") from error
        points = values[:, :2] - self.first_pixel
        labels = values[:, 2] if len(self.marks) == 3 else np.ones(len(names))
        labels = np.where(np.isnan(values).all(axis=1), 0, labels)  # nothing is written there
        for name, point, label in zip(names, points, labels, strict=True):
            if label not in (0, 1, 2):
                raise DataError(
                    f"{where}: {name}_v is {label:g}, expected 0 (not labelled), 1 (hidden) or 2 (visible)."
                )
            if label and not (np.abs(point) <= LARGEST).all():
                raise DataError(f"{where}: {name} is labelled and at {point.tolist()}, expected two numbers.")
        labelled = (labels > 0).astype(np.uint8)
        frame = (0.0, 0.0, width, height)
        if box == "keypoints" and labelled.any():
            low, sides = points[labelled > 0].min(axis=0), np.ptp(points[labelled > 0], axis=0)
            frame = (float(low[0]), float(low[1]), max(1.0, float(sides[0])), max(1.0, float(sides[1])))
        return PersonRecord(
            picture=picture,
            box=frame,
            keypoints=np.where(labelled[:, None] > 0, points, 0).astype(np.float32),
            labelled=labelled,
            number=line.number,
        )

    def _sides(self, row: dict[str, str], picture: Path, where: str) -> tuple[float, float]:
        """Width and height of a line's picture."""
        if self.sizes == "picture":
            found = headers.size_of(picture) or (1, 1)  # a picture that is not there is named later
            return float(found[1]), float(found[0])
        width, height = float(row["width"]), float(row["height"])
        if not (0 < width <= LARGEST and 0 < height <= LARGEST):
            raise DataError(
                f"{where}: width and height are {width:g} and {height:g}, expected numbers above 0."
            )
        self.said.append(Picture(picture, round(width), round(height)))
        return width, height


def number_in(cell: str) -> float:
    """The number in a cell; NaN for an empty one. Raises `ValueError`."""
    return float(cell) if cell.strip() else math.nan
