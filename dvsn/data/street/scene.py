"""A drawn street and all that is known of it: boxes, joints and landmarks in picture pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dvsn.data.cityscapes_labels import ID_OF
from dvsn.data.street.layout import Street
from dvsn.data.street.lens import finish
from dvsn.data.street.people import Figure
from dvsn.data.street_parts import PART_ID_OF
from dvsn.errors import DataError

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
    the Cityscapes instance map: label id * 1000 + k for a thing, the label id itself for stuff; `part_ids` (H, W)
    uint8 ids of `dvsn.data.street_parts.PARTS`. `people` and `vehicles` are listed from far to near and only if a
    pixel of them is left.
    """

    photo: np.ndarray
    label_ids: np.ndarray
    instance_ids: np.ndarray
    part_ids: np.ndarray
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
    photo, part, pieces = finish(street.canvas, street.shadows.paint(), rng)
    label_ids = np.asarray(street.canvas.labels, np.uint8)[part]
    instance_ids = np.asarray(street.canvas.instances, np.int32)[part]
    part_ids = PART_ID_OF[label_ids, pieces]
    boxes = find_boxes(instance_ids)
    people = tuple(
        describe_person(figure, part, boxes[figure.instance])
        for figure in street.figures
        if figure.instance in boxes
    )
    vehicles = tuple(boxes[i] for i in street.vehicles if i in boxes)
    return Scene(photo, label_ids, instance_ids, part_ids, people, vehicles)


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
