"""Embedded data: street scenes drawn by a program, with everything known about them.

`draw_scene` is a pure function of (seed, index, size). `write_cityscapes` lays scenes out as a Cityscapes
tree (Cordts et al., 2016, arXiv:1604.01685), and `ensure_street` does so on first use, once, however many
processes ask.

Scenes are the same on every machine with the same numpy random streams (PCG64, stable by numpy's policy for a
bit generator; its distributions have not changed since 1.19) and the same OpenCV drawing and resizing;
another version of OpenCV may move single pixels of an outline, in photo and label alike. `VERSION` counts
changes of the generator.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dvsn.data.cityscapes_labels import ID_OF, PALETTE, TRAIN_ID_OF
from dvsn.data.street_drawing import (
    FAR,
    PAINTS,
    Camera,
    Canvas,
    Color,
    Figure,
    Light,
    Vehicle,
    choose_light,
    choose_walker,
    clip_near,
    finish,
    mix,
    paint_building,
    paint_fence,
    paint_hedge,
    paint_lamp,
    paint_person,
    paint_sign,
    paint_sky,
    paint_traffic_light,
    paint_tree,
    paint_vehicle,
    pick,
    spread,
    tint,
)
from dvsn.errors import DataError

log = logging.getLogger(__name__)

VERSION = 1
STAMP = "street.json"
LOCK = ".street.lock"
SPLITS = ("train", "val", "test")
CITIES = {
    "train": ("alderbrook", "birchford", "cedarvale", "dunmere"),
    "val": ("elmstead",),
    "test": ("fairhaven",),
}
SPLIT_STRIDE = 1_000_000  # scene index = split number * stride + position, so that splits never share a scene
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
if hasattr(
    cv2, "IMWRITE_PNG_FILTER"
):  # newer OpenCV: one filter for all rows, twice as fast and no larger here
    PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
BGRA = np.concatenate((PALETTE[:, ::-1], np.full((256, 1), 255, np.uint8)), axis=1)
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Face:
    """A face that looks towards the camera, large enough to see its parts.

    `landmarks` (98, 2) float32 picture pixels in the order of WFLW; `seen` (98,) bool, False where something
    else is in front or the point is outside; `box` (x0, y0, x1, y1) pixels around the landmarks with a margin
    of 10 %; `angles` (pitch, yaw, roll) radians: positive looks down, to the image left, tilts clockwise.
    """

    landmarks: np.ndarray
    seen: np.ndarray
    box: Box
    angles: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Thing:
    """A vehicle, or the common part of a person.

    `box` (x0, y0, x1, y1) encloses the visible pixels: x1 and y1 are one past the last, so COCO's box is (x0,
    y0, x1 - x0, y1 - y0). Its mask is `scene.instance_ids == instance_id`, `area` the count of its pixels.
    """

    instance_id: int
    label_id: int
    box: Box
    area: int


@dataclass(frozen=True, eq=False)
class Person(Thing):
    """A person; `keypoints` (17, 3) float32: x, y in picture pixels and v, in the order of COCO.

    v is 2 where the joint is seen, 1 where it is inside the picture but hidden by something or by the
    person's own body, and 0 outside the picture, with x = y = 0. `turned` is 1 for a face looking at us and
    -1 for its back.
    """

    keypoints: np.ndarray
    face: Face | None
    turned: float


@dataclass(frozen=True, eq=False)
class Scene:
    """A street and all that is known of it. H x W pixels.

    `photo` (H, W, 3) uint8 RGB; `label_ids` (H, W) uint8 Cityscapes label ids; `instance_ids` (H, W) int32,
    the Cityscapes instance map: label id * 1000 + k for a thing, the label id itself for stuff. `people` and
    `vehicles` are listed from far to near and only if a pixel of them is left.
    """

    photo: np.ndarray
    label_ids: np.ndarray
    instance_ids: np.ndarray
    people: tuple[Person, ...]
    vehicles: tuple[Thing, ...]

    @property
    def cars(self) -> tuple[Thing, ...]:
        return tuple(each for each in self.vehicles if each.label_id == ID_OF["car"])


def draw_scene(*, seed: int, index: int, height: int = 256, width: int = 512) -> Scene:
    """Draw scene `index` of the endless sequence `seed`: the same call gives the same scene, in any order."""
    if height < 32 or width < 32:
        raise DataError(
            f"street: a scene of {height} x {width} is too small to draw; both sides must be 32 or more."
        )
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    street = Street(rng, height, width)
    street.paint()
    photo, part = finish(street.canvas, street.shadow(), rng)
    label_ids = np.asarray(street.canvas.labels, np.uint8)[part]
    instance_ids = np.asarray(street.canvas.instances, np.int32)[part]
    boxes = find_boxes(instance_ids)
    people = tuple(
        describe_person(figure, part, boxes[figure.instance])
        for figure in street.figures
        if figure.instance in boxes
    )
    vehicles = tuple(boxes[i] for i in street.vehicles if i in boxes)
    return Scene(photo, label_ids, instance_ids, people, vehicles)


def find_boxes(instance_ids: np.ndarray) -> dict[int, Thing]:
    """Every thing of an instance map by its value."""
    rows, columns = np.nonzero(instance_ids >= 1000)
    values = instance_ids[rows, columns]
    order = np.argsort(values, kind="stable")
    values, rows, columns = values[order], rows[order], columns[order]
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    if not len(starts):
        return {}
    x0, y0 = (np.minimum.reduceat(each, starts).tolist() for each in (columns, rows))
    x1, y1 = (np.maximum.reduceat(each, starts).tolist() for each in (columns, rows))
    areas = np.diff(starts, append=len(values)).tolist()
    return {
        value: Thing(value, value // 1000, (float(a), float(b), float(c + 1), float(d + 1)), area)
        for value, a, b, c, d, area in zip(values[starts].tolist(), x0, y0, x1, y1, areas, strict=True)
    }


def describe_person(figure: Figure, part: np.ndarray, thing: Thing) -> Person:
    """Settle what is visible once everything is painted."""
    height, width = part.shape

    def owner(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inside = (points > -0.5).all(axis=-1) & (points[:, 0] < width - 0.5) & (points[:, 1] < height - 0.5)
        column = np.clip(np.rint(points[:, 0]), 0, width - 1).astype(int)
        row = np.clip(np.rint(points[:, 1]), 0, height - 1).astype(int)
        return inside, part[row, column]

    inside, found = owner(figure.joints)
    seen = np.array([int(p) in parts for p, parts in zip(found.tolist(), figure.owners, strict=True)])
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[:, :2] = figure.joints
    keypoints[:, 2] = np.where(inside, np.where(seen, 2, 1), 0)
    keypoints[~inside] = 0
    face = None
    low, high = figure.landmarks.min(axis=0), figure.landmarks.max(axis=0)
    if figure.turned > 0.6 and high[1] - low[1] >= 10:
        inside, found = owner(figure.landmarks)
        visible = inside & np.isin(found, list(figure.face_parts))
        margin = 0.1 * (high - low)
        (x0, y0), (x1, y1) = low - margin, high + margin
        if visible.mean() > 0.5:
            box = (float(x0), float(y0), float(x1), float(y1))
            face = Face(figure.landmarks.astype(np.float32), visible, box, figure.angles)
    return Person(thing.instance_id, thing.label_id, thing.box, thing.area, keypoints, face, figure.turned)


# -------------------- composition


class Street:
    """Chooses a street and paints it from far to near."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.light: Light = choose_light(rng)
        self.camera = Camera(
            focal=float(rng.uniform(0.62, 0.92)) * (width + height) / 1.5,
            center=width * float(rng.uniform(0.36, 0.64)),
            horizon=height * float(rng.uniform(0.40, 0.52)),
            eye=float(rng.uniform(1.45, 2.3)),
            bend=float(rng.choice([0.0, 1.0], p=[0.4, 0.6]) * rng.uniform(-1, 1) * 7e-4),
        )
        self.canvas = Canvas(height, width, self.camera, self.light)
        self.jobs: list[tuple[float, int, Callable[[], None]]] = []
        self.shadows: list[np.ndarray] = []  # ground polygons in the sun's shadow
        self.contacts: list[np.ndarray] = []  # ground polygons under things
        self.figures: list[Figure] = []
        self.vehicles: list[int] = []
        self.taken: list[tuple[float, float, float]] = []
        self.lane = float(rng.uniform(3.0, 3.5))
        self.lanes = int(rng.choice([2, 3, 4], p=[0.55, 0.2, 0.25]))
        ours = {2: 1, 3: 2, 4: 2}[self.lanes]  # lanes of our direction, on the right
        self.split = -self.lane / 2 - (self.lane if ours == 2 and rng.random() < 0.5 else 0.0)
        self.parking = (2.2 if rng.random() < 0.6 else 0.0, 2.2 if rng.random() < 0.6 else 0.0)  # left, right
        self.right = self.split + ours * self.lane + self.parking[1]
        self.left = self.split - (self.lanes - ours) * self.lane - self.parking[0]
        self.walk = (float(rng.uniform(2.2, 5.0)), float(rng.uniform(2.2, 5.0)))
        self.crossing = float(rng.uniform(14, 55)) if rng.random() < 0.5 else None
        self.zebra = (
            self.crossing - 4.5
            if self.crossing
            else (float(rng.uniform(7, 26)) if rng.random() < 0.35 else None)
        )

    def edge(self, side: int) -> float:
        return -self.left if side < 0 else self.right

    def front(self, side: int) -> float:
        """Distance of the building line from the middle of the picture's street axis."""
        return self.edge(side) + self.walk[0 if side < 0 else 1]

    def later(self, depth: float, job: Callable[[], object]) -> None:
        self.jobs.append((-depth, len(self.jobs), lambda: (job(), None)[1]))

    def paint(self) -> None:
        paint_sky(self.canvas, self.rng)
        self.paint_skyline()
        self.paint_ground()
        for side in (-1, 1):
            self.plan_buildings(side)
            self.plan_furniture(side)
        self.plan_vehicles()
        self.plan_people()
        for _, _, job in sorted(self.jobs, key=lambda each: each[:2]):
            job()

    # ---- ground

    def strip(
        self, left: float, right: float, near: float = 1.0, far: float = FAR * 1.6, up: float = 0.0
    ) -> np.ndarray:
        """A band of ground between two X, as a world polygon."""
        near = max(near, 1.0)
        z = spread(near, far, max(2, min(24, int((far - near) / 4))))
        band = np.empty((2, len(z), 3))
        band[0, :, 0], band[1, :, 0] = left, right
        band[..., 1], band[0, :, 2], band[1, :, 2] = up, z, z[::-1]
        return band.reshape(-1, 3)

    def paint_ground(self) -> None:
        canvas, camera, light, rng = self.canvas, self.camera, self.light, self.rng
        up = (0.0, 1.0, 0.0)
        grass = light.shade(tint((96, 116, 60), float(rng.uniform(0.85, 1.1))), up)
        asphalt_gray = float(rng.uniform(70, 112))
        asphalt = light.shade((asphalt_gray, asphalt_gray * 0.99, asphalt_gray * 1.01), up)
        paving = pick(rng, ((172, 166, 158), (150, 148, 146), (186, 170, 150), (160, 130, 116)), 0.92, 1.06)
        pave = light.shade(paving, up)
        flat, raised = camera.ground(), camera.ground(0.12)
        terrain = canvas.new_part("terrain", flat, "grass")
        canvas.solid(self.strip(-400, 400), grass, terrain)
        road = canvas.new_part("road", flat, "asphalt")
        for side in (-1, 1):
            inner, outer = side * self.edge(side), side * self.front(side)
            walk = canvas.new_part("sidewalk", raised, "slabs")
            canvas.solid(self.strip(inner, outer + side * 0.5, up=0.12), pave, walk)
            curb = canvas.new_part("sidewalk", flat, "plaster")
            z, step = spread(1.0, FAR, 24), np.array([0.0, 0.12, 0.0])
            low = np.stack((np.full_like(z, inner), np.zeros_like(z), z), axis=-1)
            canvas.solid(
                np.concatenate((low, (low + step)[::-1])),
                light.shade(tint(paving, 0.9), (-side, 0.3, -0.3)),
                curb,
            )
            top = np.concatenate((low + step, (low + np.array([side * 0.25, 0.12, 0.0]))[::-1]))
            canvas.solid(top, light.shade(tint(paving, 1.1), up), walk)
        canvas.solid(self.strip(self.left, self.right), asphalt, road)
        if self.crossing:
            across = self.strip(-120, 120, near=self.crossing, far=self.crossing + 9.0)
            canvas.solid(across, tint(asphalt, 0.97), road)
        self.paint_markings(asphalt, road)

    def paint_markings(self, asphalt: Color, road: int) -> None:
        canvas, light, rng = self.canvas, self.light, self.rng
        worn = float(rng.uniform(0.7, 1.0))
        white = mix(asphalt, light.shade((232, 232, 226), (0, 1, 0)), worn)
        gap = (self.crossing - 6.5, self.crossing + 9.5) if self.crossing else (1e9, 1e9)

        def dash(x: float, start: float, end: float, half: float) -> None:
            for a, b in ((start, min(end, gap[0])), (max(start, gap[1]), end)):
                if b > a and b > 1.2:
                    canvas.solid(self.strip(x - half, x + half, near=a, far=b), white, road)

        offset = float(rng.uniform(0, 9))
        solid_middle = rng.random() < 0.4
        left_lane, right_lane = self.left + self.parking[0], self.right - self.parking[1]
        for k in range(self.lanes + 1):
            x = left_lane + k * self.lane
            if k in (0, self.lanes):
                if (k == 0 and self.parking[0]) or (k and self.parking[1]) or rng.random() < 0.4:
                    dash(x + (0.15 if k == 0 else -0.15), 1.0, FAR, 0.06)
            elif abs(x - self.split) < 0.1 and solid_middle:
                dash(x - 0.12, 1.0, FAR, 0.05)
                dash(x + 0.12, 1.0, FAR, 0.05)
            else:
                for start in np.arange(-9 + offset, 90, 9.0):
                    dash(x, max(1.0, start), start + 4.5, 0.075)
        for x0, x1, wide in (
            (self.left, left_lane, self.parking[0]),
            (right_lane, self.right, self.parking[1]),
        ):
            for z in np.arange(offset, 60, 5.6) if wide else ():
                if z > 1.5:
                    canvas.solid(self.strip(x0, x1, near=z, far=z + 0.12), white, road)
        if self.zebra:
            for x in np.arange(self.left + 0.4, self.right - 0.5, 1.0):
                canvas.solid(self.strip(x, x + 0.5, near=self.zebra, far=self.zebra + 3.0), white, road)
            stop = self.strip(self.split, right_lane, near=self.zebra - 1.6, far=self.zebra - 1.2)
            canvas.solid(stop, white, road)
        for _ in range(int(rng.integers(0, 4))):  # patches and manhole covers
            x, z = float(rng.uniform(self.left, self.right - 1)), float(rng.uniform(5, 25))
            tone = tint(asphalt, float(rng.uniform(0.84, 1.1)))
            canvas.solid(
                self.strip(x, x + float(rng.uniform(0.6, 1.0)), near=z, far=z + float(rng.uniform(1, 5))),
                tone,
                road,
            )

    # ---- what stands along the street

    def paint_skyline(self) -> None:
        """Distant roofs and trees where the street ends."""
        canvas, camera, light, rng = self.canvas, self.camera, self.light, self.rng
        wooded = rng.random() < 0.45
        part = canvas.new_part("vegetation" if wooded else "building", camera.upright(FAR * 1.5), "plaster")
        base = (70, 92, 60) if wooded else (150, 140, 132)
        count = 90
        x = np.linspace(-4, canvas.width + 4, count)
        size = camera.focal / (FAR * 1.5)
        if wooded:
            top = 9 + np.convolve(rng.normal(0, 3.5, count + 4), np.ones(5) / 5, "valid")
        else:
            top = np.repeat(rng.uniform(6, 20, count // 5), 5)
        y = camera.horizon - np.maximum(top, 2) * size
        if not wooded:
            x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
        floor = camera.horizon + 3
        outline = np.concatenate((np.stack((x, y), axis=-1), [[x[-1], floor], [x[0], floor]]))
        canvas.polygon(outline, light.shade(base, (0, 0.3, -0.6)), part)

    def plan_buildings(self, side: int) -> None:
        rng, inner = self.rng, self.front(side)
        park = rng.random() < 0.16
        base = float(rng.uniform(7, 19))
        z = float(rng.uniform(2.2, 6.0))
        exposed = True
        while z < FAR:
            length = float(rng.uniform(8, 20))
            end = z + length
            if self.crossing and z < self.crossing + 11 and end > self.crossing - 2:
                if self.crossing - 2 - z > 4:
                    end = self.crossing - 2
                else:
                    z, exposed = self.crossing + 11, True
                    continue
            draw = rng.random()
            if park or draw < 0.12:
                self.plan_green(side, inner, z, end)
                exposed = True
            else:
                set_back = float(rng.choice([0.0, 0.0, 0.0, 0.8, 2.5]))
                height = max(5.5, base + float(rng.normal(0, 3.2)))
                job = partial(
                    paint_building,
                    self.canvas,
                    rng,
                    side=side,
                    inner=inner + set_back,
                    start=z,
                    end=end,
                    height=height,
                    exposed=exposed,
                )
                self.later(end, job)
                exposed = False
                self.cast_block(side, inner + set_back, z, end, height)
            z = end
            if rng.random() < 0.15:
                z, exposed = z + float(rng.uniform(2, 7)), True

    def plan_green(self, side: int, inner: float, start: float, end: float) -> None:
        rng = self.rng
        for _ in range(int(rng.integers(2, 5))):
            x, z = side * (inner + float(rng.uniform(1.5, 9))), float(rng.uniform(start, end))
            height = float(rng.uniform(5, 12))
            behind = end + 0.01 + 1e-3 * (z - start)  # the fence stands before them, whatever their depth
            self.later(behind, partial(paint_tree, self.canvas, rng, x, z, height))
        kind = int(rng.integers(3))
        edge = inner + 0.3
        if kind == 0:
            job: Callable[[], Any] = partial(
                paint_hedge,
                self.canvas,
                rng,
                side=side,
                inner=edge,
                start=start,
                end=end,
                height=float(rng.uniform(1.1, 2.2)),
            )
        else:
            job = partial(
                paint_fence, self.canvas, rng, side=side, inner=edge, start=start, end=end, solid=kind == 1
            )
        self.later(end, job)

    def plan_furniture(self, side: int) -> None:
        """Trees, lamps, signs and traffic lights near the curb."""
        rng, canvas = self.rng, self.canvas
        x = side * (self.edge(side) + 0.6)
        spacing = float(rng.uniform(9, 18))
        trees, height = rng.random() < 0.5, float(rng.uniform(5.5, 9.5))
        for z in np.arange(float(rng.uniform(6, 14)), 110, spacing).tolist():
            if not self.clear(z) or rng.random() < 0.15:
                continue
            if trees:
                tall = height * float(rng.uniform(0.85, 1.15))
                at = x + side * float(rng.uniform(0, 0.3))
                self.later(z, partial(paint_tree, canvas, rng, at, z, tall))
                self.cast_disc(at, z, tall * 0.7, tall * 0.28)
                self.cast_post(at, z, tall * 0.5, 0.25)
                self.taken.append((at, z, 0.5))
        lamp, every = rng.random() < 0.8, float(rng.uniform(16, 28))
        for z in np.arange(float(rng.uniform(5, 18)), 120, every).tolist() if lamp else ():
            if self.clear(z):
                tall = float(rng.uniform(5.5, 7.5))
                self.later(z + 0.1, partial(paint_lamp, canvas, x, z + 0.1, side, tall))
                self.cast_post(x, z, tall, 0.12)
                self.taken.append((x, z, 0.4))
        for _ in range(int(rng.integers(0, 4))):
            z = float(rng.uniform(6, 40))
            if self.clear(z):
                self.later(z, partial(paint_sign, canvas, rng, x - side * 0.15, z))
                self.cast_post(x, z, 2.5, 0.1)
                self.taken.append((x, z, 0.4))
        if self.crossing and (side > 0 or rng.random() < 0.6):
            state = int(rng.integers(3))
            z = self.crossing - 5.6
            self.later(z, partial(paint_traffic_light, canvas, x - side * 0.2, z, state))
            self.cast_post(x, z, 3.3, 0.15)
            self.taken.append((x, z, 0.4))

    def clear(self, z: float) -> bool:
        """Not on the cross street."""
        return not (self.crossing and self.crossing - 5 < z < self.crossing + 11)

    def free(self, x: float, z: float, radius: float) -> bool:
        """Nothing stands within `radius` metres."""
        for a, b, r in self.taken:
            if -radius - r < z - b < radius + r and (x - a) ** 2 + (z - b) ** 2 < (radius + r) ** 2:
                return False
        return True

    def plan_vehicles(self) -> None:
        rng = self.rng
        first_lane = self.left + self.parking[0] + self.lane / 2
        for k in range(self.lanes):
            x = first_lane + k * self.lane
            oncoming = x < self.split
            z = float(rng.uniform(7, 30)) + (4 if abs(x) < 1.5 else 0)
            while z < 80:
                if rng.random() < 0.6 and self.road_is_free(z):
                    self.add_vehicle(x + float(rng.normal(0, 0.15)), z, np.pi if oncoming else 0.0)
                z += float(rng.uniform(8, 30))
        for side, wide in ((-1, self.parking[0]), (1, self.parking[1])):
            z = float(rng.uniform(4, 10))
            busy = float(rng.uniform(0.3, 0.95))
            while wide and z < 65:
                if rng.random() < busy and self.road_is_free(z) and self.clear(z - 2.5):
                    self.add_vehicle(
                        side * (self.edge(side) - 1.12), z, 0.0 if side > 0 else np.pi, parked=True
                    )
                z += float(rng.uniform(5.2, 6.4))
        if self.crossing and rng.random() < 0.6:
            for _ in range(int(rng.integers(1, 3))):
                toward = 1 if rng.random() < 0.5 else -1
                z = self.crossing + (2.6 if toward > 0 else 6.2)
                self.add_vehicle(float(rng.uniform(-14, 14)), z, toward * np.pi / 2)

    def road_is_free(self, z: float) -> bool:
        if self.zebra and self.zebra - 3.5 < z < self.zebra + 6:
            return False
        return not (self.crossing and self.crossing - 3 < z < self.crossing + 12)

    def add_vehicle(self, x: float, z: float, heading: float, *, parked: bool = False) -> None:
        rng = self.rng
        kind = str(rng.choice(["sedan", "hatch", "suv", "van", "bus"], p=[0.33, 0.33, 0.2, 0.1, 0.04]))
        if kind == "bus" and (parked or z < 18 or abs(np.sin(heading)) > 0.5):
            kind = "van"
        color = PAINTS[int(rng.integers(len(PAINTS)))]
        vehicle = Vehicle(kind, x, z, heading + float(rng.normal(0, 0.015)), color)
        across = abs(np.sin(heading)) > 0.5
        half = vehicle.length / 2
        spots = [(x + s * half * 0.6, z) if across else (x, z + s * half * 0.7) for s in (-1.0, 0.0, 1.0)]
        if z - half < 2.5 or not all(self.free(a, b, 1.2) for a, b in spots):
            return
        self.taken += [(a, b, 1.15) for a, b in spots]
        self.later(
            z - half * (0.0 if across else 0.3),
            lambda: self.vehicles.append(paint_vehicle(self.canvas, vehicle)),
        )
        base = vehicle.footprint()
        self.contacts.append(base)
        self.cast(base, 1.4)

    def plan_people(self) -> None:
        rng = self.rng
        for side in (-1, 1):
            for _ in range(int(rng.poisson(2.6))):
                z = float(rng.uniform(5, 12) if rng.random() < 0.4 else rng.uniform(8, 45))
                inside = float(rng.uniform(0.9, self.walk[0 if side < 0 else 1] - 0.4))
                heading = float(rng.choice([0.0, np.pi])) + float(rng.normal(0, 0.3))
                if self.clear(z):
                    self.add_person(side * (self.edge(side) + inside), z, 0.12, heading)
        if self.zebra:
            for _ in range(int(rng.integers(0, 4))):
                x = float(rng.uniform(self.left, self.right))
                heading = float(rng.choice([-1.0, 1.0])) * (np.pi / 2 + float(rng.normal(0, 0.25)))
                self.add_person(x, self.zebra + float(rng.uniform(0.3, 2.7)), 0.0, heading)
        if rng.random() < 0.35:  # somebody close by, looking our way
            hips = self.camera.focal * (self.camera.eye - 0.8) / (self.canvas.height - self.camera.horizon)
            z = max(3.2, hips) * float(rng.uniform(1.0, 1.8))
            reach = 0.42 * self.canvas.width * z / self.camera.focal
            heading = np.pi + float(rng.normal(0, 0.5))
            self.add_person(float(rng.uniform(-reach, reach)), z, 0.0, heading)

    def add_person(self, x: float, z: float, ground: float, heading: float) -> None:
        if not self.free(x, z, 0.35):
            return
        self.taken.append((x, z, 0.35))
        walker = choose_walker(self.rng, x=x, z=z, ground=ground, heading=heading)
        self.later(z, lambda: self.figures.append(paint_person(self.canvas, walker)))
        angle = np.arange(8) * np.pi / 4
        base = np.stack((x + 0.22 * np.cos(angle), np.full(8, ground), z + 0.22 * np.sin(angle)), axis=-1)
        self.contacts.append(base)
        self.cast(base, walker.stature)

    # ---- shadows

    def cast(self, base: np.ndarray, height: float) -> None:
        """The shadow of an upright body over `base`: the hull of its foot and its displaced top."""
        sun = self.light.sun
        if max(self.light.sun_color) < 0.2:
            return
        reach = min(height / max(0.12, sun[1]), 40.0)
        moved = base - reach * np.array([sun[0], 0.0, sun[2]])
        flat = np.concatenate((base, moved))[:, [0, 2]].astype(np.float32)
        ring = cv2.convexHull(flat).reshape(-1, 2)
        self.shadows.append(np.stack((ring[:, 0], np.full(len(ring), base[0, 1]), ring[:, 1]), axis=-1))

    def cast_block(self, side: int, inner: float, start: float, end: float, height: float) -> None:
        a, b = side * inner, side * (inner + 12)
        self.cast(np.array([[a, 0.0, start], [a, 0, end], [b, 0, end], [b, 0, start]]), height)

    def cast_post(self, x: float, z: float, height: float, width: float) -> None:
        half = width / 2
        self.cast(np.array([[x - half, 0.05, z], [x + half, 0.05, z], [x, 0.05, z + half]]), height)

    def cast_disc(self, x: float, z: float, height: float, radius: float) -> None:
        sun = self.light.sun
        if max(self.light.sun_color) < 0.2:
            return
        reach = min(height / max(0.12, sun[1]), 40.0)
        angle = np.arange(14) * 2 * np.pi / 14
        rough = radius * (1 + 0.15 * np.cos(5 * angle))
        ring = np.stack((x + rough * np.cos(angle), np.full(14, 0.05), z + rough * np.sin(angle)), axis=-1)
        self.shadows.append(ring - reach * np.array([sun[0], 0.0, sun[2]]))

    def shadow(self) -> np.ndarray:
        """(H, W) float32: 0 in the light, 1 in full shadow; soft below vehicles and feet."""
        height, width = self.canvas.height, self.canvas.width
        cast = np.zeros((height, width), np.uint8)
        under = np.zeros((height, width), np.uint8)
        for polygons, plane in ((self.shadows, cast), (self.contacts, under)):
            for polygon in polygons:
                cut = clip_near(polygon)
                if len(cut) > 2:
                    at = np.clip(self.camera.project(cut) * 8, -(1 << 17), 1 << 17)
                    cv2.fillPoly(plane, [np.rint(at).astype(np.int32)], (255,), shift=3)
        soft = cv2.GaussianBlur(cast, (0, 0), max(0.6, height / 320)).astype(np.float32) * (0.8 / 255)
        wide = cv2.GaussianBlur(under, (0, 0), max(0.8, height / 110)).astype(np.float32) * (1.3 / 255)
        return np.minimum(1.35, np.maximum(soft, 0.0) + wide)


# -------------------- writing


def file_stems(split: str, count: int) -> list[tuple[str, str]]:
    """(city, stem) of every scene of a split, in the published manner: CITY_SEQUENCE_FRAME."""
    cities = CITIES[split]
    return [
        (city := cities[i * len(cities) // max(1, count)], f"{city}_{i:06d}_000019") for i in range(count)
    ]


def write_scene(task: tuple[str, str, str, str, int, int, int, int]) -> None:
    """Draw one scene and write its five files."""
    root, split, city, stem, seed, index, height, width = task
    scene = draw_scene(seed=seed, index=index, height=height, width=width)
    ids = scene.label_ids
    fine = f"gtFine/{split}/{city}/{stem}_gtFine"
    for name, array in {
        f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit": cv2.cvtColor(scene.photo, cv2.COLOR_RGB2BGR),
        f"{fine}_labelIds": ids,
        f"{fine}_labelTrainIds": TRAIN_ID_OF[ids],
        f"{fine}_color": BGRA[ids],
        f"{fine}_instanceIds": scene.instance_ids.astype(np.uint16),
    }.items():
        path = Path(root) / f"{name}.png"
        encoded, data = cv2.imencode(".png", array, PNG)
        if not encoded:
            raise DataError(f"{path}: the picture could not be encoded.")
        path.write_bytes(data.tobytes())


def write_cityscapes(
    root: str | Path,
    *,
    seed: int = 0,
    train: int = 200,
    val: int = 40,
    test: int = 20,
    height: int = 256,
    width: int = 512,
    workers: int = 1,
) -> None:
    """Write scenes as a Cityscapes tree under `root`, which may exist; files of equal names are replaced.

    leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png (RGB) and, under gtFine, `_labelIds` and
    `_labelTrainIds` (8-bit grey), `_color` (RGBA) and `_instanceIds` (16-bit grey). The published test labels
    are placeholders; here they are real.
    """
    root = Path(root)
    tasks = []
    for number, (split, count) in enumerate(zip(SPLITS, (train, val, test), strict=True)):
        for kind in ("leftImg8bit", "gtFine"):
            for city in CITIES[split]:
                (root / kind / split / city).mkdir(parents=True, exist_ok=True)
        for i, (city, stem) in enumerate(file_stems(split, count)):
            tasks.append((str(root), split, city, stem, seed, number * SPLIT_STRIDE + i, height, width))
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(write_scene, tasks, chunksize=8):
                pass
    else:
        for task in tasks:
            write_scene(task)


def ensure_street(
    root: str | Path,
    *,
    seed: int = 0,
    train: int = 200,
    val: int = 40,
    test: int = 20,
    height: int = 256,
    width: int = 512,
    workers: int = 1,
) -> Path:
    """Make sure that `root` holds exactly this street set, and return it.

    Written on first use, rewritten when the stamp `street.json` differs or a former attempt was killed.
    Processes that ask at the same time wait for the one that writes. A folder that holds anything else is
    left alone.
    """
    root = Path(root).expanduser()
    counts = {"train": train, "val": val, "test": test}
    wanted: dict[str, Any] = {
        "generator": "dvsn street",
        "version": VERSION,
        "seed": seed,
        "scenes": counts,
        "height": height,
        "width": width,
        "finished": True,
    }
    if is_complete(root, wanted):
        return root
    refuse_foreign(root)
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / LOCK):
        if is_complete(root, wanted):
            return root
        refuse_foreign(root)
        began = time.monotonic()
        log.info("street: drawing %d scenes of %d x %d into %s", sum(counts.values()), height, width, root)
        write_stamp(root, {**wanted, "finished": False})
        for left_over in root.glob(".partial*"):
            shutil.rmtree(left_over)
        partial_root = root / ".partial"
        write_cityscapes(partial_root, seed=seed, **counts, height=height, width=width, workers=workers)
        for kind in ("leftImg8bit", "gtFine"):
            if (root / kind).exists():
                shutil.rmtree(root / kind)
            (partial_root / kind).rename(root / kind)
        partial_root.rmdir()
        write_stamp(root, wanted)
        log.info("street: finished after %.0f s", time.monotonic() - began)
    return root


def read_stamp(root: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads((root / STAMP).read_text())
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def write_stamp(root: Path, stamp: dict[str, Any]) -> None:
    """Replace the stamp in one step."""
    fresh = root / f"{STAMP}.{os.getpid()}"
    fresh.write_text(json.dumps(stamp, indent=2) + "\n")
    fresh.replace(root / STAMP)


def is_complete(root: Path, wanted: dict[str, Any]) -> bool:
    if read_stamp(root) != wanted:
        return False
    for split, count in wanted["scenes"].items():
        photos = sum(1 for _ in (root / "leftImg8bit" / split).glob("*/*.png"))
        labels = sum(1 for _ in (root / "gtFine" / split).glob("*/*.png"))
        if (photos, labels) != (count, 4 * count):
            return False
    return True


def refuse_foreign(root: Path) -> None:
    """Raise unless `root` is missing, empty or a street set, finished or not."""
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file; the street set needs a folder. Set data.root to another place.")
    if not root.is_dir() or (root / STAMP).is_file():
        return
    found = sorted(
        each.name for each in root.iterdir() if each.name != LOCK and not each.name.startswith(STAMP)
    )
    if found:
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise DataError(
            f"{root} is not a street set ({STAMP} is missing) and not empty: found {shown}. "
            "Nothing was written. Set data.root to a new or empty folder."
        )


@contextlib.contextmanager
def locked(path: Path, *, stale_after: float = 900.0) -> Iterator[None]:
    """Hold a lock between processes: fcntl's where there is one (freed with its holder), else a file."""
    try:
        import fcntl
    except ImportError:
        with locked_by_file(path, stale_after=stale_after):
            yield
        return
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            with locked_by_file(path.with_suffix(".held"), stale_after=stale_after):
                yield
            return
        yield


@contextlib.contextmanager
def locked_by_file(path: Path, *, stale_after: float) -> Iterator[None]:
    """A lock file made exclusively; one older than `stale_after` seconds is taken for a dead process's."""
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > stale_after:
                    path.unlink()
                    continue
            time.sleep(0.2)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
