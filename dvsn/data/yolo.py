"""YOLO's text files: a line an object, in fractions of the picture. Boxes, outlines and keypoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dvsn.data.files import pictures_below, require_file, require_folder
from dvsn.data.objects import Annotation
from dvsn.data.own_objects import ListedObjects, annotation
from dvsn.data.people import PeopleDataset, PersonRecord
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable import headers
from dvsn.reading import MEGABYTE, Line, read_text, to_numbers, to_whole, words
from dvsn.types import Sample

TREE = """\
    ROOT/{pictures}/NAME.jpg
    ROOT/{labels}/NAME.txt      a line an object: CLASS X Y WIDTH HEIGHT, the middle and the sides of its box in fractions of
                                the picture; or CLASS X Y X Y X Y ..., its outline; none for a picture without objects"""
LISTED = """\
    ROOT/{split}.txt            the path of a picture a line, images/1.jpg, relative to the list or to ROOT
    ROOT/labels/1.txt           its labels, in `labels` for `images`; or beside the picture"""
LARGEST = 16 * MEGABYTE
BEYOND = 0.5  # of the picture, that a box or point may lie outside of it


class Labelled(NamedTuple):
    """A picture, its (height, width), its file of labels, and the lines of that: a class and numbers each."""

    picture: Path
    size: tuple[int, int]
    file: Path
    rows: list[tuple[int, int, np.ndarray]]
    """The number of the line, the class from 0, and (n,) float64 fractions."""


class YoloObjects(ListedObjects):
    """Objects in the text files of YOLO (Redmon et al., 2016, arXiv:1506.02640), of Ultralytics and others.

    `pictures` and `labels` are folders below `root`, with `{split}` for the split; `NAME.txt` is in the same folder below
    `labels` as `NAME.jpg` below `pictures`, and both may be one folder. Without a file, a picture has no objects. `names`
    are the classes by label: class 0 of the files is label 1, since label 0 is the background; results have the file's
    class again. Lines of outlines give a box by their extent, and with `masks` the mask.

    `pictures` may also be a list, such as {split}.txt: the path of a picture a line, relative to the list or to `root`. Then
    `labels` is null: a file of labels lies in `labels` where the path has `images`, or else beside its picture.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        classes: int,
        names: Mapping[int, str],
        pictures: str = "images/{split}",
        labels: str | None = "labels/{split}",
        masks: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(classes=classes, names=names, masks=masks, transform=transform, seed=seed)
        self.file_ids = {label: label - 1 for label in self.categories}
        found = read_labelled(root, split, pictures, labels, classes=classes - 1)
        self._take(
            [each.picture for each in found],
            [each.size for each in found],
            [[to_object(row, each) for row in each.rows] for each in found],
            Path(root) / (labels or pictures).replace("{split}", split),
        )


