"""How far predicted head angles are off."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

NAMES = ("pitch", "yaw", "roll")


class AngleError(Metric):
    """Mean absolute errors of pitch, yaw and roll in degrees, and their mean `angle_error_degrees`, over the faces whose
    true angles are known.

    True angles are computed from the true points by `dvsn.geometry.head_angles`, a fit of a mean face; they are not
    measured. A difference is at most 180 degrees.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(len(NAMES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(1, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Both (N, 3) in radians; a row of NaN in the truth is not counted."""
        known = truth.isfinite().all(dim=1)
        apart = torch.where(known.unsqueeze(1), predicted.double() - truth.double(), 0.0)
        self.total += torch.atan2(apart.sin(), apart.cos()).abs().sum(dim=0)
        self.count += known.sum()

    def compute(self) -> dict[str, Tensor]:
        each = torch.rad2deg(self.total / self.count)  # NaN without any face
        found = {f"{name}_error_degrees": value for name, value in zip(NAMES, each.float(), strict=True)}
        return found | {"angle_error_degrees": each.mean().float()}
