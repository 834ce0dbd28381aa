"""Multi-level logit distillation: items, batches and classes, at several temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from dvsn.distill.gather import gather
from dvsn.distill.kd import ONE, STANDARDISED, divergence, standardised
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import same_output, summed
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class MultiLevel(Method):
    """The terms `mlkd_items`, `mlkd_classes` and `mlkd_batch`, each summed over `temperatures`.

    Jin, Wang and Lin, 2023, "Multi-level logit distillation" (CVPR), with P the softened probabilities (N, K): T^2 KL,
    mean over items; ||P_s^T P_s - P_t^T P_t||_F^2 / K; ||P_s P_s^T - P_t P_t^T||_F^2 / N. The published trainings see a
    weak and a strong view of each picture over 480 epochs and drop items of which the teacher is not sure from averages
    already made; here is one view, and every item counts. `standardise`: as in `kd`.

    `gather` takes the items of all processes for the last two terms; else each takes its own, and these change with
    their number.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes",)

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        standardise: bool = False,
        gather: bool = False,
    ) -> None:
        super().__init__()
        same_output(
            "mlkd", student, teacher, least=3 if standardise else 2, why=STANDARDISED if standardise else ONE
        )
        if not temperatures or min(temperatures) <= 0:
            raise ConfigError(
                f"distill.mlkd.method.temperatures: found {temperatures}, expected a list above 0."
            )
        self.temperatures, self.standardise, self.gather = tuple(temperatures), standardise, gather

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine, theirs = student.output, teacher.output
        if self.standardise:
            mine, theirs = standardised(mine), standardised(theirs)
        items = [divergence(mine, theirs, t).mean() for t in self.temperatures]
        if self.gather:
            mine, theirs = gather(mine), gather(theirs)
        pairs = [((mine / t).softmax(1), (theirs / t).softmax(1)) for t in self.temperatures]
        count, classes = mine.shape
        return {
            "mlkd_items": summed(items),
            "mlkd_classes": summed([correlation_distance(a, b) for a, b in pairs]) / classes,
            "mlkd_batch": summed([correlation_distance(a.T, b.T) for a, b in pairs]) / count,
        }


def correlation_distance(a: Tensor, b: Tensor) -> Tensor:
    """||a^T a - b^T b||_F^2 of (P, Q) matrices, by matrices of the smaller side.

    With d = a - b and s = a + b the difference is (d^T s + s^T d) / 2, so the square is half of <d d^T, s s^T> + <q,
    q^T> with q = s d^T: no two large numbers are subtracted.
    """
    if a.shape[1] <= a.shape[0]:
        return (a.T @ a - b.T @ b).square().sum()
    difference, total = a - b, a + b
    mixed = total @ difference.T
    straight = (difference @ difference.T * (total @ total.T)).sum()
    return 0.5 * (straight + (mixed * mixed.T).sum())
