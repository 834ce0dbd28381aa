"""The crop of a person that the network sees: the published augmentation. For the geometry see `dvsn.portable.crop`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch

from dvsn.data.transforms import Transform
from dvsn.errors import ConfigError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable.crop import box_to_extent, crop_matrix, invert, move_points, person_frame
from dvsn.types import Sample

HALF_BODY_PADDING = 1.5
ROTATED = 0.6  # the share of samples that are turned at all
DROPOUTS = ("CoarseDropout", "GridDropout", "PixelDropout", "XYMasking", "Erasing")


def can_mirror(keypoints: KeypointSet | None) -> bool:
    """Whether it is known what a mirror does to the keypoints; without names it exchanges none."""
    return keypoints is None or keypoints.mirrors


def crop_sample(
    sample: Sample,
    crop: np.ndarray,
    points: np.ndarray,
    labelled: np.ndarray,
    matrix: np.ndarray,
    extent: np.ndarray,
) -> Sample:
    """What the network is given of a crop (H, W, 3) of `sample`: `points` (K, 2) in it, those `labelled` (K,), the `matrix`
    (2, 3) from the picture to it, and its `extent` (2,). For the keys see `PersonCrop`."""
    return {
        "image": torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))),
        "keypoints": torch.from_numpy(points.astype(np.float32)),
        "weight": torch.from_numpy(labelled.astype(np.float32)),
        "inverse": torch.from_numpy(invert(matrix).astype(np.float32)),
        "extent": torch.from_numpy(extent.astype(np.float32)),
        "index": sample["index"],
        "name": sample["name"],
    }


def require_probabilities(**options: float) -> None:
    """Raise `ConfigError` for the first option of an augmentation that is no probability."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"transform.train.{name}: found {value}, expected a probability from 0 to 1.")


