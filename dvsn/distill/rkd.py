"""Relational knowledge distillation: distances and angles between the items of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.gather import gather
from dvsn.distill.method import Method, Side, View
from dvsn.distill.precise import precise
from dvsn.distill.shapes import nothing, tapped
from dvsn.types import Batch, Terms

SMALLEST = 1e-12  # square of a distance


class RelationalDistillation(Method):
    """Smooth L1 of distances over their mean and of cosines at every corner: the terms `rkd_distance` and `rkd_angle`.

    Park et al., 2019, arXiv:1904.05068, weights 25 and 50 as in the authors' code, which are inside of these terms;
    several taps are summed. Distances and angles both come from one Gram matrix of the centred batch, (N, N), never
    from the (N, N, D) differences: <x_j - x_i, x_k - x_i> = G_jk - G_ij - G_ik + G_ii. Angles are N^3 numbers: 0.5 GiB
    at N = 512.

    Two items at one place (up to rounding) have distance 1e-6 and no direction: their pair gets no gradient, where the
    published code gives it one of 1e11. Widths may differ. `gather` relates the items of all processes; else each relates
    its own, and the loss changes with their number. A batch of one item has no relations: both terms are 0.
    """

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        gather: bool = False,
    ) -> None:
        super().__init__()
        tapped("rkd", student, teacher)
        self.distance_weight, self.angle_weight, self.gather = distance_weight, angle_weight, gather

    @precise
    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        distances, angles = [], []
        for mine, theirs in zip(student.features, teacher.features, strict=True):
            mine, theirs = mine.flatten(1), theirs.flatten(1)
            if self.gather:
                mine, theirs = gather(mine), gather(theirs)
            if len(mine) == 1:
                distances.append(nothing(mine))
                angles.append(nothing(mine))
                continue
            (gram_s, square_s), (gram_t, square_t) = relations(mine), relations(theirs)
            distances.append(F.smooth_l1_loss(lengths(square_s), lengths(square_t)))
            angles.append(F.smooth_l1_loss(cosines(gram_s, square_s), cosines(gram_t, square_t)))
        return {
            "rkd_distance": self.distance_weight * torch.stack(distances).sum(),
            "rkd_angle": self.angle_weight * torch.stack(angles).sum(),
        }


def relations(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The Gram matrix of the centred rows, and squared distances, 0 where two rows are one up to rounding."""
    rows = rows - rows.mean(0)
    gram = rows @ rows.T
    norms = gram.diagonal()
    sums = norms[:, None] + norms
    square = sums - 2 * gram
    return gram, torch.where(square > 16 * torch.finfo(rows.dtype).eps * sums, square, 0.0)


def lengths(square: Tensor) -> Tensor:
    """Distances over the mean of those of two different items; all of these are at least 1e-6."""
    size = len(square)
    distance = (
        square.clamp_min(SMALLEST).sqrt().masked_fill(torch.eye(size, device=square.device).bool(), 0.0)
    )
    return distance / (distance.sum() / (size * (size - 1)))


def cosines(gram: Tensor, square: Tensor) -> Tensor:
    """(N, N, N): of the angle at item i between items j and k."""
    apart = square > SMALLEST**2
    inverse = torch.where(apart, torch.where(apart, square, 1.0).rsqrt(), 0.0)
    products = gram - gram[:, :, None] - gram[:, None, :] + gram.diagonal()[:, None, None]
    return products * inverse[:, :, None] * inverse[:, None, :]
