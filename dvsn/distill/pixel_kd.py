"""Knowledge distillation of every pixel's classes."""

from __future__ import annotations

from typing import ClassVar

from dvsn.distill.kd import ONE, divergence, positive
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import on_grid, same_output
from dvsn.types import Batch, Terms


class PixelDistillation(Method):
    """T^2 KL of the classes of each pixel, the mean over pixels: the term `pixel_kd`.

    Liu et al., 2019, arXiv:1903.04197, weight 10 there and 1 in later comparisons; T is 1 in both. Pixels without a
    label count. The teacher's logits are resized to the student's grid.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("pixels",)

    def __init__(self, *, student: Side, teacher: Side, temperature: float = 1.0) -> None:
        super().__init__()
        same_output("pixel_kd", student, teacher, least=2, why=ONE)
        self.temperature = positive("pixel_kd.method.temperature", temperature)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        theirs = on_grid(teacher.output, student.output)
        return {"pixel_kd": divergence(student.output, theirs, self.temperature).mean()}
