"""What `python -m dvsn.data check task=detection` looks at beside the pictures: the objects in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.table import Table

from dvsn.data.dataset import ImageDataset
from dvsn.data.module import DataModule
from dvsn.data.objects import Annotation, ObjectDataset, inside, mask_fault
from dvsn.data_tools.findings import Finding, counted, gathered
from dvsn.data_tools.walk import Record, Tally, Walk

OUTSIDE = "box outside the picture"
BEYOND = "box beyond the edge"
EMPTY = "box without an area"
CORNERS = "boxes written as corners"
SHARES = "boxes written as shares"
SLACK = 1.0  # pixels that a box may reach beyond its picture, from rounding
SUSPECT = (
    0.2  # of the boxes beyond the edge, from which on they may be something else than x, y, width, height
)


@dataclass(frozen=True)
class Scene(Record):
    """One picture and the objects in it."""

    objects: tuple[int, ...] = ()
    """Labels of single objects."""
    crowds: int = 0
    masks: int = 0
    """Objects with a mask that can be read."""
    corners: int = 0
    """Boxes that would lie within the picture, were they x1, y1, x2, y2."""
    shares: int = 0
    """Boxes of numbers from 0 to 1."""


class ObjectWalk(Walk):
    """Reads each picture of a data set of objects without ever raising, and looks at its objects."""

    def __init__(self, dataset: ObjectDataset) -> None:
        super().__init__(dataset, label=None, classes=0)
        self.objects = dataset

    def __getitem__(self, index: int) -> Record:
        record = super().__getitem__(index)
        if record.kind or record.size is None:
            return record
        found, size = self.objects.truth(index), self.objects.size(index)
        scene = Scene(**{name: getattr(record, name) for name in Record.__dataclass_fields__})
        return replace(
            scene,
            objects=tuple(each["category_id"] for each in found if not each["iscrowd"]),
            crowds=sum(each["iscrowd"] for each in found),
            masks=sum(not mask_fault(each.get("segmentation"), size) for each in found),
            remarks=tuple(remark for each in found for remark in remarks_on(each, size, record.files)),
            corners=sum(fits_as_corners(each["bbox"], size) for each in found),
            shares=sum(max(map(abs, each["bbox"])) <= 1 for each in found),
        )


def remarks_on(annotation: Annotation, size: tuple[int, int], files: str) -> Iterator[tuple[str, str]]:
    """What is odd about the box of an object in a picture (H, W)."""
    x, y, width, height = annotation["bbox"]
    shape = f"annotation {annotation['id']}: bbox {annotation['bbox']} in a picture of {size[1]} x {size[0]}"
    text = f"{files}, {shape}"
    if not (width > 0 and height > 0):
        yield EMPTY, text
    elif inside(annotation["bbox"], size) is None:
        yield OUTSIDE, text
    elif min(x, y) < -SLACK or x + width > size[1] + SLACK or y + height > size[0] + SLACK:
        yield BEYOND, text


def fits_as_corners(box: Sequence[float], size: tuple[int, int]) -> bool:
    left, top, right, bottom = box
    within = 0 <= left < right <= size[1] + SLACK and 0 <= top < bottom <= size[0] + SLACK
    return within


@dataclass
class ObjectTally(Tally):
    """What the pictures of one split add up to."""

    categories: dict[int, str] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    """Single objects by label."""
    showing: Counter[int] = field(default_factory=Counter)
    """Pictures by label."""
    crowds: int = 0
    masks: int = 0
    bare: int = 0
    """Pictures without an object."""
    corners: int = 0
    shares: int = 0

    @property
    def boxes(self) -> int:
        return sum(self.counts.values()) + self.crowds

    def add(self, record: Record) -> None:
        super().add(record)
        if not isinstance(record, Scene):
            return
        self.counts.update(record.objects)
        self.showing.update(set(record.objects))
        self.crowds += record.crowds
        self.masks += record.masks
        self.bare += not record.objects and not record.crowds
        self.corners += record.corners
        self.shares += record.shares

    def plain(self, names: Sequence[str]) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "objects": {name: self.counts[label] for label, name in self.categories.items()},
            "pictures_with": {name: self.showing[label] for label, name in self.categories.items()},
            "crowds": self.crowds,
            "masks": self.masks,
            "pictures_without_objects": self.bare,
            "remarks": self.remarks,
        }


def start(dataset: ImageDataset) -> tuple[ObjectWalk, ObjectTally]:
    """What reads the pictures of a split, and what they will add up to."""
    assert isinstance(dataset, ObjectDataset)
    return ObjectWalk(dataset), ObjectTally(samples=len(dataset), categories=dict(dataset.categories))


def left_out(dataset: ImageDataset, title: str) -> Iterator[Finding]:
    """Nothing: what cannot be trained on is found picture by picture."""
    yield from ()


def faults(splits: dict[str, Tally], data: DataModule) -> Iterator[Finding]:
    """Boxes that are none or of another form, splits without an object, and classes that training never shows."""
    found = list(objects_of(splits))
    for title, tally in found:
        form = other_form(tally)
        if form:
            yield Finding(form[0], title, form[1], tuple(tally.remarks.get(BEYOND, ())))
        for kind in (OUTSIDE, EMPTY):
            if kind in tally.remarks:
                yield gathered(kind, title, tally.remarks[kind], "object")
        if tally.walked == tally.samples and not tally.counts and len(tally.faulty) < tally.walked:
            message = f"no single object in {counted(tally.walked, 'picture')}, {counted(tally.crowds, 'crowd region')}"
            yield Finding("split without an object", title, message)
    learnt = [tally for title, tally in found if "train" in title.split(" + ")]
    if not learnt or any(tally.walked < tally.samples for tally in learnt):
        return
    for label, name in learnt[0].categories.items():
        counts = {title: tally.counts[label] for title, tally in found if tally.counts[label]}
        if counts and not any(tally.counts[label] for tally in learnt):
            where = ", ".join(f"{count} in {title}" for title, count in counts.items())
            yield Finding("class not in train", "train", f"{label} {name}: no object in train, but {where}")


def other_form(tally: ObjectTally) -> tuple[str, str] | None:
    """What the boxes of a split seem to be written as, if not x, y, width, height in pixels."""
    beyond, boxes = len(tally.remarks.get(BEYOND, ())), tally.boxes
    if boxes and tally.shares == boxes:
        return SHARES, f"all {boxes} have numbers from 0 to 1; expected pixels: x, y, width, height"
    if boxes and beyond > SUSPECT * boxes and tally.corners == boxes:
        return CORNERS, (
            f"{beyond} of {boxes} reach beyond their picture as x, y, width, height, and all lie within as x1, y1, x2, y2; "
            "expected COCO's x, y, width, height. Subtract x1 and y1 from the last two"
        )
    return None


def notes(splits: dict[str, Tally], data: DataModule) -> Iterator[Finding]:
    """What may well be meant so."""
    found = list(objects_of(splits))
    for title, tally in found:
        if BEYOND in tally.remarks and other_form(tally) is None:
            yield gathered(BEYOND, title, tally.remarks[BEYOND], "object")
        if 0 < tally.masks < tally.boxes:
            message = f"{tally.boxes - tally.masks} of {counted(tally.boxes, 'object')} have no mask that can be read"
            yield Finding("object without a mask", title, message)
        if tally.bare:
            message = f"{counted(tally.bare, 'picture')} of {tally.walked}; they train as background"
            yield Finding("picture without an object", title, message)
        if tally.walked == tally.samples and "train" not in title.split(" + "):
            missing = [
                f"{label} {name}" for label, name in tally.categories.items() if not tally.counts[label]
            ]
            missing = [each for each in missing if each not in nowhere(splits)]
            if missing and tally.counts:
                yield Finding("class not scored", title, f"no object of {', '.join(missing)}")
    absent = nowhere(splits)
    if absent:
        yield Finding(
            "class nowhere", ", ".join(splits), f"no object of {', '.join(absent)} in what was read"
        )


def nowhere(splits: dict[str, Tally]) -> list[str]:
    """The classes that no object of any split has."""
    found = [tally for _, tally in objects_of(splits)]
    known = {label: name for tally in found for label, name in tally.categories.items()}
    return [f"{label} {name}" for label, name in known.items() if not any(t.counts[label] for t in found)]


def objects_of(splits: dict[str, Tally]) -> Iterator[tuple[str, ObjectTally]]:
    for title, tally in splits.items():
        if isinstance(tally, ObjectTally):
            yield title, tally


def table(splits: dict[str, Tally], _: Sequence[str]) -> Any:
    """How many objects of each class there are, and in how many pictures."""
    drawn = Table("id", "class", title="objects (pictures that show them)", title_justify="left")
    found = list(objects_of(splits))
    for title, _tally in found:
        drawn.add_column(title, justify="right")
    known = {label: name for _, tally in found for label, name in tally.categories.items()}
    for label, name in sorted(known.items()):
        cells = [f"{t.counts[label]:,} ({t.showing[label]:,})" if t.counts[label] else "-" for _, t in found]
        drawn.add_row(str(label), name, *cells)
    drawn.add_row("", "crowd regions", *(f"{tally.crowds:,}" if tally.crowds else "-" for _, tally in found))
    drawn.add_row("", "with a mask", *(f"{tally.masks:,}" if tally.masks else "-" for _, tally in found))
    return drawn
