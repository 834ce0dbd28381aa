"""OMGD's losses between a small generator and a large one: structure, smoothness and channels."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.precise import precise
from dvsn.distill.shapes import as_vector, on_grid, same_output, summed, tapped
from dvsn.types import Batch, Terms

WINDOW, SIGMA = 11, 1.5  # of the Gaussian of SSIM


class GeneratorToGenerator(Method):
    """The terms `omgd_structure`, `omgd_smoothness` and, with taps, `omgd_channels`, with their weights inside.

    Ren et al., 2021, arXiv:2108.06908: 1 - SSIM of both pictures (Wang et al., 2004, an 11 x 11 Gaussian window); the
    total variation of the student's, summed, over the batch; the mean squared error of the averages of tapped channels
    through a 1x1 convolution. Different here: the teacher is one, trained before and frozen, where the paper trains a
    wide and a deep one online; the style and feature terms, which need the weights of a VGG, are left out, so that
    structure and the task's own terms must carry the colours.

    `low` and `high` are the range of the pictures' values.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("image",)

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        structure_weight: float = 10.0,
        smoothness_weight: float = 1e-5,
        channel_weight: float = 50.0,
        low: float = -1.0,
        high: float = 1.0,
    ) -> None:
        super().__init__()
        same_output("omgd", student, teacher)
        self.weights = structure_weight, smoothness_weight, channel_weight
        self.low, self.high = low, high
        pairs = tapped("omgd", student, teacher, least=0)
        self.adapters = nn.ModuleList(nn.Linear(mine[0], theirs[0]) for mine, theirs in pairs)

    @precise
    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        theirs = on_grid(teacher.output, student.output)
        pictures = ((each - self.low) / (self.high - self.low) for each in (student.output, theirs))
        structure, smoothness, channels = self.weights
        terms = {
            "omgd_structure": structure * (1 - similarity(*pictures)),
            "omgd_smoothness": smoothness * variation(student.output),
        }
        errors = [
            F.mse_loss(adapter(as_vector(mine)), as_vector(theirs))
            for adapter, mine, theirs in zip(self.adapters, student.features, teacher.features, strict=True)
        ]
        return terms | ({"omgd_channels": channels * summed(errors)} if errors else {})


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of pictures (N, C, H, W) in [0, 1], windows inside of the picture only."""
    size = min(WINDOW, *a.shape[-2:])
    line = torch.arange(size, dtype=a.dtype, device=a.device) - (size - 1) / 2
    line = (-line.square() / (2 * SIGMA**2)).exp()
    line = line / line.sum()

    def blur(picture: Tensor) -> Tensor:
        flat = picture.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(flat, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    mean_a, mean_b, aa, bb, ab = blur(torch.stack([a, b, a * a, b * b, a * b]).flatten(0, 1)).chunk(5)
    variance_a, variance_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (light * (2 * covariance + c2) / (variance_a + variance_b + c2)).mean()


def variation(picture: Tensor) -> Tensor:
    down, right = picture.diff(dim=2).abs().sum(), picture.diff(dim=3).abs().sum()
    return (down + right) / len(picture)
