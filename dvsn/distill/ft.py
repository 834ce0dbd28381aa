"""Factor transfer: the teacher's map paraphrased, the student's translated, and both compared."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dvsn.distill.method import Method, Side, Stage, View
from dvsn.distill.shapes import match_size, summed, tapped, unit
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class FactorTransfer(Method):
    """L1 distance of the unit factors of both networks, its mean over all numbers, summed over taps: the term `ft`.

    Kim, Park and Kwak, 2018, arXiv:1802.04977. For `initial_epochs` a paraphraser learns to rebuild the teacher's map
    from `rate` of its channels (`reconstruction`: the paper's `squared` error, or `absolute` as in the authors' code),
    the student standing still; then it is frozen, and a translator is trained with the student.

    `factor` is what is compared: `whole`, the paper's, with weight 500 on CIFAR; `attention`, the mean square over the
    factor's channels, of the CRD authors' benchmark, with weight 200. Of two sizes the larger factor is average-pooled.
    The paraphraser can outgrow the teacher: 132 million weights for ResNet-50.
    """

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        rate: float = 0.5,
        factor: Literal["whole", "attention"] = "whole",
        reconstruction: Literal["squared", "absolute"] = "squared",
        initial_epochs: int = 30,
    ) -> None:
        super().__init__()
        if factor not in ("whole", "attention") or reconstruction not in ("squared", "absolute"):
            raise ConfigError(
                "distill.ft.method: expected factor whole or attention and reconstruction squared or absolute, found "
                f"{factor!r}, {reconstruction!r}."
            )
        if not 0 < rate <= 1 or initial_epochs < 1:
            raise ConfigError(
                "distill.ft.method: expected rate above 0 and up to 1 and initial_epochs of 1 or more (the paraphraser "
                f"must learn first), found {rate}, {initial_epochs}."
            )
        pairs = tapped("ft", student, teacher, maps=True)
        self.factor, self.reconstruction = factor, reconstruction
        self.stage = Stage(initial_epochs, student=False)
        self.paraphrasers = nn.ModuleList(Paraphraser(theirs[0], rate) for _, theirs in pairs)
        self.translators = nn.ModuleList(
            Translator(mine[0], factors(theirs[0], rate)) for mine, theirs in pairs
        )

    def initial(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms = []
        for paraphraser, theirs in zip(self.paraphrasers, teacher.features, strict=True):
            error = paraphraser(theirs, rebuild=True) - theirs
            terms.append(error.square().mean() if self.reconstruction == "squared" else error.abs().mean())
        return {"ft_reconstruction": summed(terms)}

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        terms = []
        for number, (mine, theirs) in enumerate(zip(student.features, teacher.features, strict=True)):
            with torch.no_grad():
                theirs = self.paraphrasers[number](theirs)
            mine, theirs = match_size(self.translators[number](mine), theirs)
            terms.append((self.units(mine) - self.units(theirs)).abs().mean())
        return {"ft": summed(terms)}

    def units(self, factor: Tensor) -> Tensor:
        compared = factor.square().mean(1) if self.factor == "attention" else factor
        return unit(compared.flatten(1))

    def finish_stage(self) -> None:
        self.freeze(self.paraphrasers)


class Paraphraser(nn.Module):
    """Three convolutions from C to rate C channels, and three transposed ones back, LeakyReLU behind each."""

    def __init__(self, channels: int, rate: float) -> None:
        super().__init__()
        few = factors(channels, rate)
        self.encoder = encoder(channels, few, norm=False)
        layers: list[nn.Module] = []
        for inside, outside in ((few, few), (few, channels), (channels, channels)):
            layers += [nn.ConvTranspose2d(inside, outside, 3, padding=1), nn.Identity(), nn.LeakyReLU(0.1)]
        self.decoder = nn.Sequential(*layers)

    def forward(self, feature: Tensor, *, rebuild: bool = False) -> Tensor:
        factor: Tensor = self.encoder(feature)
        return self.decoder(factor) if rebuild else factor


class Translator(nn.Module):
    def __init__(self, channels: int, few: int) -> None:
        super().__init__()
        self.encoder = encoder(channels, few, norm=True)

    def forward(self, feature: Tensor) -> Tensor:
        answer: Tensor = self.encoder(feature)
        return answer


def factors(channels: int, rate: float) -> int:
    return max(1, int(channels * rate))


def encoder(channels: int, few: int, *, norm: bool) -> nn.Sequential:
    """C -> C -> few -> few channels by 3x3 convolutions, batch norm if asked, LeakyReLU."""
    layers: list[nn.Module] = []
    for inside, outside in ((channels, channels), (channels, few), (few, few)):
        layers += [
            nn.Conv2d(inside, outside, 3, padding=1),
            nn.BatchNorm2d(outside) if norm else nn.Identity(),
            nn.LeakyReLU(0.1),
        ]
    return nn.Sequential(*layers)
