"""Regression to a teacher's points, bounded by how good the teacher is."""

from __future__ import annotations

from typing import ClassVar, Literal

from dvsn.distill.kd import positive
from dvsn.distill.labels import labels_of
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import same_output
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class BoundedRegression(Method):
    """The distance of the student's points, summed over a face's points, mean over the batch: the term
    `bounded_regression`.

    Chen et al., 2017, "Learning efficient object detection models with knowledge distillation", for points in
    place of boxes. `bounded`: a point counts only where the student's squared distance from the truth plus `margin` is
    above the teacher's, so that a teacher that is wrong does not pull. `toward`: `teacher`, to whose points the student
    is drawn; `truth` is the paper's form, where the teacher only says when to stop. `distance`: `l2`, squared, the
    paper's, or `l1`. Points that are not labelled count in no bounded term.

    Distances are in pixels of a crop of `size`. Without `bounded` and `toward: truth` no labels are needed.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("points",)

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        bounded: bool = True,
        toward: Literal["teacher", "truth"] = "teacher",
        distance: Literal["l2", "l1"] = "l2",
        margin: float = 0.0,
        size: float = 112.0,
    ) -> None:
        super().__init__()
        same_output("bounded_regression", student, teacher)
        if toward not in ("teacher", "truth") or distance not in ("l2", "l1"):
            raise ConfigError(
                "distill.bounded_regression.method: expected toward teacher or truth and distance l2 or l1, found "
                f"{toward!r}, {distance!r}."
            )
        self.bounded, self.toward, self.distance, self.margin = bounded, toward, distance, margin
        self.size = positive("bounded_regression.method.size", size)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine, theirs = self.size * student.output, self.size * teacher.output
        if not self.bounded and self.toward == "teacher":
            counts, goal = None, theirs
        else:
            truth = self.size * labels_of("bounded_regression", batch, "points").to(mine)
            counts = labels_of("bounded_regression", batch, "weight").to(mine)
            goal = theirs if self.toward == "teacher" else truth
            if self.bounded:
                worse = (mine.detach() - truth).square().sum(2) + self.margin > (theirs - truth).square().sum(
                    2
                )
                counts = counts * worse
        error = mine - goal
        each = (error.square() if self.distance == "l2" else error.abs()).sum(2)  # (N, L)
        each = each if counts is None else each.where(counts > 0, 0.0) * counts
        return {"bounded_regression": each.sum(1).mean()}
