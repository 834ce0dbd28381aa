"""One pass over the files of a split, past every fault: what each item holds, or why it cannot be read."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from torch.utils.data import DataLoader, Dataset

from dvsn.data.class_ids import MANY, UnknownIds
from dvsn.data.dataset import ImageDataset, check_sizes
from dvsn.data.files import deep_file, highest_deep
from dvsn.data.module import DataModule, Wanted, calm_opencv, start_worker
from dvsn.errors import ConfigError, UserError
from dvsn.portable.headers import orientation_of
from dvsn.types import IGNORE

KINDS: dict[str, Wanted] = {"dvsn.tasks.pose.Pose": "people", "dvsn.tasks.detection.Detection": "objects"}
"""What tasks read that do not read pictures with labels."""


@dataclass(frozen=True)
class Record:
    """One item: its size, class counts and the digest of its photos; or a fault, and nothing of these."""

    name: str
    files: str
    kind: str = ""
    """Of the fault: "unreadable", "unknown ids" or "sizes differ"; "" without one."""
    message: str = ""
    unknown: Mapping[int, int] = field(default_factory=dict)
    """Pixels by unknown id."""
    size: tuple[int, int] | None = None
    counts: np.ndarray | None = None
    """(256,) int64 pixels by class; None where the data set has no classes."""
    digest: str = ""
    turned: int = 1
    """The largest orientation tag of the files, 1 being upright."""
    deep: int | None = None
    """The highest value of its photos with 16 bits a channel; None of others."""
    remarks: tuple[tuple[str, str], ...] = ()
    """What is odd about its annotations: the kind, and which and how."""


class Walk(Dataset[Record]):
    """Reads items without a transform and without ever raising. `label` names the array of class ids."""

    def __init__(self, dataset: ImageDataset, *, label: str | None, classes: int) -> None:
        self.dataset, self.label, self.classes = dataset, label, classes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Record:
        name, files = self.dataset.name(index), self.dataset.describe(index)
        try:
            with self.dataset.ruled():
                arrays = self.dataset.read(index)
        except UnknownIds as error:
            if len(error.counts) > MANY:
                return Record(name, files, "soft mask", str(error))
            return Record(name, files, "unknown ids", str(error), unknown=error.counts)
        except UserError as error:
            return Record(name, files, "unreadable", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the walk goes on and reports it
            return Record(name, files, "unreadable", f"{type(error).__name__}: {error}")
        kinds = {key: kind for key, kind in self.dataset.kinds.items() if key in arrays and kind != "number"}
        pictures = {key: arrays[key] for key in kinds}
        try:
            check_sizes(pictures)
        except UserError as error:
            return Record(name, files, "sizes differ", str(error))
        photos = [pictures[key] for key, kind in kinds.items() if kind == "photo"]
        height, width = next(iter(pictures.values())).shape[:2]
        banded = self.dataset.rule is not None and self.dataset.rule.bands is not None
        common: dict[str, Any] = {
            "size": (height, width),
            "digest": digest(photos),
            "turned": turned(files),
            "deep": None if banded else deepest(self.dataset.photos(index)),
        }
        if self.label is None or arrays[self.label].ndim != 2:
            return Record(name, files, **common)
        counts = np.bincount(arrays[self.label].ravel(), minlength=256)
        unknown = {
            int(each): int(counts[each]) for each in np.flatnonzero(counts) if self.classes <= each != IGNORE
        }
        if unknown:
            found = ", ".join(f"{value} on {pixels} pixels" for value, pixels in unknown.items())
            message = f"ids outside 0..{self.classes - 1} and {IGNORE}: {found}"
            return Record(name, files, "unknown ids", message, unknown=unknown)
        return Record(name, files, counts=counts, **common)


def digest(photos: list[np.ndarray]) -> str:
    """The same for equal pixels, whatever the format of the files; "" without photos."""
    if not photos:
        return ""
    state = hashlib.blake2b(digest_size=16)
    for photo in photos:
        state.update(str(photo.shape).encode())
        state.update(np.ascontiguousarray(photo).data)
    return state.hexdigest()


def turned(files: str) -> int:
    """The largest orientation tag among the files of a description, of any format; 1 is upright, and no tag at all."""
    return max((orientation_of(path) for path in files.split(" + ") if Path(path).is_file()), default=1)


def deepest(photos: Sequence[Path]) -> int | None:
    """The highest value of the photos that have 16 bits a channel; None where none has."""
    values = [highest_deep(path) for path in photos if deep_file(path)]
    return max((value for value in values if value is not None), default=None)


def label_of(data: DataModule, dataset: ImageDataset) -> str | None:
    """The array that holds class ids; None where the target is a picture, or no picture at all."""
    if data.wanted != "dataset":
        return None
    name = data.pair.target
    ids = data.classes and dataset.kinds.get(name) == "label" and name not in dataset.palettes
    return name if ids else None


def open_split(data: DataModule, split: str) -> ImageDataset:
    """The bare reader of a split, by the data set's own name for it. Raises `DataError` as the reader does."""
    dataset = data.read(split)
    if data.wanted == "dataset":
        data.pair.check(dataset.kinds)
    return dataset


