"""Tables of points, .pts files and WFLW's lines in a folder, for recognisers of keypoints and faces."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from dvsn.data.files import SUFFIXES
from dvsn.data.keypoint_table import number_in
from dvsn.data_tools.init import coco_look
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.patterns import ALL, best, by_pattern, picture_folder
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError
from dvsn.reading import Line, read_rows, read_table, read_text, to_numbers

PICTURE = (
    "image",
    "file",
    "filename",
    "file_name",
    "path",
    "image_path",
    "img",
    "image_name",
    "picture",
    "photo",
    "name",
    "frame",
)
BOXES = ("bbox", "box", "rect", "rectangle", "centre", "center", "face")
FORMS = (
    (re.compile(r"(?P<name>.+)_x"), "{name}_"),
    (re.compile(r"(?P<name>.+)\.x"), "{name}."),
    (re.compile(r"(?P<name>.+)-x"), "{name}-"),
    (re.compile(r"(?P<name>.+) x"), "{name} "),
    (re.compile(r"x(?P<name>\d+)"), None),
    (re.compile(r"x_(?P<name>\w+)"), "_{name}"),
)
"""Headings of the x of a keypoint, and what stands beside the letter."""


@dataclass
class Points:
    """People or faces of points that lie in a folder: `photos` by split, one an item; `points` (N, K, 2), NaN where not
    labelled; the YAML's node of the reader, and the YAML of `conf/data` for keypoints and for faces."""

    kind: str
    node: dict[str, Any]
    names: list[str]
    photos: dict[str, list[str]]
    points: np.ndarray
    files: list[str]
    bases: tuple[str, str]
    named: bool = True
    says: list[str] = field(default_factory=list)


def points_in(listing: Listing) -> Points | None:
    """The first of the four that is there."""
    for understand in (tables, pts_files, lines, json_faces):
        found = understand(listing)
        if found is not None:
            return found
    return None


# Tables ----------------------------------------------------------------------------------------------


def tables(listing: Listing) -> Points | None:
    """CSV files with two columns for each keypoint."""
    rows: dict[str, list[Line]] = {}
    for name in listing.ending(".csv"):
        found = read_table(listing.path(name))
        if (
            len(found) > 1
            and headings([each.strip() for each in found[0].columns], found[1].columns) is not None
        ):
            rows[name] = found
    if not rows:
        return None
    pattern, files = best(by_pattern(rows), listing, "points")
    first = files[next(iter(files))]
    columns = [each.strip() for each in rows[first][0].columns]
    made = headings(columns, rows[first][1].columns)
    assert made is not None
    image, x, y, v, names, used = made
    wanted, photos, points = {}, {}, []
    for split, name in files.items():
        theirs = [each.strip() for each in rows[name][0].columns]
        lacking = [each for each in used if each not in theirs]
        if lacking:
            raise DataError(
                f"{listing.path(name)}: has no column {few(lacking)}, which {first} has. Expected the same columns."
            )
        place = {heading: number for number, heading in enumerate(theirs)}
        wanted[split] = [
            line.columns[place[image]].strip() for line in rows[name][1:] if len(line.columns) == len(theirs)
        ]
        points.append(values(listing, name, rows[name][1:], place, (x, y, v), names))
    folder = picture_folder(listing, wanted, files)
    for split, each in wanted.items():
        start = "" if folder == "." else folder.replace("{split}", split) + "/"
        photos[split] = [start + name for name in each]
    node: dict[str, Any] = {} if pattern == "{split}.csv" else {"table": pattern}
    node |= {} if folder == "images" else {"pictures": folder}
    sized = {"width", "height"} <= set(columns)
    node |= {} if sized else {"sizes": "picture"}
    spare = set(columns) - set(used) - {image, "width", "height"}
    node |= {"extra_columns": True} if spare else {}
    node["visibility"] = v is not None
    own = {"image": image, "x": x, "y": y, "v": v or "{name}_v"}
    usual = {"image": "image", "x": "{name}_x", "y": "{name}_y", "v": "{name}_v"}
    different = {key: value for key, value in own.items() if value != usual[key]}
    node |= {"columns": different} if different else {}
    return Points(
        kind="a table of points", node=node, names=names, photos=photos, points=np.concatenate(points),
        files=list(files.values()), bases=("keypoint_table", "faces"),
        named=not all(re.fullmatch(r"[a-z]*\d+", name) for name in names),
        says=[f"columns of no keypoint are left out: {few(sorted(spare))}"] if spare else [],
    )  # fmt: skip


