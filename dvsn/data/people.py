"""The base of all readers of people: a person is a picture, a box and keypoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dvsn.data.dataset import ImageDataset, Joined
from dvsn.data.files import read_rgb
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.truths import Truths
from dvsn.types import Sample


class PersonRecord(NamedTuple):
    """One person of a picture. Points and boxes in pixels of the picture, pixel centres at integers."""

    picture: Path
    box: tuple[float, float, float, float]
    """x, y, width, height, before the crop's ratio and padding."""
    keypoints: np.ndarray
    """(K, 2) float32; zeros where not labelled, and for detections."""
    labelled: np.ndarray
    """(K,) uint8: 1 where a keypoint is labelled, be it visible or hidden."""
    number: int
    """The annotation's id, or its line; -1 for a detection."""
    image_id: int = 0
    score: float = 1.0
    """Of the box, where it was detected."""
    length: float = float("nan")
    """A reference length of the score, where the file gives one, such as MPII's head size."""
    attributes: np.ndarray | None = None
    """(A,) uint8 flags 0 or 1, in the order of the data set's `attribute_names`."""
    group: str = ""
    """The part of the data set that this person is counted in, such as 300-W's `challenge`."""


class PeopleDataset(ImageDataset):
    """People, one an item; readers fill `records`.

    An item is `photo`, `box` (4,), `keypoints` (K, 2) and `labelled` (K,); and `attributes` (A,) where the records have
    flags, which `attribute_names` names. `annotations` is the truth in COCO's format where the score needs all of it,
    else None.
    """

    records: list[PersonRecord]
    attribute_names: tuple[str, ...] = ()
    numbered: ClassVar[str] = "annotation"
    """What the number of a record is of."""
    annotations: dict[str, Any] | None = None

    def __init__(
        self, *, keypoints: KeypointSet, transform: Callable[[Sample, int], Sample] | None, seed: int
    ) -> None:
        self.keypoints = keypoints
        self.kinds = {"photo": "photo"}
        super().__init__(transform=transform, seed=seed)

    def __len__(self) -> int:
        return len(self.records)

    def describe(self, index: int) -> str:
        record = self.records[index]
        return f"{record.picture}" + (f", {self.numbered} {record.number}" if record.number >= 0 else "")

    def photos(self, index: int) -> list[Path]:
        return [self.records[index].picture]

    @cached_property
    def _shared(self) -> set[str]:
        """Stems that pictures in different folders share."""
        folders: dict[str, Path] = {}
        return {
            r.picture.stem for r in self.records if folders.setdefault(r.picture.stem, r.picture) != r.picture
        }

    def name(self, index: int) -> str:
        """The picture's stem, its folder where stems repeat, and the place in the data set."""
        picture = self.records[index].picture
        stem = f"{picture.parent.name}_{picture.stem}" if picture.stem in self._shared else picture.stem
        return f"{stem}_{index}"

    def read(self, index: int) -> Sample:
        record = self.records[index]
        sample = {
            "photo": self.photo(index),
            "box": np.array(record.box, np.float32),
            "keypoints": record.keypoints,
            "labelled": record.labelled,
        }
        return sample if record.attributes is None else sample | {"attributes": record.attributes}

    def photo(self, index: int) -> np.ndarray:
        """The picture of a person, (H, W, 3) uint8 RGB."""
        return read_rgb(self.records[index].picture)

    def truths(self) -> Truths:
        """The records as scores take them."""
        return truths_of(self)


class JoinedPeople(Joined):
    """Several splits as one. `annotations` is None: the truth of a server's score belongs to one split."""

    annotations: dict[str, Any] | None = None

    def __init__(self, parts: Sequence[PeopleDataset], places: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__(parts, places)
        self.keypoints, self.attribute_names = parts[0].keypoints, parts[0].attribute_names
        self.records = [
            part.records[place] for part, each in zip(parts, self.places, strict=True) for place in each
        ]

    def truths(self) -> Truths:
        return truths_of(self)


def truths_of(people: PeopleDataset | JoinedPeople) -> Truths:
    """The records as arrays."""
    records, count, names = people.records, len(people.keypoints), people.attribute_names
    bare = np.zeros(len(names), np.uint8)
    flags = [bare if each.attributes is None else each.attributes for each in records]
    return Truths(
        keypoints=np.array([each.keypoints for each in records], np.float64).reshape(-1, count, 2),
        labelled=np.array([each.labelled for each in records], np.uint8).reshape(-1, count) > 0,
        length=np.array([each.length for each in records], np.float64),
        box=np.array([each.box for each in records], np.float64).reshape(-1, 4),
        score=np.array([each.score for each in records], np.float64),
        image_id=np.array([each.image_id for each in records], np.int64),
        annotation=np.array([each.number for each in records], np.int64),
        groups=tuple(each.group for each in records),
        attributes=np.array(flags, np.uint8).reshape(len(records), len(names)) > 0,
        attribute_names=names,
        describe=people.describe,
        coco=lambda: people.annotations,
        source=type(people).__name__,
    )


def require_pictures(paths: list[Path], where: str | Path, *, tree: str) -> None:
    """Raise `DataError` for the first missing picture. Each folder is listed once."""
    names = {
        folder: {each.name for each in folder.iterdir()} if folder.is_dir() else set()
        for folder in {path.parent for path in paths}
    }
    missing = list(dict.fromkeys(path for path in paths if path.name not in names[path.parent]))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{missing[0]}: no such picture{more}, but {where} names it. Set data.root, or check the tree:\n{tree}"
        )


def require_count(found: int, keypoints: KeypointSet, where: str) -> None:
    """Raise unless a file has as many keypoints a person as the configuration names."""
    if found != len(keypoints):
        raise ConfigError(
            f"{where}: has {found} keypoints a person, but data.keypoints.names lists {len(keypoints)}: "
            f"{', '.join(keypoints.names[:20])}. Choose the data set that the file belongs to, or change the names."
        )
