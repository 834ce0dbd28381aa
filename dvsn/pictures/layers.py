"""A picture and what lies on it as layers, for loggers that can switch each class of a layer on and off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np

from dvsn.pictures.grids import shrink

Array = np.ndarray[Any, Any]


class Box(NamedTuple):
    """A box, in pixels of its picture, of the class with the number `label`."""

    left: float
    top: float
    right: float
    bottom: float
    label: int
    score: float | None = None


class Point(NamedTuple):
    """A keypoint, in pixels of its picture; `label` is its number."""

    x: float
    y: float
    label: int
    score: float | None = None


@dataclass(frozen=True)
class Layers:
    """`picture` is RGB (H, W, 3) uint8. The layers stand under their names, such as `prediction` and `label`."""

    name: str
    picture: Array
    classes: tuple[str, ...]
    """The names of classes, or of keypoints, by number."""
    masks: dict[str, Array] = field(default_factory=dict)
    """Class ids (H, W) uint8, 255 where there is none."""
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)
    points: dict[str, tuple[Point, ...]] = field(default_factory=dict)

    def within(self, side: int) -> Layers:
        """A copy whose longer side is at most `side`."""
        picture = shrink(self.picture, side)
        height, width = picture.shape[:2]
        y, x = height / self.picture.shape[0], width / self.picture.shape[1]
        return Layers(
            self.name,
            picture,
            self.classes,
            {
                key: cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
                for key, mask in self.masks.items()
            },
            {
                key: tuple(
                    each._replace(
                        left=x * each.left, top=y * each.top, right=x * each.right, bottom=y * each.bottom
                    )
                    for each in found
                )
                for key, found in self.boxes.items()
            },
            {
                key: tuple(each._replace(x=x * each.x, y=y * each.y) for each in found)
                for key, found in self.points.items()
            },
        )
