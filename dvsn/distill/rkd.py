"""Relational knowledge distillation: distances and angles between the items of a batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dvsn.distill.gather import rows
from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import nothing, summed, tapped
from dvsn.types import Batch, Terms

SMALLEST = 1e-12  # square of a distance


class RelationalDistillation(Method):
    """Smooth L1 of distances over their mean and of cosines at every corner: the terms `rkd_distance` and `rkd_angle`.

    Park et al., 2019, arXiv:1904.05068, weights 25 and 50 as in the authors' code, which are inside of these terms;
    several taps are summed. Distances and angles both come from one Gram matrix of the centred batch, (N, N), never
    from the (N, N, D) differences: with squared distances s, <x_j - x_i, x_k - x_i> = (s_ij + s_ik - s_jk) / 2.
    Angles are N^3 numbers: 0.5 GiB at N = 512.

    Two items at one place (up to rounding) have distance 1e-6 and no direction: their pair gets no gradient, where the
    published code gives it one of 1e11. Widths may differ. `gather` relates the items of all processes; else each relates
    its own, and the loss changes with their number. A batch of one item has no relations: both terms are 0.
    """

    relates = True

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

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        distances, angles = [], []
        for mine, theirs in rows(student, teacher, everywhere=self.gather):
            if len(mine) == 1:
                distances.append(nothing(mine))
                angles.append(nothing(mine))
                continue
            mine, theirs = squared_distances(mine), squared_distances(theirs)
            distances.append(F.smooth_l1_loss(lengths(mine), lengths(theirs)))
            angle: Tensor = AngleLoss.apply(mine, theirs)
            angles.append(angle)
        return {
            "rkd_distance": self.distance_weight * summed(distances),
            "rkd_angle": self.angle_weight * summed(angles),
        }


def squared_distances(items: Tensor) -> Tensor:
    """(N, D) -> (N, N), 0 where two rows are one up to rounding."""
    items = items - items.mean(0)
    gram = items @ items.T
    norms = gram.diagonal()
    sums = norms[:, None] + norms
    square = sums - 2 * gram
    return torch.where(square > 16 * torch.finfo(items.dtype).eps * sums, square, 0.0)


def lengths(square: Tensor) -> Tensor:
    """Distances over the mean of those of two different items; all of these are at least 1e-6."""
    size = len(square)
    distance = (
        square.clamp_min(SMALLEST).sqrt().masked_fill(torch.eye(size, device=square.device).bool(), 0.0)
    )
    return distance / (distance.sum() / (size * (size - 1)))


class AngleLoss(torch.autograd.Function):
    """Smooth L1 of the cosines of all angles, from squared distances (N, N) of student and teacher.

    Its gradient is written out: with W the loss's slope, symmetric in j and k, each of its sums over one index of N^3
    numbers is a product of matrices, which is twice as fast as what autograd does and keeps one array of N^3, not eight.
    """

    @staticmethod
    def forward(context: Any, student: Tensor, teacher: Tensor) -> Tensor:
        difference = cosines(student).sub_(cosines(teacher))
        loss = F.smooth_l1_loss(difference, difference.new_zeros(()).expand_as(difference))
        context.save_for_backward(difference.clamp_(-1, 1), student)
        return loss

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        slope, square = context.saved_tensors
        inverse = inverse_length(square)
        distance = square * inverse
        sums = slope @ torch.stack([inverse, distance], dim=2)  # (N, N, 2): over k, at i and j
        turned = (slope * inverse[:, None, :]).transpose(0, 1)  # (j, i, k)
        opposite = (turned @ square[:, :, None])[:, :, 0].T
        direct = -0.5 * (inverse.T[:, None] @ turned)[:, 0]
        through = 0.5 * inverse * sums[..., 0] - 0.5 * inverse**3 * (sums[..., 1] - opposite)
        return (direct + through) * (gradients[0] / slope.numel()), None


def cosines(square: Tensor) -> Tensor:
    """(N, N, N): at item i between items j and k, (s_ij + s_ik - s_jk) / (2 d_ij d_ik); 0 without a direction."""
    inverse = inverse_length(square)
    products = (square[:, :, None] + square[:, None, :]).sub_(square)
    return products.mul_(inverse[:, :, None]).mul_(0.5 * inverse[:, None, :])


def inverse_length(square: Tensor) -> Tensor:
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0).rsqrt(), 0.0)
