"""Results as plain types, and back; what is read is foreign, so its form is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.errors import DataError
from dvsn.portable.frame import Frame
from dvsn.portable.joints import Skeleton
from dvsn.portable.record import RankedClass, Record
from dvsn.portable.runs import picture_text, text_picture

Array = np.ndarray[Any, Any]

FORMAT = 1
NUMBERS: dict[str, tuple[type, tuple[int | None, ...]]] = {
    "boxes": (np.float64, (None, 4)),
    "scores": (np.float64, (None,)),
    "labels": (np.int64, (None,)),
    "keypoints": (np.float64, (None, None, 3)),
    "points": (np.float64, (None, None, 3)),
    "angles_degrees": (np.float64, (None, 3)),
    "track_ids": (np.int64, (None,)),
}
"""Fields that are lists of numbers: their type, and the sides of their shapes that are known."""
MOST_PIXELS = 200_000_000


def to_json(result: Record) -> dict[str, Any]:
    """See `Result.to_json`."""
    frame = result.frame
    content: dict[str, Any] = {
        "format": FORMAT,
        "kind": result.kind,
        "name": frame.name,
        "path": None if frame.path is None else str(frame.path),
        "index": frame.index,
        "seconds": frame.seconds,
        "picture_size": list(frame.size),
        "image_id": result.image_id,
        "names": list(result.names),
        "palette": [list(colour) for colour in result.palette],
        "file_ids": {str(label): number for label, number in result.file_ids.items()},
        "shown_from": result.shown_from,
    }
    for key in NUMBERS:
        value = getattr(result, key)
        if value is not None:
            content[key] = _numbers(value)
    if result.mask_codes is not None:
        content["masks"] = [dict(code) for code in result.mask_codes]
    if result.skeleton is not None:
        content["skeleton"] = result.skeleton.to_json()
    if result.classes is not None:
        content["classes"] = [each._asdict() for each in result.classes]
    for key in ("ids", "picture"):
        value = getattr(result, key)
        if value is not None:
            content[key] = {"png": picture_text(value)}
    return content


def _numbers(values: Array) -> list[Any]:
    """Nested lists, with None for what is not a number: JSON has no NaN."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return values.tolist()  # type: ignore[no-any-return]
    known = values.astype(object)
    known[~np.isfinite(values)] = None
    return known.tolist()  # type: ignore[no-any-return]


def read_fields(content: Mapping[str, Any] | str, picture: Array | None = None) -> dict[str, Any]:
    """The fields of a record by name: see `Result.from_json`."""
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except ValueError as error:
            raise DataError(f"a result: not JSON ({error}).") from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise DataError(f"a result: expected what Result.to_json() gives, with the format {FORMAT}.")
    try:
        return _read(content, picture)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        said = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"a result: {said}; expected what Result.to_json() gives.") from error


def _read(content: Mapping[str, Any], picture: Array | None) -> dict[str, Any]:
    height, width = (int(side) for side in content["picture_size"])
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise DataError(f"picture_size: found {height} x {width}, expected {MOST_PIXELS:,} pixels at most.")
    if picture is None:
        picture = np.zeros((height, width, 3), np.uint8)
    elif picture.shape[:2] != (height, width):
        raise DataError(f"picture: found {picture.shape[:2]}, expected {height} x {width} pixels.")
    path, seconds, image_id, shown = (
        content.get(key) for key in ("path", "seconds", "image_id", "shown_from")
    )
    frame = Frame(
        picture,
        str(content["name"]),
        None if path is None else Path(path),
        int(content["index"]),
        None if seconds is None else float(seconds),
    )
    names, skeleton, codes, ranked = (content.get(key) for key in ("names", "skeleton", "masks", "classes"))
    return {
        "kind": str(content["kind"]),
        "frame": frame,
        "names": tuple(map(str, names or ())),
        "palette": tuple((int(r), int(g), int(b)) for r, g, b in content.get("palette") or ()),
        "mask_codes": None if codes is None else [_code(code, frame.size) for code in codes],
        "skeleton": None if skeleton is None else Skeleton.from_json(skeleton),
        "classes": None if ranked is None else [_ranked(each) for each in ranked],
        "image_id": None if image_id is None else int(image_id),
        "file_ids": {int(key): int(value) for key, value in (content.get("file_ids") or {}).items()},
        "shown_from": None if shown is None else float(shown),
        **{key: _array(content, key) for key in NUMBERS},
        **{key: _picture(content, key) for key in ("ids", "picture")},
    }


def _array(content: Mapping[str, Any], key: str) -> Array | None:
    """A list of numbers as the array that it was."""
    if content.get(key) is None:
        return None
    kind, shape = NUMBERS[key]
    values = np.array(content[key], dtype=np.float64)  # None becomes NaN
    if not values.size:
        known = [side or 0 for side in shape]
        return np.zeros(values.shape if values.ndim == len(shape) else known, kind)
    fits = values.ndim == len(shape) and all(
        side in (None, found) for side, found in zip(shape, values.shape, strict=True)
    )
    whole = kind is not np.int64 or (np.isfinite(values).all() and (values % 1 == 0).all())
    if not fits or not whole:
        sides = ", ".join("any" if side is None else str(side) for side in shape)
        raise DataError(
            f"{key}: found numbers of the shape {values.shape}, expected ({sides}) of {kind.__name__}."
        )
    return values.astype(kind)


def _picture(content: Mapping[str, Any], key: str) -> Array | None:
    value = content.get(key)
    return None if value is None else text_picture(value["png"])


def _ranked(entry: Mapping[str, Any]) -> RankedClass:
    score = float(entry["score"])
    if not math.isfinite(score):
        raise DataError(f"classes: found the score {score}, expected a number.")
    return RankedClass(str(entry["name"]), int(entry["number"]), score)


def _code(code: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    found = [int(side) for side in code["size"]]
    if found != list(size):
        raise DataError(f"masks: found one of {found}, expected {list(size)}, the picture's.")
    return {"size": found, "counts": str(code["counts"])}
