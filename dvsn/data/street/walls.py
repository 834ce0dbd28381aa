"""Vertical walls with boxes painted on them, in metres on the wall; fences and low walls."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dvsn.data.street.canvas import Canvas, piece, to_fixed
from dvsn.data.street.light import Color, pick, tint


@dataclass
class Wall:
    """A vertical rectangle, and the flat boxes to be painted on it in order."""

    start: tuple[float, float, float]  # its ground corner
    along: tuple[float, float, float]  # unit direction
    length: float
    height: float
    normal: tuple[float, float, float]
    boxes: list[np.ndarray] = field(default_factory=list)
    colors: list[Color] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def add(self, boxes: np.ndarray | list[list[float]], color: Color, name: str = "") -> None:
        """Boxes (n, 4) of (left, bottom, right, top) in metres on the wall, none over another; all of one piece."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if len(boxes):
            self.boxes.append(boxes)
            self.colors.append(color)
            self.pieces.append(name)

    def corners(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) boxes -> (n, 4, 3) world corners."""
        s = boxes[:, [0, 2, 2, 0]]
        points = np.empty((len(boxes), 4, 3))
        points[..., 0] = self.start[0] + s * self.along[0]
        points[..., 1] = self.start[1] + boxes[:, [1, 1, 3, 3]]
        points[..., 2] = self.start[2] + s * self.along[2]
        return points

    def paint(self, canvas: Canvas, part: int) -> None:
        if not self.boxes:
            return
        fixed = to_fixed(canvas.camera.project(self.corners(np.concatenate(self.boxes))))
        seen = ~canvas.beside(fixed)
        done = 0
        for boxes, color, name in zip(self.boxes, self.colors, self.pieces, strict=True):
            these = slice(done, done + len(boxes))
            done += len(boxes)
            if seen[these].any():
                canvas.apart(fixed[these][seen[these]], color, piece(part, name))


def paint_fence(
    canvas: Canvas,
    rng: np.random.Generator,
    *,
    side: int,
    inner: float,
    start: float,
    end: float,
    solid: bool,
) -> None:
    """A fence of pickets (one filled label, as Cityscapes draws it) or a low wall."""
    camera, light = canvas.camera, canvas.light
    wall = Wall((side * inner, 0.0, start), (0.0, 0.0, 1.0), end - start, 1.3, (-side, 0, 0))
    ends = np.array([[side * inner, 0.0, start], [side * inner, 0.0, end]])
    plane = camera.wall(*ends)
    stone = pick(rng, ((168, 160, 148), (150, 90, 70), (190, 186, 178)), 0.9, 1.05)
    wood = pick(rng, ((120, 92, 66), (214, 210, 200), (60, 66, 62)), 0.9, 1.05)
    if solid:
        part = canvas.new_part("wall", plane, "brick")
        wall.add([[0, 0, wall.length, 1.3]], light.shade(stone, wall.normal))
        wall.add([[0, 1.18, wall.length, 1.32]], light.shade(tint(stone, 1.12), (0, 1, 0)))
    else:
        part = canvas.new_part("fence", plane)
        color = light.shade(wood, wall.normal)
        wall.add([[0, 0, wall.length, 1.3]], tint(color, 0.5))
        posts = np.arange(0, wall.length - 0.2, 0.45)
        posts = posts[camera.focal * 0.2 * inner / (start + posts) ** 2 > 0.25]
        wall.add(np.stack((posts, posts * 0, posts + 0.24, posts * 0 + 1.3), axis=-1), color, "picket")
        wall.add([[0, 0.95, wall.length, 1.1], [0, 0.3, wall.length, 0.45]], tint(color, 0.9), "picket")
    wall.paint(canvas, part)
