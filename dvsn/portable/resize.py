"""The steps by which a recipe's evaluation makes pictures as large as the network wants them, without albumentations.

Each step is a node of the recipe, such as `{"_target_": "albumentations.Resize", "height": 256, "width": 512}`, and does
what albumentations 2.0.8 (MIT) does with the same options, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np

from dvsn.errors import CheckpointError, ConfigError, DataError

Array = np.ndarray[Any, Any]
Step = Callable[[Array, str], Array]
"""A picture (H, W, C) or ids (H, W), and `photo` or `label` -> the same, of another size."""

AREA = ("image", "image_mask")
COMMON = {
    "interpolation": cv2.INTER_LINEAR,
    "mask_interpolation": cv2.INTER_NEAREST,
    "area_for_downscale": None,
}
BORDER = {"border_mode": cv2.BORDER_CONSTANT, "fill": 0, "fill_mask": 0}
KNOWN: dict[str, dict[str, Any]] = {
    "Resize": {"height": None, "width": None, **COMMON},
    "SmallestMaxSize": {"max_size": None, "max_size_hw": None, **COMMON},
    "LongestMaxSize": {"max_size": None, "max_size_hw": None, **COMMON},
    "CenterCrop": {"height": None, "width": None, "pad_if_needed": False, "pad_position": "center", **BORDER},
    "PadIfNeeded": {
        "min_height": 1024, "min_width": 1024, "pad_height_divisor": None, "pad_width_divisor": None, "position": "center",
        **BORDER,
    },
}  # fmt: skip
"""The steps that are known, with albumentations' own values of their options."""
BELOW = {"top_left": (0, 0), "top_right": (0, 1), "bottom_left": (1, 0), "bottom_right": (1, 1)}
"""By `position` whether all of the padding is before the rows and the columns."""


def make_steps(nodes: Sequence[Any], path: Any = "the file") -> Step:
    """All steps one after the other. Raises `CheckpointError`, which names `path`, for one that is not known here."""
    steps = [_step(node, path) for node in nodes]

    def move(picture: Array, kind: str) -> Array:
        for step in steps:
            picture = step(picture, kind)
        return picture

    return move


def read_size(size: str) -> tuple[int, int]:
    """HEIGHTxWIDTH -> both. Raises `ConfigError`."""
    parts = size.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"size: found '{size}', expected recipe, keep or HEIGHTxWIDTH such as 256x512.")
    return int(parts[0]), int(parts[1])


