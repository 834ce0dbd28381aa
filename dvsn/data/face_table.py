"""Faces with a centre and a scale instead of a box: the CSV tables of HRNet's code, and the JSON files of mmpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from dvsn.data.coco_files import Picture, check_ids, check_picture_sizes, list_pictures, read_coco, table
from dvsn.data.files import require_file, require_folder
from dvsn.data.labelled import check_choices
from dvsn.data.people import PeopleDataset, PersonRecord, require_count, require_pictures
from dvsn.data.wflw import face_record, parse_numbers
from dvsn.errors import DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.reading import read_table, to_number, to_text
from dvsn.types import Sample

TREE = """\
    ROOT/{annotations}   picture,scale,[box size],centre x,centre y,x0,y0,...  a face a line, under a line of names;
                         or a .json file in COCO's format with center, scale and perhaps box_size for each face
    ROOT/{images}/NAME.jpg"""
UNIT = 200  # pixels of the face's box for a scale of 1


class FaceTable(PeopleDataset):
    """AFLW-19 (Zhu et al., CVPR 2016), and 300-W, COFW and WFLW in the same form (Sun et al., 2019, arXiv:1904.04514).

    `annotations` is the file of a split below `root`, with `{split}` in its name: CSV, whose columns count by their
    place, or JSON. The box is a square around the centre whose side is the box size, or else 200 times the scale; its
    side is also the `length` that AFLW's errors are relative to. The `bbox` of the JSON files is not used: mmpose's
    samples have wrong ones. Coordinates stand as they are in the file. `sizes`: "file" compares the pictures' headers with
    the sizes of a JSON file when the set is opened; "picture" believes the pictures.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        keypoints: KeypointSet,
        annotations: str,
        images: str = "images",
        sizes: Literal["file", "picture"] = "file",
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        check_choices({"sizes": (sizes, ("file", "picture"))}, node="data.people")
        super().__init__(keypoints=keypoints, transform=transform, seed=seed)
        self.sizes, self.pictures = sizes, dict[int, Picture]()
        tree = TREE.format(annotations=annotations, images=images)
        self.file = require_file(
            Path(root) / annotations.replace("{split}", split),
            expected=tree,
            option="data.root or data.people.annotations",
        )
        folder = require_folder(
            Path(root) / images.replace("{split}", split),
            expected=tree,
            option="data.root or data.people.images",
        )
        reader = self._from_json if self.file.suffix.lower() == ".json" else self._from_csv
        self.records = reader(folder)
        if not self.records:
            raise DataError(f"{self.file}: no face in it. Expected:\n{tree}")
        require_pictures([record.picture for record in self.records], self.file, tree=tree)
        if sizes == "file":
            used = {record.image_id for record in self.records}
            known = [picture for number, picture in self.pictures.items() if number in used]
            check_picture_sizes(known, self.file, option="data.people.sizes")

    def _from_csv(self, folder: Path) -> list[PersonRecord]:
        rows = read_table(self.file, expected="a CSV table of faces")
        points = 2 * len(self.keypoints)
        width = len(rows[0].columns) if rows else 0
        if width not in (points + 4, points + 5):
            raise DataError(
                f"{self.file}: line 1: found {width} columns, expected {points + 4} (picture, scale, centre x, centre y, "
                f"{points} numbers of {len(self.keypoints)} keypoints), or {points + 5} with the box size after the scale."
            )
        found = []
        for line, row in rows[1:]:
            where = f"{self.file}: line {line}"
            if len(row) != width:
                raise DataError(f"{where}: found {len(row)} columns, expected {width} as in line 1.")
            values = parse_numbers(row[1:], where)
            size = values[1] if width == points + 5 else UNIT * values[0]
            centre, place = values[-points - 2 : -points], values[-points:].reshape(-1, 2)
            picture = to_text(row[0], f"{where}: column 1", "the name of a picture")
            record = face_record(folder / picture, place, number=line)
            found.append(in_square(record, centre, float(size), where))
        return found

    def _from_json(self, folder: Path) -> list[PersonRecord]:
        content = read_coco(self.file, needs="keypoints")
        faces = content["annotations"]
        pictures = list_pictures(content["images"], folder, self.file, sizes_from=self.sizes)
        self.pictures = pictures
        check_ids(faces, pictures, self.file)
        for each in faces:
            given = each.get("keypoints")
            if not isinstance(given, list):
                continue  # the table below says so
            count = len(given) // 3
            require_count(count, self.keypoints, f"{self.file}: annotation {each['id']}")
        values = table(faces, "keypoints", 3 * len(self.keypoints), self.file, "x, y, v for each keypoint")
        centres = table(faces, "center", 2, self.file, "x, y")
        found = []
        for each, row, centre in zip(
            faces, values.reshape(len(faces), len(self.keypoints), 3), centres, strict=True
        ):
            where = f"{self.file}: annotation {each['id']}"
            labelled = (row[:, 2] > 0).astype(np.uint8)
            record = face_record(pictures[each["image_id"]].path, row[:, :2], number=each["id"])._replace(
                keypoints=np.where(labelled[:, None] > 0, row[:, :2], 0).astype(np.float32),
                labelled=labelled,
                image_id=each["image_id"],
            )
            size = (
                to_number(each["box_size"], f"{where}: box_size")
                if "box_size" in each
                else (UNIT * to_number(each.get("scale", 0), f"{where}: scale"))
            )
            found.append(in_square(record, centre, size, where))
        return found


def in_square(record: PersonRecord, centre: np.ndarray, side: float, where: str) -> PersonRecord:
    """The record with a square box, whose side is its length. Raises `DataError` where it has no inside."""
    if not side > 0:
        raise DataError(
            f"{where}: the face's box has a side of {side:g} pixels, expected a number above 0: its size, or "
            f"{UNIT} times its scale."
        )
    x, y = (float(value) - side / 2 for value in centre)
    return record._replace(box=(x, y, side, side), length=side)
