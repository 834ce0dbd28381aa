"""Structured knowledge distillation: pixels one by one, and regions in pairs."""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.gram import gram_distance
from dvsn.distill.kd import divergence
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import match_size, on_grid, require_positions, same_output, summed, tapped, unit
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class StructuredDistillation(Method):
    """The terms `skd_pixel` and `skd_pair`, with their weights inside.

    Liu et al., 2019, arXiv:1903.04197: KL of the classes of each pixel; and of tapped maps, max-pooled, the mean squared
    difference of the cosines between all regions, mean over the batch, summed over taps. Pooled is by `scale` of the map's
    sides, as in the authors' code, or by windows of `kernel` pixels, the last one cut off by the edge: 2 in CIRKD's
    comparison, which weighs the terms 1 and 10. The third part, a critic trained against the student, is a method of its
    own: `distill=[skd,holistic]`.

    The published code keeps the lengths of the vectors out of the gradient; they are in it here. Widths may differ; of two
    sizes the larger is average-pooled.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("pixels",)

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        pixel_weight: float = 10.0,
        pair_weight: float = 1.0,
        scale: float = 0.5,
        kernel: int | None = None,
    ) -> None:
        super().__init__()
        same_output("skd", student, teacher)
        if not 0 < scale <= 1:
            raise ConfigError(f"distill.skd.method.scale: found {scale!r}, expected above 0 and up to 1.")
        if kernel is not None and kernel < 1:
            raise ConfigError(
                f"distill.skd.method.kernel: found {kernel!r}, expected null, or 1 or more pixels."
            )
        self.scale, self.kernel = scale, kernel
        pairs = tapped("skd", student, teacher, maps=True)
        if pair_weight:
            require_positions("skd", pairs, lambda side: -(-side // self.window(side)))
        self.pixel_weight, self.pair_weight = pixel_weight, pair_weight

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        pixel = divergence(student.output, on_grid(teacher.output, student.output), 1.0).mean()
        pairs = (match_size(*pair) for pair in zip(student.features, teacher.features, strict=True))
        terms = [self.affinity_distance(*pair) for pair in pairs]
        return {"skd_pixel": self.pixel_weight * pixel, "skd_pair": self.pair_weight * summed(terms)}

    def window(self, side: int) -> int:
        """How many pixels of a side are pooled to one."""
        return self.kernel or max(1, math.floor(side * self.scale))

    def affinity_distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        kernel = [self.window(side) for side in student.shape[-2:]]
        mine, theirs = (regions(F.max_pool2d(each, kernel, ceil_mode=True)) for each in (student, teacher))
        return gram_distance(mine, theirs).mean() / mine.shape[-1] ** 2


def regions(pooled: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, h*w), a unit vector a region."""
    return unit(pooled.flatten(2).mT).mT