def headings(
    columns: list[str], row: list[str]
) -> tuple[str, str, str, str | None, list[str], list[str]] | None:
    """The column of the picture, the patterns of x, y and v, the names, and all columns of these; None of another table."""
    image = next((each for each in columns if each.lower() in PICTURE), None)
    ends = [
        each
        for each, value in zip_longest(columns, row, fillvalue="")  # a line may be shorter
        if value.strip().lower().endswith(tuple(SUFFIXES))
    ]
    image = image if image in ends else next(iter(ends), None)
    if image is None:
        return None
    for form, rest in FORMS:
        found = [
            (each, match["name"])
            for each in columns
            if (match := form.fullmatch(each)) and match["name"].lower() not in BOXES
        ]
        names = [name for _, name in found]
        if rest is None:
            counted = names == [str(number) for number in range(len(names))]
            x, y, v = (f"{letter}{{number}}" if counted else f"{letter}{{name}}" for letter in "xyv")
            shown = [f"p{name}" for name in names] if counted else names
        else:
            x, y, v = ((rest + letter) if rest.startswith("{") else (letter + rest) for letter in "xyv")
            shown = names
        wanted = [(x.format(name=n, number=i), y.format(name=n, number=i)) for i, n in enumerate(shown)]
        if names and all(one in columns and other in columns for one, other in wanted):
            marks = [v.format(name=n, number=i) for i, n in enumerate(shown)]
            marked = all(each in columns for each in marks)
            used = [image, *(each for pair in wanted for each in pair), *(marks if marked else [])]
            return image, x, y, v if marked else None, shown, used
    return None


def values(
    listing: Listing,
    name: str,
    rows: list[Line],
    place: dict[str, int],
    forms: tuple[str, str, str | None],
    names: list[str],
) -> np.ndarray:
    """(N, K, 2), NaN where not labelled."""
    x, y, v = forms
    found = np.full((len(rows), len(names), 2), np.nan)
    for row, line in enumerate(rows):
        if len(line.columns) != len(place):
            raise DataError(f"{listing.path(name)}: line {line.number}: found {len(line.columns)} "
                            f"columns, expected {len(place)} "
                            "as in line 1.")  # fmt: skip
        for number, each in enumerate(names):
            key = {"name": each, "number": number}
            try:
                if v is None or number_in(line.columns[place[v.format(**key)]]) > 0:
                    found[row, number] = [
                        number_in(line.columns[place[form.format(**key)]]) for form in (x, y)
                    ]
            except ValueError as error:
                raise DataError(
                    f"{listing.path(name)}: line {line.number}: {each}: {error}; expected a number."
                ) from error
    return found


# .pts ------------------------------------------------------------------------------------------------


def pts_files(listing: Listing) -> Points | None:
    """A .pts file beside each picture."""
    files = listing.ending(".pts")
    if not files:
        return None
    stems = {name.rpartition(".")[0]: name for name in listing.pictures}
    missing = [name for name in files if name.rpartition(".")[0] not in stems]
    if missing:
        raise DataError(
            f"{listing.root}: {len(missing)} of {len(files)} .pts files have no picture beside them: "
            f"{few(missing)}. Copy the "
            "pictures there, or move these files away."
        )
    points: list[list[list[float]]] = []
    photos: dict[str, list[str]] = {}
    parts: dict[str, dict[str, None]] = {}
    for name in files:
        folder = name.rpartition("/")[0]
        split = next((part for part in reversed(folder.split("/")) if role_of(part)), ALL)
        photos.setdefault(split, []).append(stems[name.rpartition(".")[0]])
        parts.setdefault(split, {})[folder or "."] = None
        points.append(pts(listing, name))
    counts = {len(each) for each in points}
    if len(counts) > 1:
        odd = next(name for name, each in zip(files, points, strict=True) if len(each) != len(points[0]))
        raise DataError(f"{listing.path(odd)}: has another number of points than {files[0]}: found "
                        f"{sorted(counts)}. Expected one "
                        "number in all files.")  # fmt: skip
    array = np.array(points)
    first = 1 if array.min() >= 0.5 else 0
    plain = all(list(each) == [split if split != ALL else "."] for split, each in parts.items())
    node: dict[str, Any] = {} if plain else {"parts": {split: list(each) for split, each in parts.items()}}
    node |= {} if first else {"first_pixel": 0}
    return Points(
        kind=".pts files beside pictures", node=node, names=[f"p{number}" for number in range(array.shape[1])],
        photos=photos, points=array, files=list(files), bases=("face_files", "face_files"), named=False,
        says=[f"pixels are taken to count from {first}, as " + ("published .pts files do" if first else "some lie at 0")],
    )  # fmt: skip


def pts(listing: Listing, name: str) -> list[list[float]]:
    """The points of a file; what is wrong with its form is said when it is read to train."""
    lines = read_text(listing.path(name), limit=1 << 20).splitlines()
    rows = [line.split() for line in lines if re.fullmatch(r"\s*[-+.\deE]+\s+[-+.\deE]+\s*", line)]
    if not rows:
        raise DataError(f"{listing.path(name)}: no line 'x y' in it, expected the points of a face.")
    return [to_numbers(row, str(listing.path(name))) for row in rows]


# WFLW's lines ----------------------------------------------------------------------------------------