def choose_kind(data: DataModule, config: dict[str, Any]) -> None:
    """Let the data module read what the task of a plain config asks for: pictures, people or objects.

    The menu's own task asks for pictures; a data set that has none then shows what else it has.
    """
    wanted = KINDS.get((config.get("task") or {}).get("_target_", ""), "dataset")
    nodes = {kind: config["data"].get(kind) or {} for kind in get_args(Wanted)}
    if (
        wanted == "dataset" and "_target_" not in nodes["dataset"]
    ):  # the menu's task has left its options there
        wanted = next((kind for kind, node in nodes.items() if "_target_" in node), wanted)
    data.use(wanted)


def walk(walker: Dataset[Record], *, title: str, workers: int, limit: int | None = None) -> Iterator[Record]:
    """The records of a `Walk` in order, with a progress bar where a person is watching."""
    from rich.console import Console
    from rich.progress import track

    if workers < 0 or (limit is not None and limit < 1):
        raise ConfigError(
            f"workers, limit: found {workers} and {limit}; expected 0 or more workers, and a limit of 1 or more or null."
        )
    size = len(walker)  # type: ignore[arg-type]
    count = min(size, limit or size)
    calm_opencv()
    records = DataLoader(
        walker,
        sampler=range(count),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=min(workers, count),
        worker_init_fn=start_worker,
    )
    yield from track(
        records,
        description=title,
        total=count,
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _as_it_is(record: Any) -> Any:
    return record


@dataclass
class Tally:
    """What the records of one split add up to. Items with a fault are in `faulty` and in nothing else."""

    samples: int = 0
    walked: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    """By class id, 255 being the ignored."""
    images: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    """How many show the class."""
    beside: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    """All pixels, ignored ones too, of the images that show the class."""
    faulty: list[Record] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    """Files whose label is ignored everywhere."""
    turned: dict[str, int] = field(default_factory=dict)
    deep: dict[str, int] = field(default_factory=dict)
    """Highest values of photos with 16 bits a channel, by files."""
    names: dict[str, str] = field(default_factory=dict)
    """Files by name."""
    digests: dict[str, list[str]] = field(default_factory=dict)
    """Names by content."""
    unknown: dict[int, dict[str, int]] = field(default_factory=dict)
    """Pixels by unknown id and files."""
    remarks: dict[str, list[str]] = field(default_factory=dict)
    """Of annotations, by kind."""

    def plain(self, names: Sequence[str]) -> dict[str, Any]:
        """What there is to say beside sizes and classes, as JSON has it; `names` are those of keypoints."""
        return {}

    def add(self, record: Record) -> None:
        self.walked += 1
        self.names[record.name] = record.files
        for kind, text in record.remarks:
            self.remarks.setdefault(kind, []).append(text)
        if record.kind:
            self.faulty.append(record)
            for value, pixels in record.unknown.items():
                self.unknown.setdefault(value, {})[record.files] = pixels
            return
        assert record.size is not None
        self.sizes[record.size] += 1
        if record.digest:
            self.digests.setdefault(record.digest, []).append(record.name)
        if record.turned != 1:
            self.turned[record.files] = record.turned
        if record.deep is not None:
            self.deep[record.files] = record.deep
        if record.counts is not None:
            shown = record.counts > 0
            self.pixels += record.counts
            self.images += shown
            self.beside += shown * record.counts.sum()
            if not shown[:IGNORE].any():
                self.blank.append(record.files)
