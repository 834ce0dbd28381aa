"""Steps of segmentation recipes that albumentations has not, written as albumentations transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import albumentations
import cv2
import numpy as np

from dvsn.errors import ConfigError


class RandomScale(albumentations.DualTransform):
    """Resize so that the longer side is `base` times a random factor; the picture's own longer side if `base` is 0.

    The factor is one of `low`, `low + step`, ..., `high`, each as likely; any number between them if `step` is 0. With
    `aspect` > 0 the two sides get factors of their own, up to `1 + aspect` apart, as DeepLab-like recipes
    never do but small data sets profit from. Photos are resized with `interpolation` (OpenCV's numbers),
    labels by nearest neighbour.

    The published recipes of HRNet and PIDNet take 0.5, 0.6, ..., 2.1, although their papers say 0.5 to 2.0. They resize
    labels by OpenCV's INTER_NEAREST, shifted by up to half a source pixel; here 6, nearest at block centres.
    """

    def __init__(
        self,
        *,
        base: int = 0,
        low: float = 0.5,
        high: float = 2.0,
        step: float = 0.0,
        aspect: float = 0.0,
        interpolation: int = cv2.INTER_LINEAR,
        mask_interpolation: int = 6,
    ) -> None:
        if not 0 < low <= high or step < 0 or base < 0 or not 0 <= aspect < 1:
            raise ConfigError(
                f"RandomScale: expected 0 < low <= high, step >= 0, base >= 0 and 0 <= aspect < 1, found low={low}, "
                f"high={high}, step={step}, base={base}, aspect={aspect}."
            )
        super().__init__(p=1.0)
        self.base, self.low, self.high, self.step, self.aspect = base, low, high, step, aspect
        self.interpolation, self.mask_interpolation = interpolation, mask_interpolation

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        if self.step:
            count = round((self.high - self.low) / self.step) + 1
            factor = self.low + self.step * self.py_random.randrange(count)
        else:
            factor = self.py_random.uniform(self.low, self.high)
        skew = (1 + self.aspect) ** self.py_random.uniform(-0.5, 0.5) if self.aspect else 1.0
        factor *= (self.base or max(height, width)) / max(height, width)
        size = max(1, round(height * factor * skew)), max(1, round(width * factor / skew))
        return {"size": size}

    def apply(self, img: np.ndarray, size: tuple[int, int] = (0, 0), **_: Any) -> np.ndarray:
        return _resize(img, size, self.interpolation)

    def apply_to_mask(self, mask: np.ndarray, size: tuple[int, int] = (0, 0), **_: Any) -> np.ndarray:
        return _resize(mask, size, self.mask_interpolation)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return ("base", "low", "high", "step", "aspect", "interpolation", "mask_interpolation")


def _resize(array: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    if array.shape[:2] == size:
        return array
    resized = cv2.resize(array, (size[1], size[0]), interpolation=interpolation)
    return resized[..., None] if resized.ndim < array.ndim else resized  # OpenCV drops an axis of one channel


class MirrorWithSwaps(albumentations.HorizontalFlip):
    """A mirror that also exchanges the ids of left and right classes, given as pairs."""

    def __init__(self, *, p: float = 0.5, swaps: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(p=p)
        self.table = np.arange(256, dtype=np.uint8)
        for one, other in swaps:
            self.table[one], self.table[other] = other, one

    def apply_to_mask(self, mask: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        flipped = super().apply_to_mask(mask, *args, **params)
        return cv2.LUT(np.ascontiguousarray(flipped), self.table) if mask.dtype == np.uint8 else flipped


def mirrored(step: Any, swaps: Sequence[tuple[int, int]]) -> Any:
    """`step`, with each horizontal flip in it made to exchange `swaps`."""
    if not swaps:
        return step
    if isinstance(step, albumentations.HorizontalFlip):
        return MirrorWithSwaps(p=step.p, swaps=swaps)
    if not hasattr(step, "apply_with_params") and hasattr(step, "transforms"):
        step.transforms = [mirrored(inner, swaps) for inner in step.transforms]
    return step
