"""Distances of Gram matrices without building the larger one."""

from __future__ import annotations

from torch import Tensor


def gram_distance(a: Tensor, b: Tensor) -> Tensor:
    """||a^T a - b^T b||_F^2 of (..., P, N) and (..., Q, N), as (...).

    By matrices N x N, or where N is the larger side by ||a a^T||^2 + ||b b^T||^2 - 2 ||a b^T||^2, equal but for rounding.
    """
    if a.shape[-1] <= max(a.shape[-2], b.shape[-2]):
        return (a.mT @ a - b.mT @ b).square().sum((-2, -1))
    own, other, both = a @ a.mT, b @ b.mT, a @ b.mT
    return own.square().sum((-2, -1)) + other.square().sum((-2, -1)) - 2 * both.square().sum((-2, -1))