class PersonCrop:
    """A person cut out, augmented and resized to `size` (H, W).

    In: `photo`, `box`, `keypoints` (K, 2) and `labelled` (K,). Out: `image` uint8 (3, H, W), `keypoints` float32 (K, 2)
    in pixels of the crop, `weight` float32 (K,), 1 where labelled, `inverse` float32 (2, 3) from crop to picture,
    `extent` float32 (2,), `index`, `name`.

    The steps of HRNet's code (Sun et al., 2019), in its order; the paper's words differ where noted:

    1. `half_body`: the probability that a person with more than 8 labelled joints is cut to the upper or the lower
       ones (Wang et al., 2018: the upper ones with probability 0.69, since the code draws a normal below 0.5). Nothing
       where the keypoints have no upper body.
    2. `zoom`: the extent is multiplied by a normal of mean 1 and this deviation, clipped at one deviation. `rotation`:
       with probability 0.6 by a normal of this many degrees, clipped at two deviations (the paper says "45 degrees").
       `shift`: the centre moves uniformly by up to this share of the extent, on each axis; not in that code.
    3. `flip`: the probability of a mirror, which exchanges the keypoints' pairs; never where these are not known
       (`KeypointSet.mirrors`).
    4. One bilinear warp; black outside. The mirror is part of the same warp, which samples the same places.
    5. `steps`: albumentations that recolour or hide parts, on the crop. They must not move it.

    Coordinates of keypoints that are not labelled are 0.
    """

    treats: ClassVar[str] = "people"

    def __init__(
        self,
        *,
        size: Sequence[int],
        padding: float = 1.25,
        unbiased: bool = False,
        half_body: float = 0.0,
        zoom: float = 0.0,
        rotation: float = 0.0,
        shift: float = 0.0,
        flip: float = 0.0,
        steps: Sequence[Any] = (),
    ) -> None:
        if len(size) != 2 or not all(isinstance(side, int) and side >= 2 for side in size):
            raise ConfigError(f"transform.size: found {list(size)}, expected [HEIGHT, WIDTH] in pixels.")
        require_probabilities(half_body=half_body, flip=flip)
        if padding <= 0 or not 0 <= zoom < 1 or rotation < 0 or shift < 0:
            raise ConfigError(
                f"transform: expected padding > 0, 0 <= zoom < 1, rotation >= 0 and shift >= 0, found padding={padding}, "
                f"zoom={zoom}, rotation={rotation}, shift={shift}."
            )
        self.size, self.padding, self.unbiased = (size[0], size[1]), padding, unbiased
        self.half_body, self.zoom, self.rotation, self.shift, self.flip = (
            half_body,
            zoom,
            rotation,
            shift,
            flip,
        )
        self.recolour = Transform(steps=steps)
        self.recolour.forbid_moves(DROPOUTS)
        self.keypoints: KeypointSet | None = None  # the data module tells

    def __call__(self, sample: Sample, item_seed: int) -> Sample:
        random = np.random.default_rng(item_seed)
        photo, labelled = sample["photo"], sample["labelled"] > 0
        points = np.asarray(sample["keypoints"], np.float64)
        centre, extent = self.frame(sample["box"])
        if self.half_body and self._halves() and labelled.sum() > 8 and random.random() < self.half_body:
            centre, extent = self._half(points, labelled, random) or (centre, extent)
        degrees = 0.0
        if self.zoom:
            extent = extent * np.clip(1 + self.zoom * random.standard_normal(), 1 - self.zoom, 1 + self.zoom)
        if self.rotation and random.random() < ROTATED:
            degrees = self.rotation * float(np.clip(random.standard_normal(), -2, 2))
        if self.shift:
            centre = centre + extent * random.uniform(-self.shift, self.shift, 2)
        mirror = bool(self.flip) and can_mirror(self.keypoints) and random.random() < self.flip
        if mirror:
            width = photo.shape[1]
            centre = np.array([width - 1 - centre[0], centre[1]])
        matrix = self.matrix(centre, extent, degrees)
        if mirror:
            matrix = matrix @ np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
            order = self._mirror(len(points))
            points, labelled = points[order], labelled[order]
        crop = cv2.warpAffine(photo, matrix, (self.size[1], self.size[0]), flags=cv2.INTER_LINEAR)
        crop = self.recolour.photo(crop, item_seed)
        moved = np.where(labelled[:, None], move_points(points, matrix), 0)
        return crop_sample(sample, crop, moved, labelled, matrix, extent)

    def frame(self, box: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Centre and extent (width, height) of the crop of a box. Raises `DataError` for a box without an inside."""
        return person_frame(box, self.size, self.padding)

    def matrix(self, centre: np.ndarray, extent: np.ndarray, rotation_degrees: float = 0.0) -> np.ndarray:
        """From the picture to the crop, (2, 3)."""
        return crop_matrix(
            centre, extent, self.size, rotation_degrees=rotation_degrees, unbiased=self.unbiased
        )

    def _half(
        self, points: np.ndarray, labelled: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Centre and extent of the upper or the lower body; None where too little of it is labelled."""
        upper = np.zeros(len(points), bool)
        upper[list(self.keypoints.upper_body if self.keypoints else ())] = True
        above, below = points[labelled & upper], points[labelled & ~upper]
        prefer_above = random.standard_normal() < 0.5 and len(above) > 2
        chosen = above if prefer_above or len(below) <= 2 else below
        if len(chosen) < 2:
            return None
        low, sides = chosen.min(axis=0), np.ptp(chosen, axis=0)
        if not sides.any():
            return None
        _, extent = box_to_extent((*low, *sides), self.size[1] / self.size[0], HALF_BODY_PADDING)
        return chosen.mean(axis=0), extent

    def _halves(self) -> bool:
        """Whether the keypoints have an upper body."""
        return self.keypoints is None or bool(self.keypoints.upper_body)

    def _mirror(self, count: int) -> np.ndarray:
        return np.arange(count) if self.keypoints is None else self.keypoints.mirror
