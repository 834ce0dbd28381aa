"""Losses on more than single pixels: the distance to the true outline, and the mutual information of small regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dvsn.errors import ConfigError
from dvsn.losses.overlap import against_truth, average
from dvsn.losses.segmentation import Scores, Term
from dvsn.types import IGNORE


class BoundaryDistance(Term):
    """Boundary loss: the mean over pixels of the probability of a class times the signed distance to its true outline.

    Kervadec et al., 2019, arXiv:1812.07032, eq. 5, with the distances of the authors' code: outside of the class the
    distance to its nearest pixel, inside one minus the distance to the nearest pixel outside, so that an inner outline has
    0; in pixels. The mean is over the valid pixels of a picture, and over the classes that occur in pictures. It may be
    below 0, and needs a term on pixels beside it. Unlike in the paper its weight stays the same.

    The distances are worked out by scipy on the CPU, twice for each class that a picture holds, which takes long for many
    classes and large crops.
    """

    def forward(self, scores: Scores, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        probability, _, valid = against_truth(scores.logits.softmax(dim=1), target)
        labels, count = target.cpu().numpy(), probability.shape[1]
        distance = np.zeros((len(labels), count, *labels.shape[1:]), np.float32)
        occurs = np.zeros((len(labels), count), bool)
        for picture, ids in enumerate(labels):
            for each in np.unique(ids[ids != IGNORE]).tolist():
                distance[picture, each], occurs[picture, each] = signed_distance(ids == each), True
        moved = torch.from_numpy(distance).to(probability)
        pixels = valid.sum((1, 2, 3)).clamp(min=1).unsqueeze(1)  # (N, 1)
        values = (probability * moved).sum((2, 3)) / pixels  # (N, K)
        return average(values, torch.from_numpy(occurs).to(values.device))


def signed_distance(inside: np.ndarray) -> np.ndarray:
    """(H, W) bool -> float32 in pixels: outside the distance to the nearest pixel inside, inside 1 minus that to the nearest
    outside. Where all is inside there is no outline: 0."""
    from scipy.ndimage import distance_transform_edt

    if inside.all():
        return np.zeros(inside.shape, np.float32)
    outer, inner = distance_transform_edt(~inside), distance_transform_edt(inside)
    found: np.ndarray = np.where(inside, 1 - inner, outer).astype(np.float32)
    return found


class RegionMutualInformation(Term):
    """RMI: a lower bound of the mutual information between the true and the answered pixels of small squares, with its sign
    turned, as it is to be minimised.

    Zhao, Wang, Yang and Cai, 2019, arXiv:1910.12037, eq. 13 to 16, as in the authors' code: class by class, sigmoid
    probabilities and labels are shrunk by a mean over `pool` x `pool` pixels, each `radius` x `radius` square of them is a
    vector of d = radius^2 numbers, and the value is log det(S_yy - S_yp (S_pp + e I)^-1 S_yp^T + e I) / 2d with e = 5e-4,
    averaged over pictures and summed over classes; S are sums of products of the centred vectors. In double precision. It
    is below 0 for good answers, and stands beside a cross entropy, each with half the weight.
    """

    REGULAR = 5e-4  # e
    FLOOR = 1e-6  # added to probabilities

    def __init__(self, *, radius: int = 3, pool: int = 3, **shared: Any) -> None:
        super().__init__(**shared)
        for name, value in {"radius": radius, "pool": pool}.items():
            if value < 1:
                raise ConfigError(f"RegionMutualInformation: {name} must be at least 1, found {value!r}.")
        self.radius, self.pool = radius, pool

    def forward(self, scores: Scores, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        probability, truth, _ = against_truth(scores.logits.sigmoid(), target)
        true, answered = self._vectors(truth), self._vectors(probability + self.FLOOR)
        unit = torch.eye(true.shape[2], dtype=torch.float64, device=true.device)
        inverse = torch.linalg.inv(answered @ answered.mT + self.REGULAR * unit)
        shared = true @ answered.mT
        left = true @ true.mT - shared @ inverse @ shared.mT + self.REGULAR * unit  # (N, K, d, d)
        values = torch.linalg.slogdet(left).logabsdet / (2 * len(unit))  # (N, K)
        return values.mean(dim=0).sum().to(scores.logits.dtype)

    def _vectors(self, maps: Tensor) -> Tensor:
        """(N, K, H, W) -> centred (N, K, d, places) float64: a column is a square."""
        if self.pool > 1:
            maps = F.avg_pool2d(maps, self.pool, self.pool, padding=self.pool // 2)
        height, width = (side - self.radius + 1 for side in maps.shape[-2:])
        if height < 1 or width < 1:
            raise ConfigError(
                f"RegionMutualInformation: labels become {maps.shape[-2]}x{maps.shape[-1]} by pool={self.pool}, and a "
                f"square of radius={self.radius} does not fit. Set a smaller pool, or larger crops by transform.crop_height."
            )
        parts = [
            maps[..., y : y + height, x : x + width] for y in range(self.radius) for x in range(self.radius)
        ]
        vectors = torch.stack(parts, dim=2).flatten(3).double()
        return vectors - vectors.mean(dim=3, keepdim=True)
