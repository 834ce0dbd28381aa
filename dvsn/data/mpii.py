"""MPII Human Pose: people in everyday activities, 16 joints, a centre and a scale instead of a box."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.data.coco_files import is_numbers
from dvsn.data.dataset import split_names
from dvsn.data.files import require_file, require_folder
from dvsn.data.people import PeopleDataset, PersonRecord, require_count, require_pictures
from dvsn.errors import DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.reading import read_json, require_regular, to_text
from dvsn.types import Sample

TREE = """\
    ROOT/annot/train.json, valid.json   a list of {image, center, scale, joints, joints_vis}, a person each
    ROOT/annot/gt_valid.mat             the head boxes of valid.json, person by person
    ROOT/images/NAME.jpg"""
MOST_NUMBERS = 100_000_000  # in the file of head boxes, of which MPII has 16 x 2 x 2,958 for the joints
HEAD = 0.6  # of the head box's diagonal: the length that PCKh counts in


class Mpii(PeopleDataset):
    """MPII (Andriluka et al., CVPR 2014) in the JSON form of HRNet's code: one person an entry.

    Positions in the files count from 1. The centre lies on the chest, so it is lowered by 15 `scale`; the box, with a
    padding of 1.25, is then the published crop: a square of 250 `scale` pixels.

    `heads` is the evaluator's MATLAB file of a split, which needs scipy. Its head boxes are what PCKh needs; its joints and
    their visibility replace those of the JSON file. The file is not needed for the splits in `train_split`, nor where
    entries hold `head_box`, [[x1, y1], [x2, y2]]. `heads=null`: no file, and no PCKh.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        keypoints: KeypointSet,
        annotations: str = "annot/{split}.json",
        images: str = "images",
        heads: str | None = "annot/gt_{split}.mat",
        train_split: str = "train",
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(keypoints=keypoints, transform=transform, seed=seed)
        self.file = require_file(
            Path(root) / annotations.replace("{split}", split), expected=TREE, option="data.root"
        )
        folder = require_folder(Path(root) / images, expected=TREE, option="data.root or data.people.images")
        content = read_json(self.file)
        if not isinstance(content, list) or not content:
            raise DataError(f"{self.file}: expected a list with an entry for each person:\n{TREE}")
        self.records = [self._record(each, number, folder) for number, each in enumerate(content)]
        if (
            heads
            and split not in split_names(train_split)
            and np.isnan([r.length for r in self.records]).any()
        ):
            path = require_file(
                Path(root) / heads.replace("{split}", split),
                expected=TREE,
                option="data.people.heads (null: do without head sizes and without PCKh)",
            )
            self.records = with_heads(self.records, path)
        require_pictures([record.picture for record in self.records], self.file, tree=TREE)

    def _record(self, entry: Any, number: int, folder: Path) -> PersonRecord:
        where = f"{self.file}: annotation {number}"
        wanted = ("image", "center", "scale", "joints", "joints_vis")
        lacking = [key for key in wanted if not isinstance(entry, dict) or key not in entry]
        if lacking:
            raise DataError(f"{where}: has no {', '.join(lacking)}; expected {', '.join(wanted)}.")
        joints, flags, count = entry["joints"], entry["joints_vis"], len(self.keypoints)
        if isinstance(joints, list):
            require_count(len(joints), self.keypoints, where)
        if not isinstance(joints, list) or not all(is_numbers(each, 2) for each in joints):
            raise DataError(f"{where}: joints: expected {count} times [x, y], finite numbers.")
        if not is_numbers(flags, count) or not set(flags) <= {0, 1}:
            raise DataError(f"{where}: joints_vis: found {flags}, expected {count} times 0 or 1.")
        centre, scale = entry["center"], entry["scale"]
        if not is_numbers(centre, 2) or not is_numbers([scale], 1) or scale <= 0:
            raise DataError(
                f"{where}: center {centre}, scale {scale}; expected [x, y] and a number above 0: half of the box's "
                "side in hundreds of pixels."
            )
        labelled = np.array(flags, np.uint8)
        points = np.array(joints, np.float64) - 1
        x, y, side = centre[0] - 1, centre[1] + 15 * scale - 1, 200 * scale
        return PersonRecord(
            picture=folder / to_text(entry["image"], f"{where}: image", "the name of a picture"),
            box=(x - side / 2, y - side / 2, side, side),
            keypoints=np.where(labelled[:, None] > 0, points, 0).astype(np.float32),
            labelled=labelled,
            number=number,
            length=_head(entry["head_box"], where) if "head_box" in entry else float("nan"),
        )


def _head(corners: Any, where: str) -> float:
    if not isinstance(corners, list) or len(corners) != 2 or not all(is_numbers(each, 2) for each in corners):
        raise DataError(f"{where}: head_box: found {corners}, expected [[x1, y1], [x2, y2]].")
    length = HEAD * float(np.linalg.norm(np.subtract(*corners)))
    if length <= 0:
        raise DataError(f"{where}: head_box: found {corners}, expected two different corners.")
    return length


def with_heads(records: list[PersonRecord], path: Path) -> list[PersonRecord]:
    """The records with the lengths, joints and visibility of the evaluator's file."""
    try:
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        raise DataError(
            f"{path}: reading MATLAB files needs scipy, which is not installed. Install it (pip install scipy), or give "
            "each entry of the JSON file a head_box."
        ) from error
    count, joints = len(records), len(records[0].labelled)
    shapes = {
        "headboxes_src": (2, 2, count),
        "pos_gt_src": (joints, 2, count),
        "jnt_missing": (joints, count),
    }
    require_regular(path, expected="a MATLAB file")
    try:
        held = sum(math.prod(size) for name, size, _ in whosmat(str(path)) if name in shapes)
        if held > MOST_NUMBERS:
            raise ValueError(f"{held:,} numbers in it, expected {MOST_NUMBERS:,} at most")
        content = loadmat(str(path), variable_names=list(shapes))
    except Exception as error:
        raise DataError(f"{path}: not a MATLAB file ({type(error).__name__}: {error}).") from error
    for name, shape in shapes.items():
        found = content[name].shape if name in content else "nothing"
        if found != shape:
            raise DataError(
                f"{path}: '{name}': found {found}, expected {shape} for the {count} people of the split. Do the JSON file "
                "and this one belong together?"
            )
    corners = content["headboxes_src"].astype(np.float64)  # (2, 2, N): corner, coordinate
    lengths = HEAD * np.linalg.norm(corners[1] - corners[0], axis=0)
    points = content["pos_gt_src"].astype(np.float64).transpose(2, 0, 1) - 1  # (N, K, 2)
    labelled = (content["jnt_missing"].T == 0).astype(np.uint8)
    points = np.where(labelled[..., None] > 0, points, 0).astype(np.float32)
    return [
        record._replace(length=float(length), keypoints=place, labelled=shown)
        for record, length, place, shown in zip(records, lengths, points, labelled, strict=True)
    ]
