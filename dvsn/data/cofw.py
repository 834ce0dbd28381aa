"""COFW: faces of 29 points, many of them occluded; pictures and points in one MATLAB file a split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.data.files import check_pixels, require_file
from dvsn.data.people import PeopleDataset, require_count
from dvsn.data.wflw import face_record
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.reading import LARGEST, require_regular
from dvsn.types import Sample

TREE = "    ROOT/{annotations}   MATLAB files with {pictures}, {points}, for {{split}} = {split}"
ARRAYS = {"train": ("IsTr", "phisTr", "bboxesTr"), "test": ("IsT", "phisT", "bboxesT")}


MOST_NUMBERS = 10_000_000  # in an array of points or boxes, of which COFW has 87 x 1,345


class Cofw(PeopleDataset):
    """COFW (Burgos-Artizzu et al., ICCV 2013): COFW_train_color.mat and COFW_test_color.mat, which need h5py.

    - A row of `phisTr` (or `phisT`) is x of every keypoint, then y, then a flag, 1 where it is hidden; hidden ones are
      labelled too. MATLAB counts pixels from 1, which is subtracted.
    - Boxes are `bboxesTr` where the file has them, else those of the points.
    - `picture` of a record is the file and the face's number in it; pictures are read from the file one by one.
    - The splits are `train` and `test`.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        keypoints: KeypointSet,
        annotations: str = "COFW_{split}_color.mat",
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(keypoints=keypoints, transform=transform, seed=seed)
        if split not in ARRAYS:
            raise ConfigError(f"data.splits: COFW has {' and '.join(ARRAYS)}, found '{split}'.")
        self.images, points, boxes = ARRAYS[split]
        tree = TREE.format(annotations=annotations, pictures=self.images, points=points, split=split)
        self.file = require_file(
            Path(root) / annotations.replace("{split}", split), expected=tree, option="data.root"
        )
        self._opened: Any = None
        with _open(self.file) as content:
            missing = [name for name in (self.images, points) if name not in content]
            if missing:
                raise DataError(f"{self.file}: has no {', '.join(missing)}. Expected:\n{tree}")
            for name in (points, boxes):
                if (
                    name in content and content[name].size > MOST_NUMBERS
                ):  # of zeros, they take no room in the file
                    raise DataError(
                        f"{self.file}: {name}: {content[name].size:,} numbers, expected {MOST_NUMBERS:,} at most."
                    )
            rows = np.array(content[points], np.float64).T  # MATLAB's columns are h5py's rows: (N, 3K)
            rectangles = np.array(content[boxes], np.float64).T if boxes in content else None
            pictures = int(np.prod(content[self.images].shape))
        require_count(rows.shape[1] // 3, keypoints, f"{self.file}: {points}")
        if len(rows) != pictures or (rectangles is not None and rectangles.shape != (pictures, 4)):
            raise DataError(
                f"{self.file}: {pictures} pictures, {len(rows)} rows of points, boxes "
                f"{None if rectangles is None else rectangles.shape}; expected as many of each, and 4 numbers a box."
            )
        count = len(keypoints)
        self.records = []
        for number, row in enumerate(rows):
            if not (np.abs(row) <= LARGEST).all():
                raise DataError(
                    f"{self.file}: face {number}: points that are no numbers; expected finite ones."
                )
            record = face_record(
                self.file / str(number), row[: 2 * count].reshape(2, -1).T - 1, number=number
            )
            if rectangles is not None:
                x, y, width, height = (float(value) for value in rectangles[number])
                record = record._replace(box=(x - 1, y - 1, width, height))
            self.records.append(record)

    def photo(self, index: int) -> np.ndarray:
        if self._opened is None:
            self._opened = _open(self.file)  # in each process anew: see __getstate__
        pictures = self._opened[self.images]
        found = self._opened[pictures[np.unravel_index(index, pictures.shape)]]
        sides = tuple(getattr(found, "shape", ()))[-2:]
        if len(sides) == 2:
            check_pixels(f"{self.file}: face {index}", (sides[1], sides[0]))
        layers = int(np.prod(getattr(found, "shape", ())[:-2]))
        if layers > 3:
            raise DataError(f"{self.file}: face {index}: {layers:,} layers, expected 1 or 3.")
        picture = np.array(found)
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
            raise DataError(
                f"{self.file}: face {index}: {picture.dtype} {picture.shape}, expected an 8-bit picture."
            )
        picture = picture.T  # (H, W) or (H, W, 3)
        return np.ascontiguousarray(picture if picture.ndim == 3 else np.stack([picture] * 3, axis=-1))

    def describe(self, index: int) -> str:
        return f"{self.file}, face {index}"

    def photos(self, index: int) -> list[Path]:
        return []  # they lie in one MATLAB file

    def name(self, index: int) -> str:
        return f"{self.file.stem}_{index}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{path}: reading MATLAB files of version 7.3 needs h5py, which is not installed. Install it (pip install "
            "h5py)."
        ) from error
    require_regular(path, expected="a MATLAB file of version 7.3")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: not a MATLAB file of version 7.3 ({error}).") from error
