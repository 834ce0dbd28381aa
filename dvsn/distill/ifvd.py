"""Intra-class feature variation: the similarity of each pixel to the mean feature of its class."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dvsn.distill.labels import labels_of, labels_on_grid
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import match_size, require_positions, summed, tapped, unit
from dvsn.types import Batch, Terms


class IntraClassVariation(Method):
    """Mean squared difference of the cosines of each pixel with the mean of its class in the picture: the term `ifvd`.

    Wang et al., 2020, "Intra-class feature variation distillation for semantic segmentation" (ECCV), weight 20 in CIRKD's
    comparison, beside `pixel_kd`. Pixels without a label add nothing, but count in the mean. All centres come from one
    product with the labels as one-hot vectors, without a loop over classes. Several taps are summed; widths may differ; of
    two sizes the larger is average-pooled. The adversarial part is `distill=holistic` with weight 0.001.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("pixels",)
    compares: ClassVar[bool] = False

    def __init__(self, *, student: Side, teacher: Side) -> None:
        super().__init__()
        require_positions("ifvd", tapped("ifvd", student, teacher, maps=True))
        self.classes = student.output[0]

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        target, terms = labels_of("ifvd", batch), []
        for mine, theirs in zip(student.features, teacher.features, strict=True):
            mine, theirs = match_size(mine, theirs)
            labels = labels_on_grid(target, mine).flatten(1)  # (N, P)
            known = (labels >= 0) & (labels < self.classes)
            labels = labels.where(known, 0)
            hot = mine.new_zeros(*labels.shape, self.classes).scatter_(
                2, labels[..., None], known[..., None].to(mine.dtype)
            )
            apart = nearness(mine, hot, labels) - nearness(theirs, hot, labels)
            terms.append((apart * known).square().mean())
        return {"ifvd": summed(terms)}


def nearness(feature: Tensor, hot: Tensor, labels: Tensor) -> Tensor:
    """(N, C, h, w), labels one-hot (N, P, K) and as numbers (N, P) -> the cosine of each pixel with its centre, (N, P)."""
    pixels = feature.flatten(2)  # (N, C, P)
    centres = pixels @ hot / (hot.sum(1, keepdim=True) + 1e-6)  # (N, C, K)
    products = pixels.mT @ unit(centres.mT).mT  # (N, P, K)
    lengths = torch.linalg.vector_norm(pixels, dim=1).clamp_min(1e-8)
    return products.gather(2, labels[..., None])[..., 0] / lengths
