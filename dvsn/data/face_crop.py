"""From a face to the square crop that the network sees: the published cut, and the augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch

from dvsn.data.crop import DROPOUTS, can_mirror, crop_sample, require_probabilities
from dvsn.data.labelled import check_choices
from dvsn.data.transforms import Transform
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.head_angles import head_angles
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable.crop import (
    between_centres,
    cut_square,
    face_corners,
    face_square,
    from_corner,
    move_points,
    square_matrix,
)
from dvsn.types import Sample

TRIES = 10  # of an augmentation that leaves every point inside the crop


class FaceCrop:
    """A face cut out as a square, augmented and resized to `size` (H, W), which must be a square too.

    In: `photo`, `box` (x, y, width, height), `keypoints` (K, 2), `labelled` (K,), perhaps `attributes` (A,). Out: `image`
    uint8 (3, H, W), `keypoints` float32 (K, 2) in pixels of the crop, `weight` float32 (K,), 1 where labelled, `inverse`
    float32 (2, 3) from crop to picture, `extent` float32 (2,), the square's side twice, `offset` float32 (), see `centred`,
    `attributes` float32 (A,) if there are any, `index`, `name`. Coordinates of keypoints that are not labelled are 0. Where
    the keypoints tell how a head is turned (`KeypointSet.head`), also `angles` float32 (3,), pitch, yaw and roll in
    radians of the points as they lie in the crop, NaN where they cannot be known: see `dvsn.geometry.head_angles`.

    Without augmentation this is the test crop of the PyTorch PFLD (github.com/polarisZhao/PFLD-pytorch), to the bit:
    a square of `padding` times the longer side of what `box` says, rounded as there, black outside of the picture,
    resized. `box` is `points`, the extent of the labelled points, as published, which tells the network where the answer
    is; or `rectangle`, the sample's box, of the annotation or a detector.

    `centred: true` numbers keypoints as the crop's pixels in which they are drawn, as heatmaps want them; `offset` is 0.

    `centred: false` counts them from the crop's corner, as published: size x (p - corner) / side. The picture is resized by
    areas, so that number is the pixel in which p is drawn, plus half a crop pixel, minus half a picture pixel, on both
    axes: `offset`. Turned and mirrored crops keep exactly this: mirrored, x becomes size - x - u, where u is a picture
    pixel in crop pixels (`size` / side).

    Augmentation, drawn again (10 times at most) while a labelled point would leave the crop; the published code makes
    copies of each face beforehand instead, by nearly the same steps:

    1. `zoom`: the side is multiplied by a uniform number from 1 - zoom to 1 + zoom. `shift`: the centre moves by up to
       this share of the side, on each axis. `rotation`: by up to this many degrees, uniform, with the probability
       `rotated`. All in one bilinear warp.
    2. `flip`: the probability of a mirror, which exchanges the keypoints' pairs; never where these are not known.
    3. `occlusion`: the probability that a rectangle hides the share `occluded` of the box around the points, in one
       colour or in noise (the paper hides 20 %, in a way that it does not describe: Guo et al., 2019, arXiv:1902.10859).
    4. `steps`: albumentations that recolour or hide parts, on the crop. They must not move it.
    """

    treats: ClassVar[str] = "faces"

    def __init__(
        self,
        *,
        size: Sequence[int],
        padding: float = 1.2,
        box: Literal["points", "rectangle"] = "points",
        centred: bool = False,
        zoom: float = 0.0,
        shift: float = 0.0,
        rotation: float = 0.0,
        rotated: float = 1.0,
        flip: float = 0.0,
        occlusion: float = 0.0,
        occluded: float = 0.2,
        steps: Sequence[Any] = (),
    ) -> None:
        if len(size) != 2 or size[0] != size[1] or not isinstance(size[0], int) or size[0] < 2:
            raise ConfigError(
                f"transform.size: found {list(size)}, expected [SIDE, SIDE] in pixels: faces are cut as squares."
            )
        check_choices({"box": (box, ("points", "rectangle"))})
        require_probabilities(rotated=rotated, flip=flip, occlusion=occlusion)
        if padding <= 0 or not 0 <= zoom < 1 or shift < 0 or rotation < 0 or not 0 < occluded < 1:
            raise ConfigError(
                "transform: expected padding > 0, 0 <= zoom < 1, shift >= 0, rotation >= 0 and 0 < occluded < 1, found "
                f"padding={padding}, zoom={zoom}, shift={shift}, rotation={rotation}, occluded={occluded}."
            )
        self.size, self.padding, self.box, self.centred = (size[0], size[1]), padding, box, centred
        self.zoom, self.shift, self.rotation, self.rotated, self.flip = zoom, shift, rotation, rotated, flip
        self.occlusion, self.occluded = occlusion, occluded
        self.recolour = Transform(steps=steps)
        self.recolour.forbid_moves(DROPOUTS)
        self.keypoints: KeypointSet | None = None  # the data module tells

    def __call__(self, sample: Sample, item_seed: int) -> Sample:
        random = np.random.default_rng(item_seed)
        photo, labelled = sample["photo"], sample["labelled"] > 0
        points = np.asarray(sample["keypoints"], np.float64)
        crop, areas, extent = self._cut(photo, sample, points[labelled], random)
        if self.flip and can_mirror(self.keypoints) and random.random() < self.flip:
            areas = np.array([[-1.0, 0, self.size[1]], [0, 1, 0]]) @ np.vstack([areas, [0, 0, 1]])
            crop = crop[:, ::-1]
            order = np.arange(len(points)) if self.keypoints is None else self.keypoints.mirror
            points, labelled = points[order], labelled[order]
        offset = 0.0 if self.centred else from_corner(self.size[1], extent)
        matrix = between_centres(areas)
        matrix[:, 2] += offset
        moved = np.where(labelled[:, None], move_points(points, matrix), 0)
        crop = np.ascontiguousarray(crop)
        if self.occlusion and labelled.any() and random.random() < self.occlusion:
            occlude(crop, moved[labelled], self.occluded, random)
        crop = self.recolour.photo(crop, item_seed)
        made = crop_sample(sample, crop, moved, labelled, matrix, np.full(2, extent))
        made["offset"] = torch.tensor(offset, dtype=torch.float32)
        flags = sample.get("attributes")
        if flags is not None:
            made["attributes"] = torch.from_numpy(flags.astype(np.float32))
        if self.keypoints is not None and self.keypoints.head:
            angles = head_angles(
                move_points(points, areas) / self.size[0], labelled, head=self.keypoints.head
            )
            made["angles"] = torch.full((3,), torch.nan) if angles is None else torch.from_numpy(angles)
        return made

    def _cut(
        self, photo: np.ndarray, sample: Sample, points: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """The crop (H, W, 3) before a mirror, the map to it as `_plain` gives it, and the side of its square."""
        corner, side = self.frame(sample)
        if self.zoom or self.shift or self.rotation:
            extent, areas = self._draw(corner, side, points, random)
            crop = cv2.warpAffine(photo, between_centres(areas), self.size[::-1], flags=cv2.INTER_LINEAR)
            return crop, areas, extent
        return cut_square(photo, corner, side, self.size), self._plain(corner, side), float(side)

    def frame(self, sample: Sample) -> tuple[np.ndarray, int]:
        """The upper left corner (2,), whole pixels, and the side of the square around a face.

        Raises `DataError` for a box without an inside, and where no point is labelled to make one from.
        """
        if self.box == "points":
            known = np.asarray(sample["keypoints"], np.float64)[sample["labelled"] > 0]
            if not len(known):
                raise DataError(
                    "no point is labelled, so the crop has no place. Set transform.box=rectangle."
                )
            low, high = known.min(axis=0), known.max(axis=0)
        else:
            low, high = face_corners(sample["box"])
        return face_square(low, high, self.padding)

    def _plain(self, corner: np.ndarray, side: float, rotation_degrees: float = 0.0) -> np.ndarray:
        """(2, 3) from picture to crop, both counted from the corners of their first pixels."""
        return square_matrix(corner, side, self.size, rotation_degrees=rotation_degrees)

    def _draw(
        self, corner: np.ndarray, side: float, points: np.ndarray, random: np.random.Generator
    ) -> tuple[float, np.ndarray]:
        """Side and map of a random square that shows all points; of the last one tried where none does."""
        for _ in range(TRIES):
            drawn = side * random.uniform(1 - self.zoom, 1 + self.zoom)
            centre = corner + side / 2 + side * random.uniform(-self.shift, self.shift, 2)
            angle = random.uniform(-self.rotation, self.rotation)
            if self.rotated < 1 and random.random() >= self.rotated:
                angle = 0.0
            matrix = self._plain(centre - drawn / 2, drawn, angle)
            moved = move_points(points, matrix)
            if ((moved >= 0) & (moved <= self.size[0])).all():
                break
        return drawn, matrix


def occlude(crop: np.ndarray, points: np.ndarray, share: float, random: np.random.Generator) -> None:
    """Hide `share` of the points' box, in place, by a rectangle inside of it of any shape up to 2 : 1."""
    limit = np.array([crop.shape[1], crop.shape[0]])
    low, high = np.clip(points.min(axis=0), 0, limit), np.clip(points.max(axis=0), 0, limit)
    width, height = high - low
    area, aspect = share * width * height, math.exp(random.uniform(-math.log(2), math.log(2)))
    if area < 1:
        return
    wide = float(np.clip(math.sqrt(area * aspect), area / height, width))
    tall = area / wide
    x, y = low + random.random(2) * (high - low - (wide, tall))
    rows, columns = slice(round(y), round(y + tall)), slice(round(x), round(x + wide))
    shape = crop[rows, columns].shape if random.random() < 0.5 else (1, 1, 3)  # noise, or one colour
    crop[rows, columns] = random.integers(0, 256, shape, dtype=np.uint8)
