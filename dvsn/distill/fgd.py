"""FGD: focal and global distillation of a detector's maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from dvsn.distill.connector import connected, width_connectors
from dvsn.distill.kd import positive
from dvsn.distill.method import Kind, Method, Side, View
from dvsn.distill.shapes import require_positions, summed, tapped
from dvsn.errors import ConfigError
from dvsn.types import Batch, Terms


class FocalAndGlobal(Method):
    """Maps compared within objects and around them by the teacher's attention, attention itself, and what a map relates:
    the terms `fgd_focal`, `fgd_attention` and `fgd_global`, each summed over taps.

    Yang et al., 2022, arXiv:2111.11837. Attention at a position is H W times the soft-max over positions, at
    `temperature`, of the mean over channels of |f|; of a channel C times that over channels of its mean over positions.

    - `focal` (equation 9): squared differences, times the teacher's attention of position and channel, summed with 1 over
      the positions of a box within it (of several boxes the smallest counts), times `objects`, and with 1 over the number
      of the other positions outside, times `background`.
    - `attention` (equation 10): absolute differences of both attentions, summed.
    - `global` (equation 11): squared differences, summed, of maps to which a GcBlock has added what it reads of the whole
      map: a soft-max over positions by a 1x1 convolution, then 1x1 convolution to half the channels, layer norm, ReLU and
      1x1 convolution, which starts at 0. Student and teacher have blocks of their own; both are trained.

    All are means over the batch. The weights are the paper's for detectors of two stages: 5e-5, 2.5e-5, 5e-5 and 5e-7 at
    0.5. The authors' code has for one stage with anchors 1e-3, 5e-4, 1e-3, 5e-6 at 0.5; for FCOS 1.6e-3, 8e-4, 8e-4, 8e-6
    at 0.8. It taps levels of stride 4 to 32 in two stages; `stages` are all five here.

    Known differences: the authors' code marks a box's columns on the map's rows, and one position more at its end than it
    covers; here a box is the positions that it touches. Where widths differ a 1x1 convolution stands behind the student;
    of two sizes the larger is average-pooled. Crowd regions are background.
    """

    reads: ClassVar[tuple[Kind, ...]] = ("objects",)
    compares: ClassVar[bool] = False

    def __init__(
        self,
        *,
        student: Side,
        teacher: Side,
        temperature: float = 0.5,
        objects: float = 5.0e-5,
        background: float = 2.5e-5,
        attention: float = 5.0e-5,
        relation: float = 5.0e-7,
    ) -> None:
        super().__init__()
        self.temperature = positive("fgd.method.temperature", temperature)
        self.weights = objects, background, attention, relation
        if min(self.weights) < 0 or not any(self.weights):
            raise ConfigError(
                f"distill.fgd.method: found objects, background, attention and relation {list(self.weights)}, expected "
                "numbers from 0 on, one of them above 0."
            )
        pairs = tapped("fgd", student, teacher, maps=True)
        require_positions("fgd", pairs)
        self.connectors = width_connectors(pairs)
        self.own = nn.ModuleList(GlobalContext(theirs[0]) for _, theirs in pairs)
        self.others = nn.ModuleList(GlobalContext(theirs[0]) for _, theirs in pairs)

    def forward(self, student: View, teacher: View, batch: Batch) -> Terms:
        pairs = connected(self.connectors, student, teacher)
        blocks = zip(self.own, self.others, strict=True)
        terms = [
            self.of_level(mine, theirs, batch["boxes"], *block)
            for (mine, theirs), block in zip(pairs, blocks, strict=True)
        ]
        names = ("fgd_focal", "fgd_attention", "fgd_global")
        return {name: summed(found) for name, found in zip(names, zip(*terms, strict=True), strict=True)}

    def of_level(
        self, mine: Tensor, theirs: Tensor, boxes: Sequence[Tensor], own: nn.Module, other: nn.Module
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The three terms of one pair of maps (N, C, h, w); `boxes` of each picture are shares of its sides."""
        objects, background, attention, relation = self.weights
        places, channels = attentions(theirs, self.temperature)
        own_places, own_channels = attentions(mine, self.temperature)
        within = torch.stack([object_mask(each.to(mine), theirs.shape[-2:]) for each in boxes])[:, None]
        outside = (within == 0).to(within.dtype)
        outside = outside / outside.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        apart = (mine - theirs).square()
        focal = ((objects * within + background * outside) * places * channels * apart).sum()
        differences = (own_places - places).abs().sum() + (own_channels - channels).abs().sum()
        related = (own(mine) - other(theirs)).square().sum()
        count = len(mine)
        return focal / count, attention * differences / count, relation * related / count


class GlobalContext(nn.Module):
    """A map (N, C, h, w) with what its whole tells added to every position (Cao et al., 2019, arXiv:1904.11492)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.place = nn.Conv2d(channels, 1, 1)
        self.read = nn.Sequential(
            nn.Conv2d(channels, half, 1), nn.LayerNorm([half, 1, 1]), nn.ReLU(), nn.Conv2d(half, channels, 1)
        )
        nn.init.kaiming_normal_(self.place.weight, nonlinearity="relu")
        last = self.read[-1]
        for parameter in (self.place.bias, last.weight, last.bias):
            nn.init.zeros_(parameter)  # type: ignore[arg-type]

    def forward(self, feature: Tensor) -> Tensor:
        shares = self.place(feature).flatten(2).softmax(dim=2)  # (N, 1, h w)
        whole = (feature.flatten(2) * shares).sum(dim=2)[:, :, None, None]
        answer: Tensor = feature + self.read(whole)
        return answer


def attentions(feature: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Of maps (N, C, h, w) the attention of positions (N, 1, h, w) and of channels (N, C, 1, 1); their means are 1."""
    count, channels, height, width = feature.shape
    strength = feature.abs()
    places = (strength.mean(dim=1).flatten(1) / temperature).softmax(dim=1) * height * width
    names = (strength.mean(dim=(2, 3)) / temperature).softmax(dim=1) * channels
    return places.view(count, 1, height, width), names.view(count, channels, 1, 1)


def object_mask(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes (n, 4), shares of the picture's sides -> (h, w): at a position within boxes 1 over the number of positions of
    the smallest, else 0. A box has every position that it touches, and at least one."""
    height, width = size
    scaled = boxes * boxes.new_tensor([width, height, width, height])
    limits = scaled.new_tensor([width - 1, height - 1])
    first = torch.minimum(scaled[:, :2].floor().clamp(min=0), limits)
    last = torch.maximum(scaled[:, 2:].ceil() - 1, first)
    last = torch.minimum(last, limits)
    mask = boxes.new_zeros(height, width)
    rows, columns = (torch.arange(side, device=boxes.device) for side in (height, width))
    for (left, top), (right, bottom) in zip(first, last, strict=True):
        share = 1 / ((right - left + 1) * (bottom - top + 1))
        inside = ((rows >= top) & (rows <= bottom))[:, None] & ((columns >= left) & (columns <= right))[None]
        mask = torch.where(inside, torch.maximum(mask, share), mask)
    return mask
