"""DWPose's first stage: a pose student learns features and answers of its teacher."""

from __future__ import annotations

from typing import ClassVar

from dvsn.distill.connector import connected, width_connectors
from dvsn.distill.kd import divergence
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import on_grid, same_output, summed, tapped
from dvsn.types import Batch, Terms


class PoseFeaturesAndAnswers(Method):
    """The terms `dwpose_features` and `dwpose_answers`, with their weights inside.

    Yang et al., 2023, arXiv:2307.15880, stage 1: the squared error of tapped maps, summed over an item's numbers, mean over
    the batch, through a 1x1 convolution where widths differ; and KL of the keypoints' distributions, logits times
    `sharpness`, without T^2, mean over keypoints and batch. Labels are not looked at.

    The paper's map is the backbone's last. Tapped is what a network's trunk hands to its head (`last_map`): HRNet's finest
    stream, the trunk of SimpleBaseline at 1/32 before its deconvolutions, all four streams of HRNetV2 for faces.

    Different here: the paper's heads answer with a distribution along x and one along y (SimCC), those of dvsn with
    heatmaps, whose softmax over all pixels is compared; and the paper lets both terms fade, by 1 - epoch / epochs: set `end`
    to stop them. Stage 2 is a run of its own, `dwpose_head`.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("heatmaps",)

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        feature_weight: float = 7e-5,
        answer_weight: float = 0.1,
        sharpness: float = 10.0,
    ) -> None:
        super().__init__()
        same_output("dwpose", student, teacher)
        pairs = tapped("dwpose", student, teacher, maps=True)
        self.feature_weight, self.answer_weight, self.sharpness = feature_weight, answer_weight, sharpness
        self.connectors = width_connectors(pairs)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        pairs = connected(self.connectors, student, teacher)
        errors = [(mine - theirs).square().sum() / len(mine) for mine, theirs in pairs]
        logits = student.output, on_grid(teacher.output, student.output)
        mine, theirs = (self.sharpness * each.flatten(2) for each in logits)
        return {
            "dwpose_features": self.feature_weight * summed(errors),
            "dwpose_answers": self.answer_weight * divergence(mine, theirs, 1.0, dim=2).mean(),
        }
