"""What `python -m dvsn.data check` looks at in a data set of people: each picture once, with everyone in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from torch.utils.data import Dataset

from dvsn.data.dataset import ImageDataset, Joined
from dvsn.data.module import DataModule
from dvsn.data.people import PeopleDataset, PersonRecord
from dvsn.data_tools.findings import Finding, counted, gathered
from dvsn.data_tools.walk import Record, Tally, deepest, digest, turned
from dvsn.errors import UserError
from dvsn.geometry.mirrors import lacking_pairs

OUTSIDE_BOX = "box outside the picture"
OUTSIDE_JOINTS = "keypoints outside the picture"
APART = "keypoints outside their box"


@dataclass(frozen=True)
class Group(Record):
    """One picture and the people in it."""

    people: int = 0
    labelled: np.ndarray | None = None
    """(K,) int64: how many people have each keypoint labelled."""
    bare: int = 0
    """People without a labelled keypoint."""


class PeopleWalk(Dataset[Group]):
    """Reads each picture of a data set of people once, without ever raising."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.groups: dict[Path, list[PersonRecord]] = {}
        self.readers: list[tuple[PeopleDataset, int]] = []
        for number in range(len(dataset)):
            part, place = dataset.at(number) if isinstance(dataset, Joined) else (dataset, number)
            assert isinstance(part, PeopleDataset)
            record = part.records[place]
            if record.picture not in self.groups:
                self.readers.append((part, place))
            self.groups.setdefault(record.picture, []).append(record)

    def __len__(self) -> int:
        return len(self.readers)

    def __getitem__(self, index: int) -> Group:
        part, place = self.readers[index]
        path = part.records[place].picture
        group = Group(f"{path.parent.name}/{path.stem}", str(path))
        try:
            with part.ruled():
                photo = part.read(place)["photo"]
        except UserError as error:
            return replace(group, kind="unreadable", message=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the walk goes on and reports it
            return replace(group, kind="unreadable", message=f"{type(error).__name__}: {error}")
        height, width = photo.shape[:2]
        people = self.groups[path]
        labelled = np.stack([each.labelled > 0 for each in people])
        remarks = tuple((kind, text) for each in people for kind, text in remarks_on(each, width, height))
        return replace(
            group,
            size=(height, width),
            digest=digest([photo]),
            turned=turned(str(path)),
            deep=deepest(part.photos(place)),
            people=len(people),
            labelled=labelled.sum(axis=0),
            bare=int(np.logical_not(labelled.any(axis=1)).sum()),
            remarks=remarks,
        )


def remarks_on(record: PersonRecord, width: int, height: int) -> Iterator[tuple[str, str]]:
    """What is odd about a person in a picture of this size."""
    who = f"{record.picture.name}, annotation {record.number}" if record.number >= 0 else record.picture.name
    x, y, wide, high = record.box
    shape = f"box {[round(float(each), 1) for each in record.box]} in a picture of {width} x {height}"
    if x >= width or y >= height or x + wide <= 0 or y + high <= 0:
        yield OUTSIDE_BOX, f"{who}: {shape}"
    points = record.keypoints[record.labelled > 0]
    if not len(points):
        return
    out = ((points < -0.5) | (points > (width - 0.5, height - 0.5))).any(axis=1)
    if out.any():
        worst = [round(float(each), 1) for each in points[out][0]]
        yield (
            OUTSIDE_JOINTS,
            f"{who}: {out.sum()} of {len(points)}, such as {worst} in a picture of {width} x {height}",
        )
    if not ((points >= (x - 1, y - 1)) & (points <= (x + wide + 1, y + high + 1))).all(axis=1).any():
        yield APART, f"{who}: all {len(points)}; {shape}"


@dataclass
class PeopleTally(Tally):
    """What the pictures of one split add up to."""

    people: int = 0
    bare: int = 0
    labelled: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, record: Record) -> None:
        super().add(record)
        if not isinstance(record, Group) or record.labelled is None:
            return
        self.people += record.people
        self.bare += record.bare
        self.labelled = record.labelled + (self.labelled if len(self.labelled) else 0)

    def plain(self, names: Sequence[str]) -> dict[str, Any]:
        """As JSON has it."""
        counts = self.labelled.tolist() or [0] * len(names)
        return {
            "people": self.people,
            "without_keypoints": self.bare,
            "labelled": dict(zip(names, counts, strict=True)),
            "remarks": self.remarks,
        }


