"""Knowledge review: each of the teacher's stages is learnt from the student's stage and all deeper ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import as_map, as_map_shape, pool_to, summed, tapped
from dvsn.types import Batch, Terms

LEVELS = (4, 2, 1)  # sides of the pooled maps


class KnowledgeReview(Method):
    """Hierarchical squared error of fused maps, summed over taps: the term `reviewkd`.

    Chen et al., 2021, arXiv:2104.09044. From the deepest tap on, the student's map passes a 1x1 convolution and norm to
    `mid` channels at most (the deepest width, if that is less), joins what came from below, enlarged by nearest
    neighbour and weighed by attention, and leaves by a 3x3 convolution and norm in the teacher's width and size. The
    error is that of the whole map plus 1/2, 1/4, 1/8 of those pooled to 4, 2 and 1 pixels (less than the side), over
    the sum of weights.

    Taps go from shallow to deep. The paper takes the stages and the pooled vector, a map of one pixel, of the teacher
    before its activations; give pairs for that. Weight 5 for resnet32x4 -> resnet8x4, 8 for ShuffleNetV2, 0.6 for
    resnet56 -> 20, 1 on ImageNet; it grows over 20 epochs (`ramp`).
    """

    def __init__(self, *, student: Side, teacher: Side, mid: int = 512) -> None:
        super().__init__()
        pairs = tapped("reviewkd", student, teacher)
        middle = min(mid, pairs[-1][0][0])
        self.sizes = [as_map_shape(theirs)[1:] for _, theirs in pairs]
        self.fusions = nn.ModuleList(
            Fusion(mine[0], middle, theirs[0], last=number == len(pairs) - 1)
            for number, (mine, theirs) in enumerate(pairs)
        )

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        residual: Tensor | None = None
        terms = []
        for number in reversed(range(len(self.fusions))):
            theirs = as_map(teacher.features[number])
            mine, residual = self.fusions[number](
                as_map(student.features[number]), residual, theirs.shape[-2:]
            )
            terms.append(hierarchical(mine, theirs))
        return {"reviewkd": summed(terms)}


class Fusion(nn.Module):
    """A student's map and the residual of the deeper ones -> a map of the teacher's shape, and the next residual."""

    def __init__(self, student: int, middle: int, teacher: int, *, last: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(student, middle, 1, bias=False), nn.BatchNorm2d(middle))
        self.widen = nn.Sequential(
            nn.Conv2d(middle, teacher, 3, padding=1, bias=False), nn.BatchNorm2d(teacher)
        )
        self.attention = None if last else nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())

    def forward(
        self, feature: Tensor, residual: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        own = self.narrow(feature)
        if self.attention is not None and residual is not None:
            residual = F.interpolate(residual, size=own.shape[-2:], mode="nearest")
            share = self.attention(torch.cat([own, residual], dim=1))  # (N, 2, H, W)
            own = own * share[:, :1] + residual * share[:, 1:]
        fitted = own if own.shape[-2:] == size else F.interpolate(own, size=size, mode="nearest")
        return self.widen(fitted), own


def hierarchical(student: Tensor, teacher: Tensor) -> Tensor:
    error, weight, total = F.mse_loss(student, teacher), 1.0, 1.0
    for side in LEVELS:
        if side < student.shape[-2] and side < student.shape[-1]:
            weight /= 2
            error = error + weight * F.mse_loss(pool_to(student, side, side), pool_to(teacher, side, side))
            total += weight
    return error / total
