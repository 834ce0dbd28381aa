"""COCO's JSON files (Lin et al., 2014, arXiv:1405.0312): annotations and detections, read and looked through."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dvsn import reading
from dvsn.errors import DataError
from dvsn.portable import headers
from dvsn.reading import LARGEST, column, is_usable, to_flag, to_number, to_text, to_whole

Entry = dict[str, Any]
FORM = "an object with the lists images, annotations and categories"
CHECKED = 20_000  # pictures at most whose headers are compared with the sizes of the file, evenly spread


class Picture(NamedTuple):
    path: Path
    width: int
    height: int


def read_coco(path: Path, *, needs: str) -> Entry:
    """A COCO file whose annotations, if there are any, hold `needs`. A `DataError` says what it holds instead.

    Of each annotation `id`, `image_id`, `category_id` and `iscrowd` are whole numbers afterwards, as far as they are
    there, and so are the ids of pictures and categories; `area` is a number, or was left out as null.
    """
    content = reading.read_json(path)
    if not isinstance(content, dict):
        found = "a list" if isinstance(content, list) else reading.shown(content)
        if isinstance(content, list) and content and isinstance(content[0], dict):
            found += f" of entries with {', '.join(content[0])}"
            found += ": detections? They go into data.people.boxes" if "score" in content[0] else ""
        raise DataError(f"{path}: found {found}; expected COCO's annotations, {FORM}.")
    if content.get("annotations") is None:
        content["annotations"] = []  # a test split has none
    wrong = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if wrong:
        raise DataError(
            f"{path}: found an object with {', '.join(content)[:200]}; expected {FORM}. No list: {', '.join(wrong)}."
        )
    for key, what in (
        ("images", "a picture"),
        ("annotations", "an annotation"),
        ("categories", "a category"),
    ):
        reading.entries(content, key, path, what=f"an object that describes {what}")
    annotations = content["annotations"]
    if annotations and not any(needs in each for each in annotations):
        raise DataError(
            f"{path}: an annotation holds {', '.join(annotations[0])}, and none has '{needs}': a file of another task? "
            f"Expected annotations with id, image_id, category_id, bbox and {needs}."
        )
    _bring_to_type(content, path)
    return content


def _bring_to_type(content: Entry, path: Path) -> None:
    """The scalars of annotations and categories; null is taken for not given where the format allows that."""
    annotations = content["annotations"]
    changes: tuple[tuple[str, Any, bool], ...] = (
        ("id", to_whole, True),
        ("image_id", to_whole, True),
        ("category_id", to_whole, True),
        ("num_keypoints", to_whole, False),
        ("iscrowd", to_flag, False),
        ("area", to_area, False),
    )
    for key, change, needed in changes:
        values = [each.get(key) for each in annotations]
        if reading.are_whole(values) and (change is to_whole or set(values) <= {0, 1}):
            continue
        for place, (each, value) in enumerate(zip(annotations, values, strict=True)):
            if value is not None:
                name = reading.shown(each.get("id", f"number {place}"))
                each[key] = change(value, f"{path}: annotation {name}: {key}")
            elif not needed:
                each.pop(key, None)
    for place, each in enumerate(content["categories"]):
        if "id" in each:
            each["id"] = to_whole(each["id"], f"{path}: categories[{place}]: id")


def to_area(value: Any, where: str) -> float:
    area = to_number(value, where, "an area in pixels, 0 or more")
    if area < 0:
        raise DataError(f"{where}: found {value}, expected an area in pixels, 0 or more.")
    return area


def read_detections(path: Path) -> list[Entry]:
    """The entries of a file in COCO's results format: ids whole numbers, `score` and `bbox` finite ones."""
    content = reading.read_json(path)
    wanted = ("image_id", "category_id", "bbox", "score")
    if not isinstance(content, list):
        raise DataError(
            f"{path}: found {type(content).__name__}, expected COCO's results format: a list of {', '.join(wanted)}."
        )
    for row, each in enumerate(content):
        lacking = [key for key in wanted if not isinstance(each, dict) or key not in each]
        if lacking:
            raise DataError(
                f"{path}: entry {row} has no {', '.join(lacking)}; expected {', '.join(wanted)} in each."
            )
        if not is_numbers(each["bbox"], 4) or not is_numbers([each["score"]], 1):
            raise DataError(
                f"{path}: entry {row}: bbox {reading.shown(each['bbox'])}, score {reading.shown(each['score'])}; expected "
                "four finite numbers and one."
            )
        for key in ("image_id", "category_id"):
            if type(each[key]) is not int:
                each[key] = to_whole(each[key], f"{path}: entry {row}: {key}")
    return content


