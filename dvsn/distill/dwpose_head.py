"""DWPose's second stage: a new head on the finished student's frozen trunk learns from the old head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dvsn.distill.kd import divergence, positive
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import on_grid, same_output
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class HeadOnly(Method):
    """The term `dwpose_head`: KL of the distributions of the old head and the new one, logits times `sharpness`, without
    T^2, mean over keypoints and batch. Labels are not looked at.

    Yang et al., 2023, arXiv:2307.15880, stage 2: the teacher is the student itself as stage 1 has left it. Its trunk is
    taken over and frozen, its batch norms too; the modules `head` (null: the network's own class layers) start anew and are
    all that is trained, for a fifth of the epochs (`schedule_share`; the authors' files have 60 of 270 and 80 of 420), which
    the schedule shrinks to. Here the start comes from the run's seed.

    Different here: heatmaps instead of SimCC, as in `dwpose`: the softmax over all pixels of a map is compared. The paper's
    head has several layers of its own; name more than the last one where a network has them, such as
    head=[deconv_layers,final_layer] of SimpleBaseline. And where a task answers with classes or classes of pixels, their
    softmax is compared, with `sharpness` 1 unless it is given.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("heatmaps", "pixels", "classes")

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        head: Sequence[str] | None = None,
        sharpness: float | None = None,
        schedule_share: float = 0.2,
    ) -> None:
        super().__init__()
        same_output("dwpose_head", student, teacher)
        usual = 10.0 if student.kind == "heatmaps" else 1.0
        self.sharpness = usual if sharpness is None else positive("dwpose_head.method.sharpness", sharpness)
        if not 0 < schedule_share <= 1:
            raise ConfigError(
                f"distill.dwpose_head.method.schedule_share: found {schedule_share}, expected above 0, at most 1."
            )
        self.only, self.share, self.heatmaps = tuple(head or ()), schedule_share, student.kind == "heatmaps"

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine, theirs = student.output, teacher.output
        if mine.ndim == 4:
            theirs = on_grid(theirs, mine)
        if self.heatmaps:
            mine, theirs = mine.flatten(2), theirs.flatten(2)  # (N, K, h w)
        distance = divergence(
            self.sharpness * mine, self.sharpness * theirs, 1.0, dim=2 if self.heatmaps else 1
        )
        return {"dwpose_head": distance.mean()}
