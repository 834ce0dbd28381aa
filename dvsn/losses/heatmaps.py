"""Objectives of networks that answer with heatmaps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.types import Terms


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
        if heatmaps.shape != target.shape:
            raise ConfigError(
                f"network: answers {tuple(heatmaps.shape)}, but the codec's maps are {tuple(target.shape)} (N, K, h, w). "
                "Set network.joints to the number of keypoints, and codec.size and codec.stride to what the network takes."
            )
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
