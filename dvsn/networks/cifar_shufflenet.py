"""ShuffleNet, the first and the second, for pictures of 32 x 32: groups of channels that are mixed by shuffling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_counts
from dvsn.networks.tapped import Tapped

STEM = 24


class CifarShuffleNet(Tapped):
    """ShuffleNet V1. Input: (N, 3, H, W) normalised RGB, usually 32 x 32. Output: logits (N, classes).

    Zhang et al., 2018, arXiv:1707.01083, as the benchmark of Tian, Krishnan and Isola (2020, arXiv:1910.10699) has it: the
    stem is one 1x1 convolution without stride or pooling, and a ReLU stands behind the depthwise convolution, where the
    paper has none. Keys are the benchmark's, and as there all weights start as PyTorch does.

    Maps at 32 x 32 with three groups: 24 channels @ 32 from the stem, then 240 @ 16, 480 @ 8 and 960 @ 4. The batch norm
    of a block sees a part of the channels only, so no tap has a norm.
    """

    classifier: tuple[str, ...] = ("linear",)
    taps = ("layer1", "layer2", "layer3")
    stem_tap, pooled_tap = "relu", "linear:in"
    tap_norms = (None, None, None)

    def __init__(
        self,
        *,
        classes: int,
        groups: int = 3,
        widths: Sequence[int] = (240, 480, 960),
        blocks: Sequence[int] = (4, 8, 4),
    ) -> None:
        super().__init__()
        require_counts(self, classes=classes)
        require_three(self, widths, blocks)
        if groups < 1 or any(part % (4 * groups) for part in (*widths, widths[0] - STEM)):
            raise ConfigError(
                f"CifarShuffleNet: widths, and the first less {STEM}, must divide by four times the {groups} groups, "
                f"found {list(widths)}."
            )
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU()
        inputs = (STEM, *widths[:2])
        self.layer1, self.layer2, self.layer3 = (
            grouped_stage(
                inputs[n], widths[n], blocks[n], groups=groups, first_groups=1 if n == 0 else groups
            )
            for n in range(3)
        )
        self.linear = nn.Linear(widths[2], classes)
        self.pre_activation_taps = tuple(
            f"{path}.{count - 1}.relu:in" for path, count in zip(self.taps, blocks, strict=True)
        )

    def features(self, image: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(image)))  # (N, 24, H, W)
        return self.layer3(self.layer2(self.layer1(x)))  # (N, 960, H/8, W/8)


class GroupedBlock(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, then ReLU. With stride 2 the averaged input is joined, so
    (N, inputs, H, W) -> (N, outputs + inputs, H/2, W/2); else it is added."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.stride, self.first_groups = stride, first_groups
        self.conv1 = nn.Conv2d(inputs, middle, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = shuffle(F.relu(self.bn1(self.conv1(x))), self.first_groups)
        inner = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(inner)))))
        halved = F.avg_pool2d(x, 3, stride=2, padding=1) if self.stride == 2 else None
        rectified: Tensor = self.relu(inner + x if halved is None else torch.cat([inner, halved], dim=1))
        return rectified


def grouped_stage(inputs: int, outputs: int, count: int, *, groups: int, first_groups: int) -> nn.Sequential:
    """`count` blocks, the first with stride 2; the stem has too few channels for its groups."""
    first = GroupedBlock(inputs, outputs - inputs, stride=2, groups=groups, first_groups=first_groups)
    rest = [
        GroupedBlock(outputs, outputs, stride=1, groups=groups, first_groups=groups) for _ in range(count - 1)
    ]
    return nn.Sequential(first, *rest)


class CifarShuffleNetV2(Tapped):
    """ShuffleNet V2. Input: (N, 3, H, W) normalised RGB, usually 32 x 32. Output: logits (N, classes).

    Ma et al., 2018, arXiv:1807.11164, as the benchmark of Tian, Krishnan and Isola (2020, arXiv:1910.10699) has it: the stem
    is one 1x1 convolution without stride or pooling; `widths` of the three stages and of the last 1x1 convolution are
    those of 1x, `blocks` counts the blocks behind the one with the stride. Keys are the benchmark's, and as there all
    weights start as PyTorch does.

    A tap is behind the ReLU and shuffled; its pre-activation is neither. Maps at 32 x 32: 24 channels @ 32 from the
    stem, then 116 @ 16, 232 @ 8 and 464 @ 4. A batch norm sees half of the channels only, so no tap has a norm.
    """

    classifier: tuple[str, ...] = ("linear",)
    taps = ("layer1", "layer2", "layer3")
    stem_tap, pooled_tap = "relu", "linear:in"
    map_tap = "relu2"
    tap_norms = (None, None, None)

    def __init__(
        self,
        *,
        classes: int,
        widths: Sequence[int] = (116, 232, 464, 1024),
        blocks: Sequence[int] = (3, 7, 3),
    ) -> None:
        super().__init__()
        require_counts(self, classes=classes)
        require_three(self, widths[:3], blocks)
        if len(widths) != 4 or any(width % 2 for width in widths[:3]):
            raise ConfigError(
                f"CifarShuffleNetV2: widths must be four numbers, the first three even; found {list(widths)}."
            )
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU()
        inputs = (STEM, *widths[:2])
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(DownBlock(inputs[n], widths[n]), *(SplitBlock(widths[n]) for _ in range(blocks[n])))
            for n in range(3)
        )
        self.conv2 = nn.Conv2d(widths[2], widths[3], 1, bias=False)
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.relu2 = nn.ReLU()
        self.linear = nn.Linear(widths[3], classes)
        self.pre_activation_taps = tuple(
            f"{path}.{count}.relu:in" for path, count in zip(self.taps, blocks, strict=True)
        )

    def features(self, image: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(image)))  # (N, 24, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, 464, H/8, W/8)
        return self.relu2(self.bn2(self.conv2(x)))  # (N, 1024, H/8, W/8)


class SplitBlock(nn.Module):
    """Half of the channels pass, the other half goes through 1x1, depthwise 3x3 and 1x1. (N, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        passing, x = x.chunk(2, dim=1)
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        joined = torch.cat([passing, self.bn3(self.conv3(x))], dim=1)
        return shuffle(self.relu(joined), 2)  # what passes is rectified already, so ReLU leaves it as it is


class DownBlock(nn.Module):
    """Two branches with stride 2, joined and shuffled: (N, inputs, H, W) -> (N, outputs, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = nn.Conv2d(inputs, inputs, 3, stride=2, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(inputs, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        right = F.relu(self.bn5(self.conv5(right)))
        return shuffle(torch.cat([left, right], dim=1), 2)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """(N, C, H, W): the first channel of each group, the second of each, ..."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def require_three(owner: nn.Module, widths: Sequence[int], blocks: Sequence[int]) -> None:
    """Refuse all but three widths and three counts of 1 or more."""
    if len(widths) != 3 or len(blocks) != 3 or any(number < 1 for number in (*widths, *blocks)):
        raise ConfigError(
            f"{type(owner).__name__}: widths and blocks must be numbers of 1 or more for three stages, found "
            f"{list(widths)} and {list(blocks)}."
        )
