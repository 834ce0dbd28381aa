"""Readers of shards: the samples that another reader gave, from the bytes of its files."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dvsn.data.class_ids import palette_table
from dvsn.data.dataset import ImageDataset
from dvsn.data.people import PeopleDataset, PersonRecord
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable.decode import to_labels, to_photo, to_rgb
from dvsn.shards.index import TRUTH_LIMIT, read_checked
from dvsn.shards.source import Opened, Source
from dvsn.types import Sample, Vocabulary

PNG_START = b"\x89PNG\r\n\x1a\n"


def windowed(picture: np.ndarray, window: int) -> np.ndarray:
    """A part of a picture by its number in `dvsn.shards.index.WINDOWS`."""
    half = picture.shape[1] // 2
    return (picture, picture[:, :half], picture[:, half:])[window]


class Sharded(ImageDataset):
    """What both readers share: a split of `source` and the files of its samples."""

    opened: Opened

    @property
    def shard_of(self) -> np.ndarray:
        """(N,) the shard of each sample."""
        return self.opened.shard_of

    def __len__(self) -> int:
        return len(self.opened.items)

    def describe(self, index: int) -> str:
        row = next((each for part in self.kinds if (each := self._row(index, part)) is not None), None)
        where = self.opened.storage.url if row is None else self.opened.where(row)
        return f"{where}: {self.stored_name(index)}"

    def stored_name(self, index: int) -> str:
        return os.fsdecode(self.opened.table["name"][self.opened.items[index]])

    def _row(self, index: int, part: str) -> int | None:
        column = self.opened.table.get(f"{part}.file")
        return None if column is None else int(column[self.opened.items[index]])

    def picture(self, index: int, part: str, decoded: dict[int, np.ndarray]) -> np.ndarray:
        """A photo of a sample; `decoded` keeps files that several of its arrays are parts of."""
        row = self._row(index, part)
        assert row is not None
        if row not in decoded:
            decoded[row] = to_photo(self.describe(index), self.opened.read(row))
        window = int(self.opened.table[f"{part}.window"][self.opened.items[index]])
        return windowed(decoded[row], window)


class ShardedPictures(Sharded):
    """Pictures and labels from shards (`dvsn.data shard`). Keys and kinds are those of the source.

    - `labels`: how a map of classes called `label` is given: `classes`, or in `color`.
    - `names`, `palette`, `swaps` (pairs of numbers), `file_ids`: the classes, as of `Vocabulary`; `data=shards` takes them
      from the index.
    - `source`: shards, by whose options and cache those at `root` are read; None: by the usual ones.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        labels: Literal["classes", "color"] = "classes",
        names: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        swaps: Sequence[Sequence[int]] | None = None,
        file_ids: Sequence[int] | None = None,
        source: Source | None = None,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        source = Source(root) if source is None else source.at(root)
        if labels not in ("classes", "color"):
            raise ConfigError(f"data.dataset.labels: found '{labels}', expected classes or color.")
        if labels == "color" and not palette:
            raise ConfigError(
                f"data.dataset.labels: found color, and the classes of {root} have no colours. Set "
                "data.dataset.labels=classes or data.dataset.palette."
            )
        if source.index.kind != "dataset":
            raise ConfigError(f"data.dataset: the shards at {root} hold people, not pictures with a target.")
        self.kinds, self.types = dict(source.index.parts), dict(source.index.types)
        self.palettes = {"label": palette_table(palette)} if labels == "color" and palette else {}
        super().__init__(transform=transform, seed=seed)
        self.opened = source.open(split)
        self.class_names = tuple(names or ())
        if self.kinds.get("class") == "number":
            self.targets = self.opened.column("class")
            if names and self.targets.max(initial=0) >= len(names):
                raise DataError(f"{root}: a class of {self.targets.max()}, expected 0 to {len(names) - 1}.")

    @staticmethod
    def vocabulary(
        *,
        names: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        swaps: Sequence[Sequence[int]] | None = None,
        file_ids: Sequence[int] | None = None,
        **_: object,
    ) -> Vocabulary | None:
        if not names:
            return None
        colors = tuple((int(red), int(green), int(blue)) for red, green, blue in palette or ())
        mirrored = tuple((int(one), int(other)) for one, other in swaps or ())
        return Vocabulary(tuple(names), colors, mirrored, tuple(map(int, file_ids or ())))

    def name(self, index: int) -> str:
        return self.stored_name(index)

    def read(self, index: int) -> Sample:
        decoded: dict[int, np.ndarray] = {}
        return {part: self._array(index, part, decoded) for part in self.kinds}

    def read_label(self, index: int, name: str) -> np.ndarray:
        return self._array(index, name, {})  # type: ignore[no-any-return]

    def _array(self, index: int, part: str, decoded: dict[int, np.ndarray]) -> Any:
        kind = self.kinds[part]
        if kind == "number":
            return int(self.opened.table[part][self.opened.items[index]])
        if kind == "photo":
            return self.picture(index, part, decoded)
        row = self._row(index, part)
        assert row is not None
        return label_of(self.opened.read(row), self.types[part], self.describe(index))