def start(dataset: ImageDataset) -> tuple[PeopleWalk, PeopleTally]:
    """What reads the pictures of a split, and what they will add up to."""
    walker = PeopleWalk(dataset)
    return walker, PeopleTally(samples=len(walker))


def faults(splits: dict[str, Tally], data: DataModule) -> Iterator[Finding]:
    """Boxes that show nothing of their picture, keypoints of another person, and keypoints that training never shows."""
    for title, tally in people_of(splits):
        for kind in (OUTSIDE_BOX, APART):
            if kind in tally.remarks:
                yield gathered(kind, title, tally.remarks[kind], "person", "people")
    if data.keypoints is not None:
        unpaired = lacking_pairs(data.keypoints.names, data.keypoints.pairs)
        if unpaired:
            pairs = ",".join(f"[{one},{other}]" for one, other in unpaired)
            yield Finding(
                "keypoint without its mirror",
                ", ".join(splits),
                f"{counted(len(unpaired), 'pair')} of left and right that a mirror does not exchange, so that a left one is "
                f"taught as a right one: {pairs}. Add to data.keypoints.pairs.",
            )
    train = [title for title, _ in people_of(splits) if "train" in title.split(" + ")]
    learnt = [tally for title, tally in people_of(splits) if title in train]
    if not learnt or any(not tally.people or tally.walked < tally.samples for tally in learnt):
        return
    for number, name in enumerate(names_of(data)):
        counts = {title: int(tally.labelled[number]) for title, tally in people_of(splits) if tally.people}
        if not any(tally.labelled[number] for tally in learnt) and any(counts.values()):
            where = ", ".join(f"{count} in {title}" for title, count in counts.items() if count)
            yield Finding(
                "keypoint not in train", ", ".join(train), f"{number} {name}: never labelled, but {where}"
            )


def notes(splits: dict[str, Tally], data: DataModule) -> Iterator[Finding]:
    """What may well be meant so."""
    for title, tally in people_of(splits):
        if OUTSIDE_JOINTS in tally.remarks:
            yield gathered(OUTSIDE_JOINTS, title, tally.remarks[OUTSIDE_JOINTS], "person", "people")
        if tally.bare and tally.labelled.any():
            yield Finding(
                "no keypoint labelled",
                title,
                f"nothing to learn from {counted(tally.bare, 'person', 'people')}",
            )
    known = [tally for _, tally in people_of(splits) if tally.people]
    for number, name in enumerate(names_of(data)):
        if known and not any(tally.labelled[number] for tally in known):
            yield Finding("keypoint nowhere", ", ".join(splits), f"{number} {name} is never labelled")


def left_out(dataset: ImageDataset, title: str) -> Iterator[Finding]:
    """Annotations that a reader does not use, by its reason."""
    for part in dataset.parts if isinstance(dataset, Joined) else [dataset]:
        for reason, numbers in getattr(part, "left_out", {}).items():
            if numbers:
                shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
                message = f"{reason}: {counted(len(numbers), 'annotation')}, {shown}"
                yield Finding("left out", title, message)


def people_of(splits: dict[str, Tally]) -> Iterator[tuple[str, PeopleTally]]:
    for title, tally in splits.items():
        if isinstance(tally, PeopleTally):
            yield title, tally


def names_of(data: DataModule) -> tuple[str, ...]:
    """Those of the keypoints."""
    return data.keypoints.names if data.keypoints is not None else ()


def table(splits: dict[str, Tally], keypoints: Sequence[str]) -> Any:
    """How many people there are, and the share of them that has each keypoint labelled."""
    drawn = Table("keypoint", title="labelled, in % of the people", title_justify="left")
    found = list(people_of(splits))
    for title, tally in found:
        drawn.add_column(f"{title}: {tally.people} people", justify="right")
    for number, name in enumerate(keypoints):
        shares = [f"{100 * t.labelled[number] / t.people:.1f}" if t.people else "-" for _, t in found]
        drawn.add_row(f"{number} {name}", *shares)
    return drawn
