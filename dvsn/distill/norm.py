"""NORM: many representations of the student, made by linear layers that are folded away, match one of the teacher."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from dvsn.distill.joints import require_joint, steps
from dvsn.distill.kd import divergence
from dvsn.distill.method import Change, Kind, Method, Side, View
from dvsn.distill.shapes import same_output, summed, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class ManyToOne(Method):
    """The terms `norm_features`, the sum over `segments` of the mean squared error of a segment of the student's expanded
    map and the teacher's last map; and `norm_answers`, T^2 KL of the classes' distributions, of logits that layer norm has
    given mean 0 and deviation `scale`. With their weights inside.

    Liu et al., 2023, arXiv:2305.13803: `dvsn.networks.graft.LinearPair` expands the student's last map to `segments` times
    the teacher's channels, contracts it and adds it to the map; when the student is shipped it is folded into the class
    layer, and the student has exactly its own parameters. A larger map of the teacher is max-pooled, as in the authors'
    code, which also sums over the segments and has norms in the pair; `answer_weight: 0` is NORM without KD, as its example
    runs it. Neither says what KD weighs in NORM+KD: 0.9 goes with the example's 0.1 for the labels.

    Different here: the task's own loss looks at the logits as they are, where the authors' cross-entropy, too, has them
    normalised; both terms grow over the first epochs (`ramp`), where that of features alone is 0.1, 0.5 and 1 times its
    weight from epochs 0, 10 and 20, and 0.5 and 0.1 times from 180 and 210; in Wide ResNet the pair stands behind the final
    norm and ReLU, where it can be folded, not before them; a larger map of the student is max-pooled for the comparison.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("classes",)
    grafts: ClassVar[bool] = True

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        segments: int = 8,
        feature_weight: float = 1.0,
        answer_weight: float = 0.9,
        temperature: float = 4.0,
        scale: float = 2.5,
    ) -> None:
        super().__init__()
        why = "two normed logits are always the same pair, without a gradient. Set distill.norm.method.answer_weight=0"
        same_output("norm", student, teacher, least=3 if answer_weight else 2, why=why)
        mine, theirs = tapped("norm", student, teacher, maps=True)[-1]
        own = require_joint("norm", "student", student)
        if not own.pooled or own.layer.bias is None:
            why = (
                "has no bias to fold into"
                if own.pooled
                else f"does not read the average of '{own.at}' alone, so that nothing behind that map can be folded into it"
            )
            raise ConfigError(
                f"distill.norm.taps: the class layer '{own.head}' of the student {why}. Choose the tap last_map, or a "
                "student whose class layer reads the average of its last map, with a bias."
            )
        if not isinstance(segments, int) or segments < 1:
            raise ConfigError(f"distill.norm.method.segments: found {segments}, expected 1 or more.")
        self.pools = steps("norm", mine, theirs)
        self.segments, self.temperature, self.scale = segments, temperature, scale
        self.feature_weight, self.answer_weight = feature_weight, answer_weight
        self.change = Change(
            node={
                "_target_": "dvsn.networks.graft.LinearPair",
                "at": own.at,
                "head": own.head,
                "channels": mine[0],
                "width": segments * theirs[0],
            },
            tap="expand",
        )

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        mine, theirs = (
            feature if pool == (1, 1) else F.max_pool2d(feature, pool)
            for feature, pool in zip((student.features[-1], teacher.features[-1]), self.pools, strict=True)
        )
        errors = [F.mse_loss(segment, theirs) for segment in mine.chunk(self.segments, dim=1)]
        terms = {"norm_features": self.feature_weight * summed(errors)}
        if self.answer_weight:
            logits = self.normed(student.output), self.normed(teacher.output)
            terms["norm_answers"] = self.answer_weight * divergence(*logits, self.temperature).mean()
        return terms

    def normed(self, logits: Tensor) -> Tensor:
        """(N, K) with mean 0 and deviation `scale` over the classes."""
        return self.scale * F.layer_norm(logits, logits.shape[1:], eps=1e-7)
