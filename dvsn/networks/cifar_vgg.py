"""VGG for pictures of 32 x 32: five blocks of plain convolutions with batch norm, and one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from dvsn.errors import ConfigError
from dvsn.networks.blocks import conv_bn, require_counts
from dvsn.networks.initialise import kaiming
from dvsn.networks.tapped import Tapped

COUNTS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Convolutions of each block, by depth."""
WIDTHS = (64, 128, 256, 512, 512)


class CifarVGG(Tapped):
    """VGG for small pictures.

    Input: (N, 3, H, W) normalised RGB, usually 32 x 32. Output: logits (N, classes).

    Simonyan and Zisserman, 2015, arXiv:1409.1556, as the benchmark of Tian, Krishnan and Isola (2020, arXiv:1910.10699)
    has it: batch norm behind each convolution, one linear layer on the average of the last map, and no pooling before
    the fifth block below 64 pixels; the benchmark pools there at 64 exactly, this network from 64 on.

    `classifier` is the class layer itself, as in the published keys. Maps at 32 x 32: 64 channels @ 32 from the stem,
    which is the first block, then 128 @ 16, 256 @ 8, 512 @ 4 and 512 @ 4.
    """

    minimum = 8
    taps = ("relu1", "relu2", "relu3", "relu4")
    stem_tap, pooled_tap = "relu0", "classifier:in"
    pre_activation_taps = ("block1", "block2", "block3", "block4")

    def __init__(self, *, classes: int, depth: int = 13) -> None:
        super().__init__()
        require_counts(self, classes=classes)
        if depth not in COUNTS:
            raise ConfigError(f"CifarVGG: depth must be one of {sorted(COUNTS)}, found {depth!r}.")
        inputs = (3, *WIDTHS)
        self.block0, self.block1, self.block2, self.block3, self.block4 = (
            convolutions(inputs[n], WIDTHS[n], count) for n, count in enumerate(COUNTS[depth])
        )
        self.relu0, self.relu1, self.relu2, self.relu3, self.relu4 = (nn.ReLU() for _ in WIDTHS)
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(WIDTHS[-1], classes)
        self.tap_norms = tuple(
            f"block{n}.{3 * count - 2}" for n, count in enumerate(COUNTS[depth][1:], start=1)
        )
        kaiming(self, zero_biases=True)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, image: Tensor) -> Tensor:
        x = self.relu0(self.block0(image))  # (N, 64, H, W)
        x = self.relu1(self.block1(self.pool(x)))  # (N, 128, H/2, W/2)
        x = self.relu2(self.block2(self.pool(x)))  # (N, 256, H/4, W/4)
        x = self.relu3(self.block3(self.pool(x)))  # (N, 512, H/8, W/8)
        x = self.pool(x) if image.shape[-2] >= 64 else x
        return self.relu4(self.block4(x))


def convolutions(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """`count` 3x3 convolutions with batch norm, and ReLU between them: (N, inputs, H, W) -> (N, outputs, H, W)."""
    layers: list[nn.Module] = []
    for number in range(count):
        layers += [nn.ReLU()] if number else []
        layers += conv_bn(outputs if number else inputs, outputs, 3, bias=True)
    return nn.Sequential(*layers)
