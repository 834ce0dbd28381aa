"""Fast pose distillation: the teacher's heatmaps as further targets."""

from __future__ import annotations

from typing import ClassVar

from dvsn.distill.labels import labels_of
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import on_grid, same_output
from dvsn.types import Batch, Terms


class FastPose(Method):
    """Half the mean squared difference of heatmaps, as in the loss of the joints themselves: the term `fpd`.

    Zhang, Zhu and Ye, 2019, arXiv:1811.05419: (1 - a) of the loss with the true maps plus a of this one, a = 0.5, that is,
    one to one, weight 1. `weighted` multiplies differences by `weight` (N, K) of the batch, so that joints that are not
    labelled add nothing, as in the published code; false needs no labels. The teacher's maps are resized to the
    student's grid. In a stack of hourglasses only the last one is compared here.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("heatmaps",)

    def __init__(self, *, student: Side, teacher: Side, weighted: bool = True) -> None:
        super().__init__()
        same_output("fpd", student, teacher)
        self.weighted = weighted

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        error = student.output - on_grid(teacher.output, student.output)
        if self.weighted:
            error = error * labels_of("fpd", batch, "weight").to(error)[:, :, None, None]
        return {"fpd": 0.5 * error.square().mean()}
