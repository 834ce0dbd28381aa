"""People as the rows of a CSV file: a picture, and a column for each number of each keypoint."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from dvsn.data.files import require_file
from dvsn.data.labelled import check_choices
from dvsn.data.people import PeopleDataset, PersonRecord, require_pictures
from dvsn.errors import DataError, nearest
from dvsn.geometry.keypoints import KeypointSet
from dvsn.types import Sample

TREE = """\
    ROOT/{table}        image,width,height,JOINT_x,JOINT_y,JOINT_v,... with a person a line
    ROOT/{pictures}/NAME.jpg
    JOINT_v is 0 (not labelled), 1 or 2; coordinates in pixels. With visibility=false there is no such column."""


class KeypointTable(PeopleDataset):
    """One person a line: `image`, `width`, `height`, then `NAME_x`, `NAME_y`, `NAME_v` for every keypoint.

    `table` is the file of a split below `root`, with `{split}` in its name; `pictures` the folder of the pictures,
    likewise. Without `visibility` there is no `NAME_v`, and every keypoint is labelled. `box` frames the person:
    `picture`, the whole of it, which tells nothing about the answer; or `keypoints`, the extent of those labelled, with
    which scores are not comparable. Columns of further keypoints are refused unless `extra_columns`, since leaving out
    some may be a mistake.
    """

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
        extra_columns: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        check_choices({"box": (box, ("picture", "keypoints"))})
        super().__init__(keypoints=keypoints, transform=transform, seed=seed)
        self.parts = "xyv" if visibility else "xy"
        name, pictures = table.replace("{split}", split), pictures.replace("{split}", split)
        tree = TREE.format(table=table, pictures=pictures)
        path = require_file(Path(root) / name, expected=tree, option="data.root (or data.people.table)")
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            columns = list(rows.fieldnames or ())
            self._check_columns(columns, path, extra_columns)
            folder = Path(root) / pictures
            self.records = [
                self._record(row, folder, box, f"{path}: line {number}")
                for number, row in enumerate(rows, start=2)
            ]
        if not self.records:
            raise DataError(f"{path}: no person in it. Expected:\n{tree}")
        require_pictures([record.picture for record in self.records], path, tree=tree)

    def _check_columns(self, columns: list[str], path: Path, extra: bool) -> None:
        wanted = ["image", "width", "height"]
        wanted += [f"{name}_{part}" for name in self.keypoints.names for part in self.parts]
        for column in wanted:
            if column not in columns:
                raise DataError(
                    f"{path}: has no column '{column}'. {nearest(column, columns)} The keypoints are data.keypoints.names."
                )
        left = [column for column in columns if column not in wanted]
        if left and not extra:
            raise DataError(
                f"{path}: columns of no keypoint: {', '.join(left[:6])}{', ...' if len(left) > 6 else ''}. Name them in "
                "data.keypoints.names, or set data.people.extra_columns=true to leave them out."
            )

    def _record(self, row: dict[str, str], folder: Path, box: str, where: str) -> PersonRecord:
        names = self.keypoints.names
        try:
            values = np.array(
                [[float(row[f"{name}_{part}"]) for part in self.parts] for name in names], np.float32
            )
            width, height = float(row["width"]), float(row["height"])
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: expected a number in every column ({error}).") from error
        points, labels = values[:, :2], values[:, 2] if len(self.parts) == 3 else np.ones(len(names))
        for name, point, label in zip(names, points, labels, strict=True):
            if label not in (0, 1, 2):
                raise DataError(
                    f"{where}: {name}_v is {label:g}, expected 0 (not labelled), 1 (hidden) or 2 (visible)."
                )
            if label and not np.isfinite(point).all():
                raise DataError(f"{where}: {name} is labelled and at {point.tolist()}, expected two numbers.")
        if not (width > 0 and height > 0):
            raise DataError(
                f"{where}: width and height are {width:g} and {height:g}, expected numbers above 0."
            )
        labelled = (labels > 0).astype(np.uint8)
        frame = (0.0, 0.0, width, height)
        if box == "keypoints" and labelled.any():
            low, sides = points[labelled > 0].min(axis=0), np.ptp(points[labelled > 0], axis=0)
            frame = (float(low[0]), float(low[1]), max(1.0, float(sides[0])), max(1.0, float(sides[1])))
        return PersonRecord(
            picture=folder / row["image"],
            box=frame,
            keypoints=np.where(labelled[:, None] > 0, points, 0).astype(np.float32),
            labelled=labelled,
            number=int(where.rpartition(" ")[2]),
        )
