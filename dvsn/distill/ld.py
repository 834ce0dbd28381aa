"""Localisation distillation: what a teacher leaves open about each edge of a box."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dvsn.distill.kd import divergence, positive
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import nothing, tapped
from dvsn.errors import ConfigError
from dvsn.networks.generalised_focal import FIRST_STRIDE, assign, flat, grid_of
from dvsn.types import Batch, Terms


class LocalisationDistillation(Method):
    """T^2 times the divergence of the distributions over the distances of edges, at positions that find an object, and
    around them: the terms `ld_main` and `ld_valuable`.

    Zheng et al., 2022, arXiv:2102.12252. For detectors whose boxes are distributions: `network.detector=gfl`, student and
    teacher alike; other detectors have none and are refused. The divergence of an edge is the mean over its distances, as
    in the authors' code, where the paper sums.

    - `main`: at the positions that ATSS assigns to objects, weighted by the student's highest score there, the mean over
      the four edges, summed over positions.
    - `valuable`: at those that find no object and whose distance IoU with one is at least `share` of its threshold and at
      most that, weighted by the distance IoU; a quarter of the mean over edges, as their code's divisor of 16 has it.

    Sums are over a batch, as the authors' are over two pictures a device; here each is over the batch and times 2 over the
    number of its pictures, so that their weights of 0.25 hold for any batch. Crowd regions are background.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("objects",)
    compares: ClassVar[bool] = False

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        temperature: float = 10.0,
        main: float = 1.0,
        valuable: float = 1.0,
        share: float = 0.25,
    ) -> None:
        super().__init__()
        self.temperature = positive("ld.method.temperature", temperature)
        if min(main, valuable) < 0 or not main + valuable:
            raise ConfigError(
                f"distill.ld.method: found main {main} and valuable {valuable}, expected numbers from 0 on, one above 0."
            )
        if not 0 < share < 1:
            raise ConfigError(
                f"distill.ld.method.share: found {share}, expected a number above 0 and below 1."
            )
        self.main, self.valuable, self.share = main, valuable, share
        pairs = tapped("ld", student, teacher, maps=True, least=2)
        self.levels = len(pairs) // 2
        for number, (mine, theirs) in enumerate(pairs[: self.levels]):
            if mine != theirs or mine[0] % 4:
                raise ConfigError(
                    f"distill.ld.taps: pair {number} is {mine} of the student and {theirs} of the teacher (batch left out), "
                    "expected equal shapes, four distributions at each position. Give both the same network.bins."
                )

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        """The first half of the features are distributions (N, 4 (bins + 1), h, w), the second scores, finest first."""
        said, scores = student.features[: self.levels], student.features[self.levels :]
        grid = grid_of([(each.shape[-2], each.shape[-1]) for each in said], said[0])
        mine = torch.cat([flat(each) for each in said], dim=1)
        theirs = torch.cat([flat(each) for each in teacher.features[: self.levels]], dim=1)
        apart = edge_divergence(mine, theirs, self.temperature)  # (N, m)
        sure = torch.cat([flat(each).amax(dim=2) for each in scores], dim=1).detach().sigmoid()
        height, width = (FIRST_STRIDE * side for side in said[0].shape[-2:])
        main, valuable = [nothing(mine)], [nothing(mine)]
        for number, boxes in enumerate(batch["boxes"]):
            found = assign(boxes * boxes.new_tensor([width, height, width, height]), grid, share=self.share)
            main.append((apart[number] * sure[number] * (found.objects >= 0)).sum())
            valuable.append((apart[number] * found.near).sum() / 4)
        factor = 2 / len(mine)
        return {
            "ld_main": self.main * factor * torch.stack(main).sum(),
            "ld_valuable": self.valuable * factor * torch.stack(valuable).sum(),
        }


def edge_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Logits (N, m, 4 (bins + 1)) -> (N, m): T^2 times KL(teacher, student), its mean over distances and edges."""
    mine, theirs = (each.unflatten(-1, (4, -1)) for each in (student, teacher))
    return divergence(mine, theirs, temperature, dim=-1).mean(dim=-1) / mine.shape[-1]
