"""Right and wrong answers of each class by the least score that is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

THRESHOLDS = torch.arange(101, dtype=torch.float64) / 100
"""Scores from 0 to 1 in steps of 0.01."""


class ThresholdCounts:
    """One class against all others, for each of K classes and each of the T thresholds.

    `bins` (2, K, T) int64: how many negatives, and how many positives, have their score from one threshold to the next.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.bins = torch.zeros(2, classes, len(THRESHOLDS), dtype=torch.int64)

    def add(self, scores: Tensor, truth: Tensor) -> None:
        """`scores` (N, K) in [0, 1] and true classes (N,). What has no class below K is left out; NaN counts as 0."""
        known = (truth >= 0) & (truth < self.classes)
        scores, truth = scores[known].float().nan_to_num(0.0), truth[known].long()
        edges = THRESHOLDS.to(scores.device, torch.float32)
        place = torch.bucketize(scores.contiguous(), edges, right=True).sub_(1).clamp_(0, len(edges) - 1)
        place += torch.arange(self.classes, device=place.device) * len(edges)
        size = self.classes * len(edges)
        every = torch.bincount(place.flatten(), minlength=size).cpu()
        positive = torch.bincount(place.gather(1, truth[:, None])[:, 0], minlength=size).cpu()
        self.bins += torch.stack([every - positive, positive]).view_as(self.bins)

    def positives(self) -> tuple[Tensor, Tensor]:
        """True and false positives, each (K, T): the answers with a score of the threshold or more."""
        wrong, right = self.bins.flip(-1).cumsum(-1).flip(-1)
        return right, wrong
