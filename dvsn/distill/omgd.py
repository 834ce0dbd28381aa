"""OMGD's losses between a small generator and a large one: structure, smoothness, style, features and channels."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.method import Facts, Kind, Method, Side, View
from dvsn.distill.shapes import as_vector, on_grid, same_output, summed, tapped
from dvsn.distill.vgg import SMALLEST, Vgg
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms

FACTS = Facts()  # of a task that tells nothing else
WINDOW, SIGMA = 11, 1.5  # of the Gaussian of SSIM


class GeneratorToGenerator(Method):
    """The terms `omgd_structure`, `omgd_smoothness`, with the weights of a VGG `omgd_style` and `omgd_feature`, and with
    taps `omgd_channels`; their weights inside.

    Ren et al., 2021, arXiv:2108.06908: 1 - SSIM of both pictures (Wang et al., 2004, an 11 x 11 Gaussian window); the
    total variation of the student's, summed, over the batch; the mean squared error of the averages of tapped channels
    through a 1x1 convolution. Of VGG-16's relu1_2, relu2_2, relu3_3 and relu4_3 (Johnson et al., 2016, arXiv:1603.08155)
    the mean distance of the Gram matrices, products of channels over C*H*W, summed over the four layers; and of relu2_2
    the mean distance of the features.

    Different here: the teacher is one, trained before and frozen, where the paper trains a wide and a deep one online.
    The published code does not divide the total variation by the batch, and has a batch norm and a ReLU behind the
    convolution. Tapped are `stages`: of the ResNet generator the four maps of the published code, behind the second halving
    and every third block; of a U-Net all steps of the decoder, where that has two of the encoder and two of the decoder.

    `features` is torchvision's file of VGG-16, or of VGG-19, whose last ReLU of a block then stands for VGG-16's; without
    it both terms are left out, and structure and the task's own terms must carry the colours. The network is frozen,
    float32, and no part of the method: it is not trained, saved or shipped. `normalise: false` shows it pictures in
    [0, 1], as the published code does and as its weights of the terms want it; true takes ImageNet's mean and standard
    deviation off, as the network was trained, which multiplies contrast by 4.4 and so Gram matrices by about 20.

    `low` and `high` are the range of the pictures' values; null: that of the task. All terms are the same in every range;
    the total variation is that of pictures in [-1, 1].
    """

    reads: ClassVar[tuple[Kind, ...]] = ("image",)

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        facts: Facts = FACTS,
        structure_weight: float = 10.0,
        smoothness_weight: float = 1e-5,
        channel_weight: float = 50.0,
        style_weight: float = 1e4,
        feature_weight: float = 10.0,
        features: str | None = None,
        normalise: bool = False,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__()
        same_output("omgd", student, teacher)
        self.weights = structure_weight, smoothness_weight, channel_weight
        self.style_weight, self.feature_weight = style_weight, feature_weight
        self.low, self.high = (
            (facts.values[0] if low is None else low),
            (facts.values[1] if high is None else high),
        )
        if not self.low < self.high:
            raise ConfigError(f"distill.omgd.method: expected low < high, found {self.low} and {self.high}.")
        pairs = tapped("omgd", student, teacher, least=0)
        self.adapters = nn.ModuleList(nn.Linear(mine[0], theirs[0]) for mine, theirs in pairs)
        self.vgg: Vgg | None = None
        if features is not None:
            where = "distill.omgd.method.features"
            if student.output[0] != 3 or min(student.output[1:]) < SMALLEST:
                raise ConfigError(
                    f"{where}: a VGG sees RGB pictures with sides of {SMALLEST} or more, and the student answers "
                    f"{student.output} (batch left out). Set it to null."
                )
            self.vgg = Vgg(features, where=where, normalise=normalise)

    @property
    def remark(self) -> str:
        if self.vgg is None:
            return "without its style and feature terms, which want a VGG: distill.omgd.method.features=FILE"
        return f"style and feature terms by {self.vgg.name}"

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        theirs = on_grid(teacher.output, student.output)
        mine, theirs = ((each - self.low) / (self.high - self.low) for each in (student.output, theirs))
        structure, smoothness, channels = self.weights
        terms = {
            "omgd_structure": structure * (1 - similarity(mine, theirs)),
            "omgd_smoothness": smoothness * variation(2 * mine),
        }
        if self.vgg is not None:
            terms |= self.perceived(self.vgg, mine, theirs)
        errors = [
            F.mse_loss(adapter(as_vector(mine)), as_vector(theirs))
            for adapter, mine, theirs in zip(self.adapters, student.features, teacher.features, strict=True)
        ]
        return terms | ({"omgd_channels": channels * summed(errors)} if errors else {})

    def perceived(self, vgg: Vgg, student: Tensor, teacher: Tensor) -> Terms:
        """The terms of the VGG for pictures in [0, 1]."""
        with torch.no_grad():
            theirs = vgg(teacher)
        mine = vgg(student)
        style = [F.l1_loss(gram(a), gram(b)) for a, b in zip(mine, theirs, strict=True)]
        return {
            "omgd_style": self.style_weight * summed(style),
            "omgd_feature": self.feature_weight * F.l1_loss(mine[1], theirs[1]),
        }


def gram(feature: Tensor) -> Tensor:
    """(N, C, H, W) -> products of channels over C*H*W, (N, C, C)."""
    flat = feature.flatten(2)
    return flat @ flat.mT / feature[0].numel()


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of pictures (N, C, H, W) in [0, 1], windows inside of the picture only."""
    size = min(WINDOW, *a.shape[-2:])
    line = torch.arange(size, dtype=a.dtype, device=a.device) - (size - 1) / 2
    line = (-line.square() / (2 * SIGMA**2)).exp()
    line = line / line.sum()

    def blur(picture: Tensor) -> Tensor:
        flat = picture.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(flat, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    mean_a, mean_b, aa, bb, ab = blur(torch.stack([a, b, a * a, b * b, a * b]).flatten(0, 1)).chunk(5)
    variance_a, variance_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (light * (2 * covariance + c2) / (variance_a + variance_b + c2)).mean()


def variation(picture: Tensor) -> Tensor:
    down, right = picture.diff(dim=2).abs().sum(), picture.diff(dim=3).abs().sum()
    return (down + right) / len(picture)
