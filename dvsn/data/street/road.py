"""The road and its pavements: how wide everything is, and the ground with its markings, in world metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dvsn.data.street.canvas import Canvas, piece
from dvsn.data.street.geometry import FAR, spread
from dvsn.data.street.light import Color, mix, pick, tint


@dataclass(frozen=True)
class Road:
    """A street across: lanes and parking bays between `left` and `right`, then pavements, then house fronts.

    X of the lines, widths and depths in metres. Pairs are (left, right); a `side` is -1 or 1.
    """

    lane: float  # width of one
    lanes: int
    split: float  # X between the directions; ours is on the right of it
    left: float
    right: float
    parking: tuple[float, float]  # width of the bays, 0 without
    walk: tuple[float, float]  # width of the pavements
    crossing: float | None  # depth of a cross street
    zebra: float | None  # depth of a zebra crossing

    def edge(self, side: int) -> float:
        """Distance of the curb from X = 0."""
        return -self.left if side < 0 else self.right

    def front(self, side: int) -> float:
        """Distance of the building line from X = 0."""
        return self.edge(side) + self.walk[0 if side < 0 else 1]

    def clear(self, z: float) -> bool:
        """Not on the cross street."""
        return not (self.crossing and self.crossing - 5 < z < self.crossing + 11)

    def drivable(self, z: float) -> bool:
        """Neither on the zebra crossing nor on the cross street."""
        if self.zebra and self.zebra - 3.5 < z < self.zebra + 6:
            return False
        return not (self.crossing and self.crossing - 3 < z < self.crossing + 12)


def choose_road(rng: np.random.Generator) -> Road:
    """Two to four lanes, with or without parking, a cross street and a zebra crossing."""
    lane = float(rng.uniform(3.0, 3.5))
    lanes = int(rng.choice([2, 3, 4], p=[0.55, 0.2, 0.25]))
    ours = {2: 1, 3: 2, 4: 2}[lanes]  # lanes of our direction
    split = -lane / 2 - (lane if ours == 2 and rng.random() < 0.5 else 0.0)
    parking = (2.2 if rng.random() < 0.6 else 0.0, 2.2 if rng.random() < 0.6 else 0.0)
    walk = (float(rng.uniform(2.2, 5.0)), float(rng.uniform(2.2, 5.0)))
    crossing = float(rng.uniform(14, 55)) if rng.random() < 0.5 else None
    if crossing:
        zebra: float | None = crossing - 4.5
    else:
        zebra = float(rng.uniform(7, 26)) if rng.random() < 0.35 else None
    return Road(
        lane=lane,
        lanes=lanes,
        split=split,
        left=split - (lanes - ours) * lane - parking[0],
        right=split + ours * lane + parking[1],
        parking=parking,
        walk=walk,
        crossing=crossing,
        zebra=zebra,
    )


def strip(
    left: float, right: float, near: float = 1.0, far: float = FAR * 1.6, up: float = 0.0
) -> np.ndarray:
    """A band of ground between two X, as a world polygon."""
    near = max(near, 1.0)
    z = spread(near, far, max(2, min(24, int((far - near) / 4))))
    band = np.empty((2, len(z), 3))
    band[0, :, 0], band[1, :, 0] = left, right
    band[..., 1], band[0, :, 2], band[1, :, 2] = up, z, z[::-1]
    return band.reshape(-1, 3)


def paint_ground(canvas: Canvas, rng: np.random.Generator, road: Road) -> None:
    """Grass, pavements with their curbs, the road with its marks, and the cross street."""
    camera, light = canvas.camera, canvas.light
    up = (0.0, 1.0, 0.0)
    grass = light.shade(tint((96, 116, 60), float(rng.uniform(0.85, 1.1))), up)
    asphalt_gray = float(rng.uniform(70, 112))
    asphalt = light.shade((asphalt_gray, asphalt_gray * 0.99, asphalt_gray * 1.01), up)
    paving = pick(rng, ((172, 166, 158), (150, 148, 146), (186, 170, 150), (160, 130, 116)), 0.92, 1.06)
    pave = light.shade(paving, up)
    flat, raised = camera.ground(), camera.ground(0.12)
    terrain = canvas.new_part("terrain", flat, "grass")
    canvas.solid(strip(-400, 400), grass, terrain)
    surface = canvas.new_part("road", flat, "asphalt")
    for side in (-1, 1):
        inner, outer = side * road.edge(side), side * road.front(side)
        walk = canvas.new_part("sidewalk", raised, "slabs")
        canvas.solid(strip(inner, outer + side * 0.5, up=0.12), pave, walk)
        curb = canvas.new_part("sidewalk", flat, "plaster")
        z, step = spread(1.0, FAR, 24), np.array([0.0, 0.12, 0.0])
        low = np.stack((np.full_like(z, inner), np.zeros_like(z), z), axis=-1)
        canvas.solid(
            np.concatenate((low, (low + step)[::-1])),
            light.shade(tint(paving, 0.9), (-side, 0.3, -0.3)),
            piece(curb, "curb"),
        )
        top = np.concatenate((low + step, (low + np.array([side * 0.25, 0.12, 0.0]))[::-1]))
        canvas.solid(top, light.shade(tint(paving, 1.1), up), piece(walk, "curb"))
    canvas.solid(strip(road.left, road.right), asphalt, surface)
    if road.crossing:
        across = strip(-120, 120, near=road.crossing, far=road.crossing + 9.0)
        canvas.solid(across, tint(asphalt, 0.97), surface)
    paint_markings(canvas, rng, road, asphalt, surface)


def paint_markings(canvas: Canvas, rng: np.random.Generator, road: Road, asphalt: Color, part: int) -> None:
    """Lines, parking bays, a zebra crossing with its stop line, patches and manhole covers."""
    light, mark = canvas.light, piece(part, "marking")
    worn = float(rng.uniform(0.7, 1.0))
    white = mix(asphalt, light.shade((232, 232, 226), (0, 1, 0)), worn)
    gap = (road.crossing - 6.5, road.crossing + 9.5) if road.crossing else (1e9, 1e9)

    def dash(x: float, start: float, end: float, half: float) -> None:
        for a, b in ((start, min(end, gap[0])), (max(start, gap[1]), end)):
            if b > a and b > 1.2:
                canvas.solid(strip(x - half, x + half, near=a, far=b), white, mark)

    offset = float(rng.uniform(0, 9))
    solid_middle = rng.random() < 0.4
    left_lane, right_lane = road.left + road.parking[0], road.right - road.parking[1]
    for k in range(road.lanes + 1):
        x = left_lane + k * road.lane
        if k in (0, road.lanes):
            if (k == 0 and road.parking[0]) or (k and road.parking[1]) or rng.random() < 0.4:
                dash(x + (0.15 if k == 0 else -0.15), 1.0, FAR, 0.06)
        elif abs(x - road.split) < 0.1 and solid_middle:
            dash(x - 0.12, 1.0, FAR, 0.05)
            dash(x + 0.12, 1.0, FAR, 0.05)
        else:
            for start in np.arange(-9 + offset, 90, 9.0):
                dash(x, max(1.0, start), start + 4.5, 0.075)
    for x0, x1, wide in ((road.left, left_lane, road.parking[0]), (right_lane, road.right, road.parking[1])):
        for z in np.arange(offset, 60, 5.6) if wide else ():
            if z > 1.5:
                canvas.solid(strip(x0, x1, near=z, far=z + 0.12), white, mark)
    if road.zebra:
        for x in np.arange(road.left + 0.4, road.right - 0.5, 1.0):
            canvas.solid(strip(x, x + 0.5, near=road.zebra, far=road.zebra + 3.0), white, mark)
        stop = strip(road.split, right_lane, near=road.zebra - 1.6, far=road.zebra - 1.2)
        canvas.solid(stop, white, mark)
    for _ in range(int(rng.integers(0, 4))):  # patches and manhole covers
        x, z = float(rng.uniform(road.left, road.right - 1)), float(rng.uniform(5, 25))
        tone = tint(asphalt, float(rng.uniform(0.84, 1.1)))
        canvas.solid(
            strip(x, x + float(rng.uniform(0.6, 1.0)), near=z, far=z + float(rng.uniform(1, 5))), tone, part
        )
