"""The camera and the geometry of outlines.

World frame: metres, X to the right, Y up from the road, Z forward from the camera. Picture frame: (x, y)
pixels, centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

Plane = tuple[float, float, float]
NEAR = 1.0  # metres; nothing is drawn nearer
FAR = 160.0  # metres; where the street ends


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera `eye` metres above the road, looking along a street bent by `bend` * Z**2."""

    focal: float
    center: float  # x of the vanishing point
    horizon: float  # y of the horizon
    eye: float
    bend: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """World (..., 3) -> picture (..., 2). Z must be positive."""
        points = np.asarray(points, np.float64)
        z = points[..., 2]
        scale = self.focal / z
        flat = np.empty((*points.shape[:-1], 2))
        flat[..., 0] = points[..., 0] * scale + (self.focal * self.bend) * z + self.center
        flat[..., 1] = (self.eye - points[..., 1]) * scale + self.horizon
        return flat

    def upright(self, z: float) -> Plane:
        """1 / Z of anything that stands at depth `z`, as a plane over the picture."""
        return (0.0, 0.0, 1.0 / z)

    def ground(self, height: float = 0.0) -> Plane:
        slope = 1.0 / (self.focal * (self.eye - height))
        return (0.0, slope, -slope * self.horizon)

    def wall(self, start: np.ndarray, end: np.ndarray) -> Plane:
        """1 / Z over a vertical wall between two ground points: linear in x, exact for a plane."""
        ends = self.project(np.stack((start, end)))
        run = ends[1, 0] - ends[0, 0]
        if abs(run) < 1e-3:
            return self.upright(float(start[2] + end[2]) / 2)
        slope = (1.0 / end[2] - 1.0 / start[2]) / run
        return (float(slope), 0.0, float(1.0 / start[2] - slope * ends[0, 0]))


def clip_near(points: np.ndarray, near: float = NEAR) -> np.ndarray:
    """Cut a world polygon (n, 3) at Z = near (Sutherland and Hodgman)."""
    points = np.asarray(points, np.float64)
    if points[:, 2].min() >= near:
        return points
    if points[:, 2].max() < near:
        return points[:0]
    kept: list[np.ndarray] = []
    for here, there in zip(points, np.concatenate((points[1:], points[:1])), strict=True):
        if here[2] >= near:
            kept.append(here)
        if (here[2] >= near) != (there[2] >= near):
            kept.append(here + (there - here) * (near - here[2]) / (there[2] - here[2]))
    return np.asarray(kept).reshape(-1, 3)


def band(
    foot: np.ndarray, top: np.ndarray, below: tuple[float, float], above: tuple[float, float]
) -> np.ndarray:
    """A quadrilateral between two points, from left to right offsets at each."""
    (x0, y0), (x1, y1) = foot, top
    return np.array([[x0 + below[0], y0], [x0 + below[1], y0], [x1 + above[1], y1], [x1 + above[0], y1]])


def spread(start: float, end: float, count: int) -> np.ndarray:
    """`count` depths from `start` to `end`, each the same factor further."""
    return start * (end / start) ** unit_steps(count)


@lru_cache(maxsize=32)
def unit_steps(count: int) -> np.ndarray:
    return np.linspace(0, 1, count)


@lru_cache(maxsize=8)
def ring(points: int) -> np.ndarray:
    angles = np.arange(points) * (2 * np.pi / points)
    return np.stack((np.cos(angles), np.sin(angles)), axis=-1)


def hull(centers: np.ndarray, radii: Sequence[float] | np.ndarray, points: int = 12) -> np.ndarray:
    """The convex hull of discs: (n, 2) centres and n radii -> polygon (m, 2)."""
    cloud = np.asarray(centers)[:, None] + ring(points) * np.asarray(radii)[:, None, None]
    return convex_hull(cloud.reshape(-1, 2))


def convex_hull(points: np.ndarray) -> np.ndarray:
    outline: np.ndarray = cv2.convexHull(points.astype(np.float32)).reshape(-1, 2)
    return outline