def lines(listing: Listing) -> Points | None:
    """Text files whose lines are the numbers of points, and the name of a picture at the end."""
    rows: dict[str, list[list[str]]] = {}
    for name in listing.ending(".txt"):
        text = read_text(listing.path(name), limit=1 << 28).splitlines()
        start = next((line.split() for line in text if line.strip()), [])
        if (
            len(start) < 7
            or not start[-1].lower().endswith(tuple(SUFFIXES))
            or not all(map(is_number, start[:-1]))
        ):
            continue
        rows[name] = [
            line.columns
            for line in read_rows(listing.path(name), columns=(len(start),), expected="a list of faces")
        ]
    if not rows:
        return None
    pattern, files = best(by_pattern(rows), listing, "points")
    width = len(rows[next(iter(files.values()))][0])
    for name in files.values():
        odd = next((n for n, row in enumerate(rows[name], 1) if len(row) != width), None)
        if odd is not None:
            raise DataError(f"{listing.path(name)}: line {odd}: found {len(rows[name][odd - 1])} "
                            f"columns, expected {width} as in "
                            "the first.")  # fmt: skip
    numbers = np.array(
        [to_numbers(row[:-1], str(listing.path(name))) for name in files.values() for row in rows[name]]
    )
    count, flags = split_columns(numbers, listing.path(next(iter(files.values()))))
    wanted = {split: [row[-1] for row in rows[name]] for split, name in files.items()}
    folder = picture_folder(listing, wanted, files)
    if "{split}" in folder:
        raise DataError(f"{listing.root}: the pictures of each list lie in a folder of their own, "
                        f"{folder}. Expected one folder, "
                        "with train/ and val/ in the names of the lists.")  # fmt: skip
    prefix = "" if folder == "." else f"{folder}/"
    node: dict[str, Any] = {"annotations": pattern, "images": folder}
    node |= {"attributes": [f"flag_{number}" for number in range(flags)]} if flags else {}
    return Points(
        kind="lines of points, as WFLW has them", node=node, names=[f"p{number}" for number in range(count)],
        photos={split: [prefix + name for name in each] for split, each in wanted.items()},
        points=numbers[:, : 2 * count].reshape(len(numbers), count, 2), files=list(files.values()),
        bases=("face_lines", "face_lines"), named=False,
        says=[f"a rectangle and {flags} flags behind the points"] if flags is not None else [],
    )  # fmt: skip


def split_columns(numbers: np.ndarray, file: Any) -> tuple[int, int | None]:
    """How many points the columns hold, and how many flags stand behind a rectangle; None: neither is there."""
    width = numbers.shape[1]
    for flags in range(min(16, width - 6), -1, -1):
        points = width - 4 - flags
        if points % 2 or (flags and not np.isin(numbers[:, width - flags :], (0, 1)).all()):
            continue
        place, rectangle = numbers[:, :points].reshape(len(numbers), -1, 2), numbers[:, points : points + 4]
        low, high = rectangle[:, :2], rectangle[:, 2:]
        spare = 0.35 * (high - low)
        inside = ((place >= (low - spare)[:, None]) & (place <= (high + spare)[:, None])).all(axis=-1).mean()
        if (low < high).all() and inside > 0.95:
            return points // 2, flags
    if width % 2:
        raise DataError(
            f"{file}: found {width} numbers a line, expected x and y of each point, or also a rectangle and flags."
        )
    return width // 2, None


# mmpose's JSON -----------------------------------------------------------------------------------------


def json_faces(listing: Listing) -> Points | None:
    """COCO's format with a centre and a scale for each face, instead of a box."""
    files = coco_look.coco(listing, "center")
    if files is None:
        return None
    photos: dict[str, list[str]] = {}
    points: list[np.ndarray] = []
    for split, content in files.contents.items():
        photos[split] = []
        for each in content["annotations"]:
            numbers, image = each.get("keypoints"), each.get("image_id")
            where = f"{listing.path(files.files[split])}: annotation {each.get('id')}"
            if (
                not isinstance(numbers, list)
                or not numbers
                or len(numbers) % 3
                or image not in files.names[split]
            ):
                raise DataError(f"{where}: expected keypoints as x, y, v of each, and a picture of the file.")
            row = np.array(to_numbers(numbers, f"{where}: keypoints")).reshape(-1, 3)
            photos[split].append(files.photo(split, image))
            points.append(np.where(row[:, 2:] > 0, row[:, :2], np.nan))
    counts = sorted({len(each) for each in points})
    if len(counts) != 1:
        raise DataError(f"{listing.root}: faces of {counts} points. Expected one number in all files.")
    node: dict[str, Any] = {"annotations": files.annotations}
    node |= {} if files.images == "images" else {"images": files.images}
    shipped = counts == [19] and any("aflw" in name.lower() for name in files.files.values())
    base = "aflw" if shipped else "face_json"
    return Points(
        kind="faces in COCO's format, as mmpose has them", node=node, names=[f"p{number}" for number in range(counts[0])],
        photos=photos, points=np.array(points), files=list(files.files.values()), bases=(base, base), named=False,
    )  # fmt: skip


def is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))  # type: ignore[no-any-return]
    except ValueError:
        return False
