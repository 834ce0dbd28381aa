"""Wide ResNet for pictures of 32 x 32: batch norm and ReLU before each convolution, 6n + 4 layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_counts, require_number
from dvsn.networks.initialise import kaiming
from dvsn.networks.tapped import Tapped


class WideResNet(Tapped):
    """Wide ResNet for small pictures.

    Input: (N, 3, H, W) normalised RGB, usually 32 x 32. Output: logits (N, classes).

    Zagoruyko and Komodakis, 2016, arXiv:1605.07146; `widen` times 16, 32 and 64 channels, `dropout` between the two
    convolutions of a block. Keys are those of the benchmark of Tian, Krishnan and Isola (2020, arXiv:1910.10699).
    Known difference: the last map is averaged whole, so that other sizes than 32 work.

    A stage ends with a sum that no ReLU has touched, and that is its tap; what comes next is the batch norm of the
    following stage, and its output, before ReLU, is the pre-activation. The pooled vector is behind the last ReLU.
    Maps at 32 x 32: the stem and the first stage 32, then 16 and 8.
    """

    classifier: tuple[str, ...] = ("fc",)
    taps = ("block1", "block2", "block3")
    stem_tap, pooled_tap, map_tap = "conv1", "fc:in", "relu"
    pre_activation_taps = ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")
    tap_norms = pre_activation_taps

    def __init__(self, *, classes: int, depth: int = 16, widen: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        require_counts(self, classes=classes, widen=widen)
        require_number(self, "dropout", dropout, least=0.0, most=1.0)
        if depth < 10 or depth % 6 != 4:
            raise ConfigError(f"WideResNet: depth must be 6n + 4, such as 16, 28 or 40; found {depth!r}.")
        blocks, widths = depth // 6, (16 * widen, 32 * widen, 64 * widen)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = Stage(16, widths[0], blocks, stride=1, dropout=dropout)
        self.block2 = Stage(widths[0], widths[1], blocks, stride=2, dropout=dropout)
        self.block3 = Stage(widths[1], widths[2], blocks, stride=2, dropout=dropout)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU()
        self.fc = nn.Linear(widths[2], classes)
        kaiming(self)
        nn.init.zeros_(self.fc.bias)

    def features(self, image: Tensor) -> Tensor:
        x = self.conv1(image)  # (N, 16, H, W)
        x = self.block3(self.block2(self.block1(x)))  # (N, 64 widen, H/4, W/4)
        return self.relu(self.bn1(x))


class Stage(nn.Module):
    """`count` blocks, the first with the stride."""

    def __init__(self, inputs: int, outputs: int, count: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        rest = [WideBlock(outputs, outputs, stride=1, dropout=dropout) for _ in range(count - 1)]
        self.layer = nn.Sequential(WideBlock(inputs, outputs, stride=stride, dropout=dropout), *rest)

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.layer(x)
        return summed


class WideBlock(nn.Module):
    """Two times batch norm, ReLU and convolution around a shortcut. Where the shape changes, the shortcut is a 1x1
    convolution and starts behind the first ReLU. (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None
        if inputs != outputs:
            self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rectified = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(rectified)
        inner = F.relu(self.bn2(self.conv1(rectified)))
        if self.dropout > 0:
            inner = F.dropout(inner, self.dropout, training=self.training)
        summed: Tensor = shortcut + self.conv2(inner)
        return summed