class YoloPeople(PeopleDataset):
    """Keypoints in the text files of Ultralytics' YOLO: CLASS X Y WIDTH HEIGHT, then X Y or X Y V of each keypoint.

    Folders as `YoloObjects` has them. `category` is the class whose lines are taken, null all. `visibility`: whether lines
    have V, 0 where a keypoint is not labelled; without it a keypoint at 0 0 is not.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        keypoints: KeypointSet,
        pictures: str = "images/{split}",
        labels: str | None = "labels/{split}",
        category: int | None = None,
        visibility: bool = True,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(keypoints=keypoints, transform=transform, seed=seed)
        width = 4 + (3 if visibility else 2) * len(keypoints)
        self.records = []
        for each in read_labelled(root, split, pictures, labels):
            for line, kind, values in each.rows:
                if len(values) != width:
                    raise DataError(
                        f"{each.file}: line {line}: found {len(values)} numbers after the class, expected {width}: a box "
                        f"and {len(keypoints)} keypoints of {'x y v' if visibility else 'x y'}."
                    )
                if category in (None, kind):
                    self.records.append(to_person(each, line, values, visibility=visibility))
        if not self.records:
            raise DataError(
                f"{Path(root) / (labels or pictures).replace('{split}', split)}: no object in it. Expected one or more."
            )


def read_labelled(
    root: str, split: str, pictures: str, labels: str | None, *, classes: int | None = None
) -> list[Labelled]:
    """Every picture of a split with its lines; a class that is not below `classes` is an error."""
    if pictures.endswith(".txt") != (labels is None):
        raise ConfigError(
            f"labels: found {labels} with pictures={pictures}; expected null with a list of pictures, {{split}}.txt, "
            "and a folder with a folder."
        )
    if labels is None:
        return read_listed(Path(root), pictures.replace("{split}", split), classes=classes)
    tree = TREE.format(pictures=pictures, labels=labels)
    photos, texts = (
        require_folder(Path(root) / each.replace("{split}", split), expected=tree, option=option)
        for each, option in ((pictures, "data.root"), (labels, "data.root"))
    )
    found = [
        labelled(photos / name, (texts / name).with_suffix(".txt"), classes)
        for name in pictures_below(photos)
    ]
    if found and not any(each.file.is_file() for each in found):
        raise DataError(
            f"{texts}: no NAME.txt for any of {len(found)} pictures in {photos}. Expected:\n{tree}"
        )
    return found


def read_listed(root: Path, name: str, *, classes: int | None = None) -> list[Labelled]:
    """Every picture of a list with its lines."""
    file = require_file(root / name, expected=LISTED, option="data.root")
    found = []
    for number, line in enumerate(read_text(file, expected=LISTED, limit=1 << 28).splitlines(), 1):
        if not line.strip():
            continue
        picture = listed(line.strip(), file, root)
        if picture is None:
            raise DataError(
                f"{file}: line {number}: {line.strip()[:200]}: no such picture. Expected:\n{LISTED}"
            )
        found.append(labelled(picture, label_of(picture), classes))
    if not any(each.file.is_file() for each in found):
        raise DataError(f"{file}: {len(found)} pictures, and no file of labels for any. Expected:\n{LISTED}")
    return found


def listed(line: str, file: Path, root: Path) -> Path | None:
    """The picture of a line, relative to the list or to the root; None where it is not there."""
    places = (file.parent / line, root / line)
    return next((Path(os.path.normpath(each)) for each in places if each.is_file()), None)


def label_of(picture: Path) -> Path:
    """Where the labels of a listed picture lie: in `labels` for the last `images` of its path, or beside it."""
    parts = list(picture.with_suffix(".txt").parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts)


def labelled(picture: Path, file: Path, classes: int | None) -> Labelled:
    """A picture with its lines, none where it has no file."""
    size = headers.size_of(picture)
    if size is None:
        raise DataError(f"{picture}: no picture that can be read.")
    return Labelled(
        picture,
        size,
        file,
        [to_numbered(line, file, classes) for line in lines_of(file)] if file.is_file() else [],
    )


def lines_of(file: Path) -> list[Line]:
    """The lines that hold anything, in words."""
    text = read_text(file, expected="lines of objects, as YOLO has them", limit=LARGEST)
    return [Line(number, words(line)) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def to_numbered(line: Line, file: Path, classes: int | None) -> tuple[int, int, np.ndarray]:
    """A line as its number, its class and its fractions."""
    where = f"{file}: line {line.number}"
    kind = to_whole(float_or_text(line.columns[0]), f"{where}: class", "the number of a class, from 0")
    if kind < 0 or (classes is not None and kind >= classes):
        limit = "0 or more" if classes is None else f"0 to {classes - 1}: data.objects.names has {classes}"
        raise DataError(f"{where}: class {kind}, expected {limit}.")
    if len(line.columns) < 5:
        raise DataError(
            f"{where}: found {len(line.columns)} columns, expected a class and 4 numbers or more."
        )
    values = np.array(to_numbers(line.columns[1:], where))
    if values.min() < -BEYOND or values[:4].max() > 1 + BEYOND:
        wrong = values[np.argmax(np.abs(values[:4] - 0.5))] if values.min() >= -BEYOND else values.min()
        raise DataError(
            f"{where}: found {wrong:g}, expected fractions of the picture from 0 to 1: divide pixels by "
            f"its width and height."
        )
    return line.number, kind, values


def float_or_text(text: str) -> float | str:
    """Some tools write the class as 3.0."""
    return float(text) if text.endswith(".0") and text[:-2].isdigit() else text


def to_object(row: tuple[int, int, np.ndarray], of: Labelled) -> Annotation:
    """A line of a box or an outline, in pixels of its picture."""
    line, kind, values = row
    height, width = of.size
    scale = np.array([width, height], float)
    if len(values) == 4:
        middle, sides = values[:2] * scale, values[2:] * scale
        low, high = middle - sides / 2, middle + sides / 2
        return annotation(kind + 1, (low[0].item(), low[1].item(), high[0].item(), high[1].item()))
    if len(values) < 6 or len(values) % 2:
        raise DataError(
            f"{of.file}: line {line}: found {len(values)} numbers after the class, expected 4 of a box, "
            f"or x y of three points "
            "or more of an outline."
        )
    points = values.reshape(-1, 2) * scale
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    x, y = points.T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return annotation(kind + 1, (left, top, right, bottom), area=area, segmentation=[points.ravel().tolist()])


def to_person(of: Labelled, line: int, values: np.ndarray, *, visibility: bool) -> PersonRecord:
    """A line of a box and keypoints; positions count from pixel centres, as everywhere in `people`."""
    scale = np.array([of.size[1], of.size[0]], float)
    middle, sides = values[:2] * scale, values[2:4] * scale
    if not (sides > 0).all():
        raise DataError(
            f"{of.file}: line {line}: the box has no inside, expected a width and a height above 0."
        )
    rows = values[4:].reshape(-1, 3 if visibility else 2)
    labelled = rows[:, 2] > 0 if visibility else (rows != 0).any(axis=1)
    points = np.where(labelled.reshape(-1, 1), rows[:, :2] * scale, 0).astype(np.float32)
    x, y = (middle - sides / 2).tolist()
    box = (x, y, sides[0].item(), sides[1].item())
    return PersonRecord(of.picture, box, points, np.asarray(labelled, np.uint8), line)
