"""The canvas: photo and part map in one plane, painted in picture pixels or world metres.

A thing is painted on a canvas of twice the size, once into the photo and once into a map of *part* numbers. A
part knows its label, its instance, its material and the plane it lies on, so the labels, the haze and the
surface texture all come from the same map and cannot drift apart.

A part number may carry a *piece* in its upper bits, such as the window of a wall. A piece changes nothing but the map
of pieces, from which the files of parts are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from dvsn.data.cityscapes_labels import ID_OF
from dvsn.data.street.geometry import Camera, Plane, clip_near, ring
from dvsn.data.street.light import Color, Light
from dvsn.data.street_parts import PIECES

SCALE = 2  # the canvas is drawn at twice the size and averaged down
SUBPIXEL = 3  # bits
UNIT = SCALE << SUBPIXEL  # fixed-point units to a picture pixel
# half a picture pixel less half a canvas pixel: centres stay at integers
SHIFT = UNIT / 2 - (1 << SUBPIXEL) / 2
REACH = 1 << 17  # outlines are cut off this far from the picture, in fixed-point units

# material: (texture channel, strength, strength left when far away)
MATERIALS = {
    "none": (0, 0.0, 0.0),
    "smooth": (0, 0.012, 0.5),
    "asphalt": (0, 0.045, 0.35),
    "plaster": (0, 0.03, 0.4),
    "brick": (1, 0.075, 0.15),
    "slabs": (2, 0.055, 0.15),
    "leaves": (3, 0.14, 0.6),
    "grass": (3, 0.09, 0.4),
    "cloth": (0, 0.025, 0.5),
}
MATERIAL_INDEX = {name: i for i, name in enumerate(MATERIALS)}

PIECE_BITS = 10  # below them the part's own number, of which a scene has about 200
PIECE_INDEX = {name: i << PIECE_BITS for i, name in enumerate(PIECES)}


def piece(part: int, name: str) -> int:
    """The number to paint a piece of a part with; its names are those of `street_parts.PIECES`."""
    return part | PIECE_INDEX[name]


@dataclass
class Canvas:
    """One plane of four 16-bit channels at `SCALE` times the size of the picture: R, G, B and the part
    number.

    A brush writes colour and part in one stroke, so photo and label have the same outlines to the pixel.
    """

    height: int
    width: int
    camera: Camera
    light: Light
    plane: np.ndarray = field(init=False)
    labels: list[int] = field(default_factory=list)
    instances: list[int] = field(default_factory=list)
    materials: list[int] = field(default_factory=list)
    planes: list[Plane] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plane = np.zeros((self.height * SCALE, self.width * SCALE, 4), np.uint16)

    def new_part(
        self, label: str, plane: Plane, material: str = "smooth", instance: int | None = None
    ) -> int:
        """A part number. `instance` is a value of the Cityscapes instance map; None means stuff."""
        self.labels.append(ID_OF[label])
        self.instances.append(ID_OF[label] if instance is None else instance)
        self.materials.append(MATERIAL_INDEX[material])
        self.planes.append(plane)
        assert len(self.labels) <= 1 << PIECE_BITS, "more parts than their bits can count"
        return len(self.labels) - 1

    def new_instance(self, label: str) -> int:
        """The next free instance value of a thing, `id * 1000 + k`."""
        k = self.counts.get(ID_OF[label], 0)
        self.counts[ID_OF[label]] = k + 1
        return ID_OF[label] * 1000 + k

    def convex(self, points: np.ndarray, color: Color, part: int) -> None:
        """Paint one convex polygon (n, 2) in picture pixels."""
        cv2.fillConvexPoly(self.plane, to_fixed(points), (*color, part), shift=SUBPIXEL)

    def polygon(self, points: np.ndarray, color: Color, part: int) -> None:
        """Paint one polygon (n, 2) in picture pixels."""
        cv2.fillPoly(self.plane, [to_fixed(points)], (*color, part), shift=SUBPIXEL)

    def apart(self, fixed: np.ndarray, color: Color, part: int) -> None:
        """Paint polygons that do not overlap, (n, corners, 2) from `to_fixed`."""
        cv2.fillPoly(self.plane, list(fixed), (*color, part), shift=SUBPIXEL)

    def beside(self, fixed: np.ndarray) -> np.ndarray:
        """(n,) bool: which polygons (n, corners, 2) lie wholly to the left or right of the picture."""
        x = fixed[..., 0]
        found: np.ndarray = (x.max(axis=1) < 0) | (x.min(axis=1) >= (self.width * SCALE) << SUBPIXEL)
        return found

    def solid(self, points: np.ndarray, color: Color, part: int) -> None:
        """Paint one world polygon (n, 3), cut at the near plane."""
        points = clip_near(points)
        if len(points) > 2:
            self.polygon(self.camera.project(points), color, part)

    def capsule(
        self,
        centers: Sequence[np.ndarray] | np.ndarray,
        radii: Sequence[float] | np.ndarray,
        color: Color,
        part: int,
    ) -> None:
        """Paint the convex hull of discs; centres and radii in picture pixels."""
        cloud = np.asarray(centers)[:, None] + ring(12) * np.asarray(radii)[:, None, None]
        outline = cv2.convexHull(to_fixed(cloud.reshape(-1, 2)))
        cv2.fillConvexPoly(self.plane, outline, (*color, part), shift=SUBPIXEL)

    def dot(self, center: Sequence[float] | np.ndarray, radius: float, color: Color, part: int) -> None:
        """Paint a disc; centre and radius in picture pixels."""
        x, y = round(float(center[0]) * UNIT + SHIFT), round(float(center[1]) * UNIT + SHIFT)
        if max(abs(x), abs(y)) < REACH:
            size = max(1, round(radius * UNIT))
            cv2.circle(self.plane, (x, y), size, (*color, part), -1, shift=SUBPIXEL)

    def stamp(
        self,
        sprite: np.ndarray,
        center: Sequence[float] | np.ndarray,
        size: tuple[float, float],
        ramp: np.ndarray,
        part: int,
    ) -> None:
        """Paint a sprite (h, w) uint8, 0 clear and 1..255 a tone, in the colours of `ramp` (256, 3).

        `center` and `size` (width, height) are picture pixels.
        """
        rows, columns = self.plane.shape[:2]
        w, h = (max(2, round(side * SCALE)) for side in size)
        left, top = (
            round((float(c) + 0.5) * SCALE - side / 2) for c, side in zip(center, (w, h), strict=True)
        )
        x0, y0, x1, y1 = max(0, left), max(0, top), min(columns, left + w), min(rows, top + h)
        if x1 <= x0 or y1 <= y0:
            return
        tone = cv2.resize(sprite, (w, h), interpolation=cv2.INTER_NEAREST_EXACT)[
            y0 - top : y1 - top, x0 - left : x1 - left
        ]
        table = np.empty((256, 4), np.uint16)
        table[:, :3] = np.clip(ramp, 0, 255)
        table[:, 3] = part
        target = self.plane[y0:y1, x0:x1]
        np.copyto(target.view(np.uint64)[..., 0], table.view(np.uint64)[:, 0][tone], where=tone > 0)


def to_fixed(points: np.ndarray) -> np.ndarray:
    """Picture pixels (..., 2) -> the canvas' fixed-point coordinates, int32."""
    fixed = points * UNIT
    fixed += SHIFT + 0.5
    np.floor(fixed, out=fixed)
    np.maximum(fixed, -REACH, out=fixed)
    np.minimum(fixed, REACH, out=fixed)
    return fixed.astype(np.int32)