def list_pictures(
    images: list[Entry], folder: Path, file: Path, *, sizes_from: str = "file"
) -> dict[int, Picture]:
    """The pictures by id, in the order of the file.

    `sizes_from` "file": the file's own sizes, which must be whole numbers above 0; "picture": those of the pictures'
    headers, whatever the file says. A picture that is not there keeps the file's size; `require_pictures` names it.
    """

    def where(place: int) -> str:
        return f"{file}: image {reading.shown(images[place].get('id', images[place].get('file_name')))}"

    needed = ("id", "file_name") if sizes_from == "picture" else ("id", "file_name", "width", "height")
    for place, each in enumerate(images):
        lacking = [key for key in needed if each.get(key) is None]
        if lacking:
            raise DataError(f"{where(place)} has no {', '.join(lacking)}.")
    numbers = column(
        (each["id"] for each in images),
        lambda place: f"{where(place)}: id of {images[place]['file_name']!r}",
        to_whole,
        int,
    )
    names = column(
        (each["file_name"] for each in images), lambda place: f"{where(place)}: file_name", to_text, str
    )
    paths = [folder / name for name in names]
    sides: list[list[int]] = []
    if sizes_from == "picture":
        found = [headers.size_of(path) for path in paths]
        sides = [[size[axis] if size else 0 for size in found] for axis in (1, 0)]
    else:
        for key in ("width", "height"):
            whole = f"a {key} in whole pixels"
            sides.append(
                column(
                    (each[key] for each in images),
                    lambda place, key=key: f"{where(place)}: {key}",  # type: ignore[misc]
                    lambda value, place, whole=whole: to_whole(value, place, whole),  # type: ignore[misc]
                    int,
                )
            )
            small = next((place for place, side in enumerate(sides[-1]) if side < 1), None)
            if small is not None:
                raise DataError(
                    f"{where(small)}: {key}: found {sides[-1][small]}, expected {whole}, 1 or more."
                )
    pictures: dict[int, Picture] = {}
    for number, path, width, height in zip(numbers, paths, *sides, strict=True):
        if number in pictures:
            raise DataError(
                f"{file}: image id {number} of {path.name}, expected a whole number of its own; "
                f"{pictures[number].path.name} has the same."
            )
        pictures[number] = Picture(path, width, height)
    return pictures


