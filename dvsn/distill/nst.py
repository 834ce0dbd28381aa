"""Neuron selectivity transfer: the distributions of the channels' activation maps, compared by MMD."""

from __future__ import annotations

from torch import Tensor

from dvsn.distill.gram import gram_distance
from dvsn.distill.method import Method, Side, View
from dvsn.distill.shapes import match_size, require_positions, summed, tapped, unit
from dvsn.types import Batch, Terms


class NeuronSelectivity(Method):
    """Squared maximum mean discrepancy of the channels' unit maps, kernel (x . y)^2, summed over taps: the term `nst`.

    Huang and Wang, 2017, arXiv:1707.01219, the polynomial kernel with d = 2 and c = 0: per item the mean over channels of
    k(t, t') + k(s, s') - 2 k(s, t), that is ||A_s^T A_s / C_s - A_t^T A_t / C_t||_F^2 with A = C x positions; the mean over
    the batch. Channels may differ; of two sizes the larger is average-pooled.
    """

    def __init__(self, *, student: Side, teacher: Side) -> None:
        super().__init__()
        require_positions("nst", tapped("nst", student, teacher, maps=True))

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        pairs = (match_size(*pair) for pair in zip(student.features, teacher.features, strict=True))
        terms = [gram_distance(channels(mine), channels(theirs)).mean() for mine, theirs in pairs]
        return {"nst": summed(terms)}


def channels(feature: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H*W), each channel of length 1 / sqrt(C)."""
    return unit(feature.flatten(2)) / feature.shape[1] ** 0.5