def padded(image: Array, multiple: int) -> Array:
    """(N, C, H, W) padded at the right and the bottom by its border to sides that divide."""
    below, right = (-side % multiple for side in image.shape[-2:])
    if not below and not right:
        return image
    return np.pad(image, ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")


def _step(node: Any, path: Any) -> Step:
    """One node. Nothing is built by its name: it has to be one of `KNOWN`."""
    target = str(node.get("_target_", "")) if isinstance(node, Mapping) else repr(node)[:60]
    room, _, name = target.rpartition(".")
    if room.partition(".")[0] != "albumentations" or name not in KNOWN:
        raise CheckpointError(
            f"{path}: its recipe makes pictures ready by the step '{target}', which is not known without dvsn's training "
            f"side; known are {', '.join(KNOWN)}. Give size=keep or size=HEIGHTxWIDTH, or predict by dvsn.load."
        )
    given = {key: value for key, value in node.items() if key not in ("_target_", "p")}
    unknown = [key for key in given if key not in KNOWN[name]]
    if unknown or node.get("p", 1) != 1 or "random" in (given.get("position"), given.get("pad_position")):
        wrong = unknown[0] if unknown else "p" if node.get("p", 1) != 1 else "position"
        raise CheckpointError(
            f"{path}: the step '{target}': its option '{wrong}' is not known here, or draws."
        )
    options = KNOWN[name] | given
    if name == "Resize":
        return partial(_resize, options)
    if name == "CenterCrop":
        return partial(_centre_crop, options)
    if name == "PadIfNeeded":
        return partial(_pad, options)
    return partial(_scale, options, max if name == "LongestMaxSize" else min, path)


def _how(options: Mapping[str, Any], kind: str, *, smaller: bool) -> int:
    """OpenCV's filter."""
    area = options["area_for_downscale"]
    if smaller and (area == "image_mask" or (area == "image" and kind == "photo")):
        return cv2.INTER_AREA
    return int(options["interpolation" if kind == "photo" else "mask_interpolation"])


def _to(picture: Array, height: int, width: int, how: int) -> Array:
    if picture.shape[:2] == (height, width):
        return picture
    return cv2.resize(picture, (width, height), interpolation=how)


def _resize(options: Mapping[str, Any], picture: Array, kind: str) -> Array:
    height, width = int(options["height"]), int(options["width"])
    smaller = height < picture.shape[0] or width < picture.shape[1]
    return _to(picture, height, width, _how(options, kind, smaller=smaller))


def _scale(options: Mapping[str, Any], pick: Any, path: Any, picture: Array, kind: str) -> Array:
    """`pick`: max for the longest side, which has to fit; min for the smallest, which has to be filled."""
    height, width = picture.shape[:2]
    most, sides = options["max_size"], options["max_size_hw"]
    if isinstance(most, list | tuple):
        if len(set(most)) != 1:
            raise CheckpointError(
                f"{path}: max_size={list(most)} draws one of them, which evaluation does not."
            )
        most = most[0]
    if most is not None:
        scale = most / pick(height, width)
    else:
        wanted = zip(sides, (height, width), strict=True)
        scales = [want / have for want, have in wanted if want is not None]
        scale = min(scales) if pick is max else max(scales)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    return _to(picture, rows, columns, _how(options, kind, smaller=scale < 1))


def _centre_crop(options: Mapping[str, Any], picture: Array, kind: str) -> Array:
    height, width = int(options["height"]), int(options["width"])
    if options["pad_if_needed"]:
        sides = {"min_height": height, "min_width": width, "position": options["pad_position"]}
        picture = _pad({**KNOWN["PadIfNeeded"], **options, **sides}, picture, kind)
    rows, columns = picture.shape[:2]
    if height > rows or width > columns:
        raise DataError(
            f"a picture of {rows}x{columns} (height x width) is smaller than the {height}x{width} that the recipe cuts out "
            "of its centre. Give a larger one, or size=HEIGHTxWIDTH."
        )
    top, left = (rows - height) // 2, (columns - width) // 2
    return picture[top : top + height, left : left + width]


def _pad(options: Mapping[str, Any], picture: Array, kind: str) -> Array:
    needs = []
    for axis, side in enumerate(("height", "width")):
        least, divisor = options[f"min_{side}"], options[f"pad_{side}_divisor"]
        have = picture.shape[axis]
        needs.append(max(0, least - have) if least is not None else -have % divisor)
    place = options["position"]
    if place == "center":
        before = [need // 2 for need in needs]
    else:
        before = [need * first for need, first in zip(needs, BELOW[place], strict=True)]
    (top, left), (below, right) = before, [need - first for need, first in zip(needs, before, strict=True)]
    if not any(needs):
        return picture
    fill = options["fill" if kind == "photo" else "fill_mask"]
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    value = [float(fill)] * channels if isinstance(fill, int | float) else [float(each) for each in fill]
    border = int(options["border_mode"])
    if channels <= 4:  # as many as OpenCV fills
        return cv2.copyMakeBorder(picture, top, below, left, right, borderType=border, value=value)
    parts = [
        cv2.copyMakeBorder(
            np.ascontiguousarray(picture[..., place : place + 4]), top, below, left, right, borderType=border,
            value=value[place : place + 4],
        ).reshape(picture.shape[0] + top + below, picture.shape[1] + left + right, -1)
        for place in range(0, channels, 4)
    ]  # fmt: skip
    return np.concatenate(parts, axis=2)
