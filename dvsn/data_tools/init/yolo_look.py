"""YOLO's text files in a folder, for recognisers of objects and keypoints."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dvsn.data.yolo import Labelled, listed, read_labelled, to_object
from dvsn.data_tools.init.box_words import finish, side_of
from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.listing import Listing
from dvsn.data_tools.init.patterns import ALL, by_pattern, one_pattern
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError
from dvsn.reading import MEGABYTE, read_text, words

NAMES = ("classes.txt", "obj.names", "labels.txt", "names.txt", "_darknet.labels")
"""Files of one name a line."""
OTHER = (
    *NAMES,
    "readme.txt",
    "readme.roboflow.txt",
    "readme.dataset.txt",
    "requirements.txt",
    "license.txt",
    "notes.txt",
)


class Yolo(NamedTuple):
    """Folders of pictures and of text files with `{split}`, or a list and None, the splits, and what a YAML beside them
    says."""

    pictures: str
    labels: str | None
    splits: tuple[str, ...]
    stated: dict[str, Any]
    files: tuple[str, ...]


def yolo(listing: Listing) -> Yolo | None:
    """Pictures with a text file of numbers each; by lists, where a YAML names these."""
    by_list = from_lists(listing)
    if by_list is not None:
        return by_list
    stems = {name.rpartition(".")[0]: name for name in listing.pictures}
    pairs: Counter[tuple[str, str]] = Counter()
    files = []
    for name in listing.ending(".txt"):
        if PurePosixPath(name).name.lower() in OTHER:
            continue
        photo = next((stems[each] for each in candidates(name.rpartition(".")[0]) if each in stems), None)
        if photo is not None:
            pairs[photo.rpartition("/")[0], name.rpartition("/")[0]] += 1
            files.append(name)
    if not files or not all(map(numeric, (listing.path(name) for name in files[:: max(1, len(files) // 5)]))):
        return None
    roots: dict[str, tuple[str, str]] = {}
    for pictures, labels in pairs:
        split, *tops = top(pictures, labels)
        before = roots.setdefault(split, (tops[0], tops[1]))
        if before != (tops[0], tops[1]):
            raise DataError(
                f"{listing.root}: pictures and text files lie in several places: {before[0]} with "
                f"{before[1]}, and {tops[0]} "
                f"with {tops[1]}. Expected one of each, such as images/ and labels/, with train/ and val/ below."
            )
    if ALL in roots and len(roots) > 1:
        raise DataError(f"{listing.root}: {roots[ALL][0] or 'the folder itself'} lies beside folders of splits "
                        f"({', '.join(set(roots) - {ALL})}). Expected every picture in a split, or none.")  # fmt: skip
    stated = statement(listing)
    places = [one_pattern({split: each[n] for split, each in roots.items()}, listing) for n in (0, 1)]
    return Yolo(places[0], places[1], tuple(roots), stated, tuple(files))


def from_lists(listing: Listing) -> Yolo | None:
    """What the `train: train.txt` of a data.yaml names. Raises `DataError` for pictures of a list that are not there."""
    stated = statement(listing)
    lists: dict[str, str] = {}
    for role in ("train", "val", "test"):
        name = stated.get(role)
        if isinstance(name, str) and name.endswith(".txt"):
            path = PurePosixPath(name).as_posix()
            lists[role] = next(
                (each for each in listing.ending(".txt") if f"/{path}".endswith(f"/{each}")), ""
            )
            if not lists[role]:
                raise DataError(f"{listing.root}: its YAML says {role}: {name}, which is not there. Expected a list of "
                                "pictures below this folder.")  # fmt: skip
    if not lists:
        return None
    patterns = by_pattern(lists.values())
    pattern, files = next(iter(patterns.items()))
    if len(patterns) > 1 or sorted(map(str, map(role_of, files))) != sorted(lists):
        raise DataError(f"{listing.root}: lists of no common name: {', '.join(lists.values())}. Name them alike, such as "
                        "train.txt and val.txt.")  # fmt: skip
    for name in files.values():
        file = listing.path(name)
        lines = [line.strip() for line in read_text(file, limit=16 * MEGABYTE).splitlines() if line.strip()]
        missing = [line for line in lines if listed(line, file, listing.root) is None]
        if missing or not lines:
            raise DataError(f"{file}: {len(missing)} of its {len(lines)} pictures are not there, such as "
                            f"{missing[0] if missing else 'none'}. Expected paths relative to this file or to "
                            f"{listing.root}, such as images/1.jpg.")  # fmt: skip
    return Yolo(pattern, None, tuple(files), stated, tuple(files.values()))


def candidates(stem: str) -> list[str]:
    """Where the picture of a text file may be: beside it, or in `images` for `labels`."""
    parts = stem.split("/")
    found = [stem]
    for place, part in enumerate(parts[:-1]):
        for labels, images in (
            ("labels", "images"),
            ("Labels", "Images"),
            ("annotations", "images"),
            ("txt", "images"),
        ):
            if part == labels:
                found.append("/".join([*parts[:place], images, *parts[place + 1 :]]))
    return found


def top(pictures: str, labels: str) -> tuple[str, str, str]:
    """The split and the two folders, without what lies equally below them."""
    one, other = pictures.split("/"), labels.split("/")
    depth = max(
        [
            n
            for n, part in enumerate(one, 1)
            if role_of(part) or part != (other[n - 1] if n <= len(other) else "")
        ],
        default=0,
    )
    if pictures == labels and depth == 0:
        depth = 0
    split = next((part for part in reversed(one[:depth]) if role_of(part)), ALL)
    return split, "/".join(one[:depth]), "/".join(other[:depth])


def numeric(path: Any) -> bool:
    """Whether the first lines of a file are five numbers or more."""
    try:
        lines = [
            words(line) for line in read_text(path, limit=16 * MEGABYTE).splitlines()[:5] if line.strip()
        ]
        return all(len(line) >= 5 and all(float(each) == float(each) for each in line) for line in lines)
    except (DataError, ValueError):
        return False


def statement(listing: Listing) -> dict[str, Any]:
    """`names` as a list, and the rest of a data.yaml; {} where there is none."""
    import yaml

    for name in listing.ending(".yaml", ".yml"):
        try:
            node = yaml.safe_load(read_text(listing.path(name), limit=MEGABYTE))
        except (yaml.YAMLError, RecursionError, ValueError):
            continue
        names = node.get("names") if isinstance(node, dict) else None
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[number] for number in range(len(names))]
        if isinstance(names, list) and names and all(isinstance(each, str | int | float) for each in names):
            return {**node, "names": [str(each) for each in names]}  # no lists: aliases can make them endless
    for name in listing.named(*NAMES):
        lines = [line.strip() for line in read_text(listing.path(name), limit=MEGABYTE).splitlines()]
        return {"names": [line for line in lines if line]}
    return {}


def read(listing: Listing, found: Yolo) -> dict[str, list[Labelled]]:
    """Everything, by split."""
    return {
        split: read_labelled(str(listing.root), split, found.pictures, found.labels) for split in found.splits
    }


def class_names(stated: dict[str, Any], rows: dict[str, list[Labelled]], listing: Listing) -> list[str]:
    """The names of the classes from 0 on: stated, or numbered. Raises `DataError` for a class that has none."""
    highest = max((kind for each in rows.values() for one in each for _, kind, _ in one.rows), default=-1)
    names = list(stated.get("names", ()))
    if names and highest >= len(names):
        file = next(
            one.file for each in rows.values() for one in each for _, kind, _ in one.rows if kind == highest
        )
        raise DataError(f"{file}: class {highest}, but only {len(names)} classes have names: "
                        f"{', '.join(names[:12])}. Add the "
                        "missing names to data.yaml or classes.txt.")  # fmt: skip
    return names or [f"class_{number}" for number in range(highest + 1)]


def objects(listing: Listing) -> Found | None:
    """Boxes or outlines of YOLO's files."""
    found = yolo(listing)
    if found is None or found.stated.get("kpt_shape"):
        return None
    rows = read(listing, found)
    names = class_names(found.stated, rows, listing)
    boxes = {
        split: [[to_object(row, one) for row in one.rows] for one in each] for split, each in rows.items()
    }
    node: dict[str, Any] = {
        "names": dict(enumerate(names, 1)),
        "pictures": found.pictures,
        "labels": found.labels,
    }
    made = finish(
        listing,
        kind="objects in YOLO's text files",
        base="yolo_boxes",
        node=node,
        photos={split: [relative(listing, one) for one in each] for split, each in rows.items()},
        files=list(found.files),
        counts={
            split: Counter(names[box["category_id"] - 1] for one in each for box in one)
            for split, each in boxes.items()
        },
        sides=[side_of(box["bbox"]) for each in boxes.values() for one in each for box in one],
        shows={
            split: [frozenset(box["category_id"] for box in one) for one in each]
            for split, each in boxes.items()
        },
    )
    every = [box for each in boxes.values() for one in each for box in one]
    if every and all("segmentation" in box for box in every):
        made.says.append(
            "outlines are there: train on masks with network.detector=mask_rcnn data.objects.masks=true"
        )
    return made


def relative(listing: Listing, one: Labelled) -> str:
    return PurePosixPath(os.path.relpath(one.picture, listing.root)).as_posix()