class ShardedPeople(Sharded, PeopleDataset):
    """People from shards, one an item. `attributes`: the names of the flags; `source` as of `ShardedPictures`."""

    def __init__(
        self,
        *,
        root: str,
        split: str,
        keypoints: KeypointSet,
        attributes: Sequence[str] | None = None,
        source: Source | None = None,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        source = Source(root) if source is None else source.at(root)
        if source.index.kind != "people":
            raise ConfigError(f"data.people: the shards at {root} hold pictures, not people.")
        PeopleDataset.__init__(self, keypoints=keypoints, transform=transform, seed=seed)
        self.opened = source.open(split)
        self.attribute_names = tuple(attributes or ())
        self.records = self._records(root)

    def _records(self, root: str) -> list[PersonRecord]:
        shape, flags = (len(self.opened.items), len(self.keypoints)), len(self.attribute_names)
        expected = {
            "box": (shape[0], 4), "keypoints": (*shape, 2), "labelled": shape, "number": shape[:1], "image": shape[:1],
            "score": shape[:1], "length": shape[:1], "group": shape[:1], "picture": shape[:1],
            "attributes": (shape[0], flags),
        }  # fmt: skip
        columns: dict[str, np.ndarray] = {}
        for name, wanted in expected.items():
            column = self.opened.column(name) if name in self.opened.table else np.empty(0)
            kinds = "S" if name in ("group", "picture") else "biuf"
            if column.shape != wanted or column.dtype.kind not in kinds:
                raise DataError(
                    f"{root}: the column '{name}' of people is {column.dtype} {column.shape}, expected {wanted} of "
                    f"{len(self.keypoints)} keypoints and {flags} attributes. Leave data.keypoints.names to the index."
                )
            columns[name] = column
        boxes = columns["box"].tolist()
        text = {name: [os.fsdecode(each) for each in columns[name].tolist()] for name in ("group", "picture")}
        return [
            PersonRecord(
                Path(text["picture"][item]),
                (box[0], box[1], box[2], box[3]),
                columns["keypoints"][item],
                columns["labelled"][item],
                int(columns["number"][item]),
                image_id=int(columns["image"][item]),
                score=float(columns["score"][item]),
                length=float(columns["length"][item]),
                attributes=columns["attributes"][item] if flags else None,
                group=text["group"][item],
            )
            for item, box in enumerate(boxes)
        ]

    def photos(self, index: int) -> list[Path]:
        return []  # they are no files

    def name(self, index: int) -> str:
        return PeopleDataset.name(self, index)

    def photo(self, index: int) -> np.ndarray:
        return self.picture(index, "photo", {})

    @cached_property
    def annotations(self) -> dict[str, Any] | None:  # type: ignore[override]
        """The truth in COCO's format, of the pictures that are there."""
        file = self.opened.split.truth
        if file is None:
            return None
        data = read_checked(self.opened.storage, file, limit=TRUTH_LIMIT)
        content: dict[str, Any] = json.loads(data)
        there = set(self.opened.column("image").tolist())
        lost = set(self.opened.table["image"].tolist()) - there
        return without(content, lost) if lost else content


def without(content: Mapping[str, Any], lost: set[int]) -> dict[str, Any]:
    """Annotations less those of lost pictures."""
    return {
        **content,
        "images": [each for each in content["images"] if each["id"] not in lost],
        "annotations": [each for each in content["annotations"] if each["image_id"] not in lost],
    }


def label_of(data: bytes, kind: str, where: str) -> np.ndarray:
    """A label from its content: a PNG of ids or colours, or an array of numpy."""
    if not data.startswith(PNG_START):
        try:
            array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            return np.asarray(array, np.dtype(kind))
        except (ValueError, EOFError, MemoryError) as error:
            raise DataError(f"{where}: no readable array ({error}).") from error
    if data[25:26] == b"\2":  # the type of its pixels: colours
        return to_rgb(where, data)
    return to_labels(where, data).astype(np.dtype(kind), copy=False)