def check_picture_sizes(pictures: Sequence[Picture], file: Path, *, option: str) -> None:
    """Raise `DataError` where a picture's header says another size than the file, with the reason as far as it shows.

    Of more than `CHECKED` pictures so many are looked at, evenly spread; the others are compared when they are read.
    """
    step = -(-len(pictures) // CHECKED) or 1
    wrong = []
    for each in pictures[::step]:
        found = headers.size_of(each.path)
        if found is not None and found != (each.height, each.width):
            wrong.append((each, found))
    if wrong:
        each, found = wrong[0]
        more = f" (and {len(wrong) - 1} more pictures)" if len(wrong) > 1 else ""
        raise DataError(f"{each.path}{more}: {contradiction(each, found, file, option=option)}")


def contradiction(picture: Picture, found: tuple[int, int], file: Path, *, option: str) -> str:
    """What is wrong where a picture has the size `found` (H, W) and its file says another, and what to do."""
    height, width = found
    says = f"the picture has {height}x{width} pixels (height x width), but {file} says {picture.height}x{picture.width}"
    factors = (height / picture.height, width / picture.width)
    if headers.orientation_of(picture.path) > 4 and (width, height) == (picture.height, picture.width):
        why = (
            "it is turned by its EXIF tag, and the file describes it upright; pictures are read as stored. Turn the "
            "pictures for good, such as by `mogrify -auto-orient`"
        )
    elif (width, height) == (picture.height, picture.width):
        why = (
            "height and width are exchanged in the file, or the picture was turned after it was annotated. Correct the "
            "file, or turn the picture back"
        )
    elif abs(factors[0] - factors[1]) < 0.02 * max(factors):
        why = (
            f"the picture was resized by a factor of {factors[1]:.3g} after it was annotated, so that everything in the "
            "file lies elsewhere. Take the pictures as they were"
        )
    else:
        why = "it is another picture, or was cut after it was annotated"
    return (
        f"{says}: {why}. If the positions in the file are right for the picture as it is, set {option}=picture, which "
        "believes the picture."
    )


def check_ids(annotations: list[Entry], pictures: dict[int, Picture], file: Path) -> None:
    """Raise `DataError` for an annotation without an id of its own, or of a picture that the file does not list."""
    seen: set[int] = set()
    for each in annotations:
        number = each.get("id")
        if type(number) is not int or number in seen:
            raise DataError(
                f"{file}: annotation id {number!r}{' twice' if number in seen else ''}, expected a whole number of its own."
            )
        seen.add(number)
        if each.get("image_id") not in pictures:
            raise DataError(
                f"{file}: annotation {number}: image_id {each.get('image_id')!r} is no picture of the file."
            )


def table(annotations: list[Entry], key: str, columns: int, file: Path, meaning: str) -> np.ndarray:
    """One list of numbers an annotation, (N, columns) float64. Raises `DataError` for the first that is none."""
    rows = [each.get(key) for each in annotations]
    try:
        array = np.array(rows, np.float64).reshape(len(rows), columns)
        kinds: set[type] = set(map(type, itertools.chain.from_iterable(rows)))  # type: ignore[arg-type]
        if kinds <= {int, float} and (np.abs(array) <= LARGEST).all():
            return array
    except (TypeError, ValueError, OverflowError):
        pass
    values = [
        to_row(row, columns, f"{file}: annotation {each['id']}: {key}", meaning)
        for each, row in zip(annotations, rows, strict=True)
    ]
    for each, row in zip(annotations, values, strict=True):
        each[key] = row
    return np.array(values, np.float64).reshape(len(rows), columns)


def to_row(value: Any, count: int, where: str, meaning: str) -> list[float]:
    """So many finite numbers, which may be written as text."""
    expected = f"{count} finite numbers ({meaning})"
    if isinstance(value, list) and len(value) == count:
        try:
            return [each if is_numbers([each], 1) else to_number(each, where) for each in value]
        except DataError as error:
            raise DataError(f"{where}: found {repr(value)[:200]}, expected {expected}.") from error
    found = f"{len(value)} numbers" if isinstance(value, list) else repr(value)[:200]
    raise DataError(f"{where}: found {found}, expected {expected}.")


def is_numbers(value: Any, count: int) -> bool:
    """A list of so many finite numbers; truth values are none."""
    if not isinstance(value, list) or len(value) != count or not set(map(type, value)) <= {int, float}:
        return False
    return all(map(is_usable, value))


def first_present(root: str, patterns: str | Sequence[str], split: str) -> Path:
    """The first of the patterns that is there, else the first."""
    names = [patterns] if isinstance(patterns, str) else list(patterns)
    paths = [Path(root) / name.replace("{split}", split) for name in names]
    return next((path for path in paths if path.exists()), paths[0])
