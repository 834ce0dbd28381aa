"""Objectives of networks that answer with heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.types import Terms

PEAK = 0.2  # the least value of a target that the focus of the adaptive Wing takes for foreground


class JointMSE(nn.Module):
    """Half the mean squared error of heatmaps: the term `heatmaps`.

    With weights w (N, K), maps p and targets t (N, K, h, w): the mean over everything of 0.5 (w (p - t))^2. The weight
    stands inside the square, and a keypoint that is not labelled still counts in the mean, both as in the code of
    SimpleBaseline and HRNet (Xiao et al., 2018, arXiv:1804.06208). mmpose's loss has neither the half nor the square of
    the weight, so learning rates do not carry over.

    `hardest` keeps only so many keypoints of each person, those with the largest error: online hard keypoint mining
    (Chen et al., 2018, arXiv:1711.07319), over 8 of 17 there; 0 keeps all. `joint_weights` are factors of the
    weights, one a keypoint.
    """

    reads: ClassVar[tuple[str, ...]] = ("heatmaps",)
    joint_weights: Tensor | None

    def __init__(self, *, hardest: int = 0, joint_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if hardest < 0 or (joint_weights is not None and not all(weight >= 0 for weight in joint_weights)):
            raise ConfigError(
                f"loss: expected hardest >= 0 and joint_weights >= 0, found {hardest}, {joint_weights}."
            )
        self.hardest = hardest
        factors = None if joint_weights is None else torch.tensor(joint_weights, dtype=torch.float32)
        self.register_buffer("joint_weights", factors, persistent=False)

    def forward(self, heatmaps: Tensor, target: Tensor, weight: Tensor) -> Terms:
        """Maps and targets (N, K, h, w), weights (N, K)."""
        require_same(heatmaps, target)
        if self.joint_weights is not None:
            if len(self.joint_weights) != weight.shape[1]:
                raise ConfigError(
                    f"loss.joint_weights: {len(self.joint_weights)} numbers for {weight.shape[1]} keypoints."
                )
            weight = weight * self.joint_weights
        errors = ((heatmaps.float() - target) * weight[..., None, None]).square()
        each = 0.5 * errors.mean(dim=(2, 3))  # (N, K)
        if self.hardest:
            each = each.topk(min(self.hardest, each.shape[1]), dim=1).values
        return {"heatmaps": each.mean()}


class AdaptiveWing(nn.Module):
    """Adaptive Wing of heatmaps: the term `heatmaps`.

    With d = p - t of maps p and targets t, the mean over everything of

        omega ln(1 + |d / epsilon|^(alpha - t))   where |d| < theta
        A |d| - C                                 elsewhere

    and A and C such that both pieces meet with the same slope: A = omega (alpha - t) r^(alpha - t - 1) /
    (epsilon (1 + r^(alpha - t))), C = theta A - omega ln(1 + r^(alpha - t)), r = theta / epsilon. Unlike under the
    squared error, small errors count near a peak more than on the background (Wang, Bo and Fuxin, 2019,
    arXiv:1904.07399, eq. 3 and 4).

    `focus` adds so much to the weight of the pixels whose target is at least 0.2, and of their neighbours (section 5 there,
    10 in the paper); 0: all pixels alike, as mmpose has it. The weight of a keypoint multiplies its loss, and one that
    is not labelled still counts in the mean, as in `JointMSE`. The paper's boundary maps and coordinates are left out.
    """

    reads: ClassVar[tuple[str, ...]] = ("heatmaps",)

    def __init__(
        self,
        *,
        alpha: float = 2.1,
        omega: float = 14.0,
        epsilon: float = 1.0,
        theta: float = 0.5,
        focus: float = 0.0,
    ) -> None:
        super().__init__()
        if not alpha > 2 or not min(omega, epsilon, theta) > 0 or not focus >= 0:
            raise ConfigError(
                f"loss: expected alpha > 2, omega, epsilon and theta > 0 and focus >= 0, found alpha={alpha}, "
                f"omega={omega}, epsilon={epsilon}, theta={theta}, focus={focus}."
            )
        self.alpha, self.omega, self.epsilon, self.theta, self.focus = alpha, omega, epsilon, theta, focus

    def forward(self, heatmaps: Tensor, target: Tensor, weight: Tensor) -> Terms:
        """Maps and targets (N, K, h, w), weights (N, K)."""
        require_same(heatmaps, target)
        error, power = (heatmaps.float() - target).abs(), self.alpha - target.float()
        ratio = self.theta / self.epsilon
        slope = self.omega * power * ratio ** (power - 1) / (self.epsilon * (1 + ratio**power))
        shift = self.theta * slope - self.omega * torch.log1p(ratio**power)
        near = self.omega * torch.log1p((error / self.epsilon) ** power)
        each = torch.where(error < self.theta, near, slope * error - shift) * weight[..., None, None]
        if self.focus:
            peaks = F.max_pool2d(target.float(), 3, stride=1, padding=1) >= PEAK
            each = each * (1 + self.focus * peaks)
        return {"heatmaps": each.mean()}


def require_same(heatmaps: Tensor, target: Tensor) -> None:
    """Refuse an answer whose shape is not the targets'."""
    if heatmaps.shape != target.shape:
        raise ConfigError(
            f"network: answers {tuple(heatmaps.shape)}, but the codec's maps are {tuple(target.shape)} (N, K, h, w). "
            "Set network.joints to the number of keypoints, and codec.size and codec.stride to what the network takes."
        )
