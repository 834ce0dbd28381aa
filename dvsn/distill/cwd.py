"""Channel-wise distillation: the softmax of each channel over its positions."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dvsn.distill.connector import connected, width_connectors
from dvsn.distill.kd import divergence, positive
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import on_grid, require_positions, same_output, summed, tapped
from dvsn.types import Batch, Terms


class ChannelWise(Method):
    """T^2 times the divergence of each channel's softmax over positions, its mean over channels and batch: the term `cwd`.

    Shu et al., 2021, arXiv:2011.13256. Of the logits of pixels or the heatmaps of keypoints; the teacher's are resized to
    the student's grid. Weight 3 with T 4 in CIRKD's comparison, weight 5 with T 1 elsewhere. Void pixels count.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("pixels", "heatmaps")

    def __init__(self, *, student: Side, teacher: Side, temperature: float = 4.0) -> None:
        super().__init__()
        same_output("cwd", student, teacher)
        require_positions("cwd", [(student.output, student.output)])
        self.temperature = positive("cwd.method.temperature", temperature)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        theirs = on_grid(teacher.output, student.output)
        return {"cwd": channel_divergence(student.output, theirs, self.temperature)}


class ChannelWiseFeatures(Method):
    """The same of tapped maps, summed over taps: the term `cwd_features`; weight 50 with T 4 in CIRKD's comparison.

    Where channels differ a 1x1 convolution stands behind the student; of two sizes the larger is average-pooled.
    """

    def __init__(self, *, student: Side, teacher: Side, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = positive("cwd_features.method.temperature", temperature)
        pairs = tapped("cwd_features", student, teacher, maps=True)
        require_positions("cwd_features", pairs)
        self.connectors = width_connectors(pairs)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        pairs = connected(self.connectors, student, teacher)
        terms = [channel_divergence(mine, theirs, self.temperature) for mine, theirs in pairs]
        return {"cwd_features": summed(terms)}


def channel_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Of maps (N, C, h, w)."""
    return divergence(student.flatten(2), teacher.flatten(2), temperature, dim=2).mean()
