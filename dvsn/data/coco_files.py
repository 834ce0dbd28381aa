"""COCO's JSON files (Lin et al., 2014, arXiv:1405.0312): annotations and detections, read and looked through."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dvsn.errors import DataError

Entry = dict[str, Any]
FORM = "an object with the lists images, annotations and categories"


class Picture(NamedTuple):
    path: Path
    width: int
    height: int


def read_coco(path: Path, *, needs: str) -> Entry:
    """A COCO file whose annotations, if there are any, hold `needs`. A `DataError` says what it holds instead."""
    content = read_json(path)
    if not isinstance(content, dict):
        found = "a list"
        if isinstance(content, list) and content and isinstance(content[0], dict):
            found += f" of entries with {', '.join(content[0])}"
            found += ": detections? They go into data.people.boxes" if "score" in content[0] else ""
        raise DataError(f"{path}: found {found}; expected COCO's annotations, {FORM}.")
    content.setdefault("annotations", [])  # a test split has none
    wrong = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if wrong:
        raise DataError(
            f"{path}: found an object with {', '.join(content)[:200]}; expected {FORM}. No list: {', '.join(wrong)}."
        )
    annotations = content["annotations"]
    if annotations and not any(needs in each for each in annotations):
        raise DataError(
            f"{path}: an annotation holds {', '.join(annotations[0])}, and none has '{needs}': a file of another task? "
            f"Expected annotations with id, image_id, category_id, bbox and {needs}."
        )
    return content


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises `DataError` with the place where it is none."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not a JSON file ({error}).") from error


def read_detections(path: Path) -> list[Entry]:
    """The entries of a file in COCO's results format."""
    content = read_json(path)
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
                f"{path}: entry {row}: bbox {each['bbox']}, score {each['score']}; expected four finite numbers and one."
            )
    return content


def list_pictures(images: list[Entry], folder: Path, file: Path) -> dict[int, Picture]:
    """The pictures by id, in the order of the file."""
    found: dict[int, Picture] = {}
    for each in images:
        lacking = [key for key in ("id", "file_name", "width", "height") if key not in each]
        if lacking:
            raise DataError(
                f"{file}: image {each.get('id', each.get('file_name'))} has no {', '.join(lacking)}."
            )
        if each["id"] in found or not isinstance(each["id"], int):
            raise DataError(
                f"{file}: image id {each['id']!r} of {each['file_name']}, expected a whole number of its own."
            )
        found[each["id"]] = Picture(folder / each["file_name"], each["width"], each["height"])
    return found


def check_ids(annotations: list[Entry], pictures: dict[int, Picture], file: Path) -> None:
    """Raise `DataError` for an annotation without an id of its own, or of a picture that the file does not list."""
    seen: set[int] = set()
    for each in annotations:
        number = each.get("id")
        if not isinstance(number, int) or number in seen:
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
        if np.isfinite(array).all():
            return array
    except (TypeError, ValueError):
        pass
    for each, row in zip(annotations, rows, strict=True):
        if not is_numbers(row, columns):
            found = (
                f"{len(row)} numbers" if isinstance(row, list) and len(row) != columns else repr(row)[:200]
            )
            raise DataError(
                f"{file}: annotation {each['id']}: {key}: found {found}, expected {columns} finite numbers ({meaning})."
            )
    raise AssertionError("some row is no list of numbers")


def is_numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(each, int | float) and math.isfinite(each) for each in value)
    )


def first_present(root: str, patterns: str | Sequence[str], split: str) -> Path:
    """The first of the patterns that is there, else the first."""
    names = [patterns] if isinstance(patterns, str) else list(patterns)
    paths = [Path(root) / name.replace("{split}", split) for name in names]
    return next((path for path in paths if path.exists()), paths[0])
