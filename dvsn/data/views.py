"""A second view of a training picture: the network sees it strongly changed, its teacher as it is."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from dvsn.config.types import number
from dvsn.errors import ConfigError

HIDDEN = (0.1, 0.33)
"""The sides of the hidden rectangle, as shares of the picture's."""
GREY = 114


class Strong:
    """Colours, grey, blur and a hidden rectangle, after Sohn et al., 2020 (FixMatch, arXiv:2001.07685) and, in their
    strengths, Yang et al., 2023 (UniMatch, arXiv:2208.09910). Nothing is moved, so that labels and the teacher's answer fit.

    `strength` multiplies the strength of the colours; 1 is that of the papers. The rectangle is Cutout's (DeVries and
    Taylor, 2017, arXiv:1708.04552), grey, with sides of a tenth to a third. All follows from the seed.
    """

    def __init__(self, strength: float = 1.0) -> None:
        if not number(strength) or not 0 < strength <= 2:
            raise ConfigError(
                f"data.strong: found {strength!r}, expected a strength above 0, up to 2, or null."
            )
        self.strength = float(strength)
        self._pipeline: Any = None

    def __call__(self, picture: np.ndarray, seed: int) -> np.ndarray:
        """(H, W, 3) uint8 -> the same size."""
        if self._pipeline is None:
            self._pipeline = self._built()
        numbers = np.random.SeedSequence([seed, 1]).generate_state(1)
        self._pipeline.set_random_state(np.random.default_rng(numbers), random.Random(int(numbers[0])))
        changed: np.ndarray = self._pipeline(image=picture)["image"]
        return changed

    def _built(self) -> Any:
        import albumentations

        much = min(0.5 * self.strength, 0.95)
        sides = {"hole_height_range": HIDDEN, "hole_width_range": HIDDEN}
        return albumentations.Compose(
            [
                albumentations.ColorJitter(
                    brightness=(1 - much, 1 + much),
                    contrast=(1 - much, 1 + much),
                    saturation=(1 - much, 1 + much),
                    hue=(-much / 2, much / 2),
                    p=0.8,
                ),
                albumentations.ToGray(p=0.2),
                albumentations.GaussianBlur(blur_limit=(3, 7), p=0.5),
                albumentations.CoarseDropout(num_holes_range=(1, 1), **sides, fill=GREY, p=0.5),
            ]
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pipeline": None}
