"""The residual generator of CycleGAN and of pix2pix's `resnet_*blocks`."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from dvsn.networks.blocks import (
    Norm,
    Upsample,
    at_least_float32,
    conv_bias,
    make_norm,
    require_choice,
    require_counts,
    require_image,
    require_number,
    upsampling,
)
from dvsn.networks.initialise import Init, initialise


class ResNetGenerator(nn.Module):
    """Two halvings, `blocks` residual blocks at a quarter of the size, two doublings.

    Input: (N, input_channels, H, W) in [-1, 1] or one-hot, H and W divisible by 4 and at least 8.
    Output: (N, output_channels, H, W) in [-1, 1], float32 also under autocast.

    Johnson et al., 2016, arXiv:1603.08155, in the form of Zhu et al., 2017, arXiv:1703.10593, section 7.2: 6
    blocks for 128x128, 9 from 256x256 on. Convolutions have a bias where the norm has no shift of its own
    (`instance`, `none`), unless `bias` says otherwise; the last one always has one. `dropout` acts inside
    each block: the authors' code has 0.5 under pix2pix and 0 under CycleGAN. `upsample`: see
    `dvsn.networks.blocks.upsampling`.
    """

    response: ClassVar[str] = "image"
    multiple = 4

    def __init__(
        self,
        *,
        input_channels: int = 3,
        output_channels: int = 3,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "batch",
        bias: bool | None = None,
        dropout: float = 0.5,
        upsample: Upsample = "transposed",
        init: Init = "normal",
        init_gain: float = 0.02,
    ) -> None:
        super().__init__()
        require_choice(self, "norm", norm, Norm)
        require_choice(self, "upsample", upsample, Upsample)
        require_counts(self, input_channels=input_channels, output_channels=output_channels, width=width)
        require_number(self, "blocks", blocks, least=0)
        require_number(self, "dropout", dropout, least=0.0, most=1.0)
        self.input_channels, self.output_channels = input_channels, output_channels
        bias = conv_bias(bias, norm)

        stem = nn.Conv2d(input_channels, width, 7, padding=3, padding_mode="reflect", bias=bias)
        self.stem = normed(OrderedDict(conv=stem), width, norm)
        self.downs = nn.ModuleList()
        for inputs in (width, 2 * width):
            down = nn.Conv2d(inputs, 2 * inputs, 3, stride=2, padding=1, bias=bias)
            self.downs.append(normed(OrderedDict(conv=down), 2 * inputs, norm))
        self.blocks = nn.ModuleList(ResidualBlock(4 * width, norm, bias, dropout) for _ in range(blocks))
        self.ups = nn.ModuleList()
        for inputs in (4 * width, 2 * width):
            up = upsampling(upsample, inputs, inputs // 2, kernel=3, bias=bias)
            self.ups.append(normed(up, inputs // 2, norm))
        self.head = nn.Conv2d(width, output_channels, 7, padding=3, padding_mode="reflect")
        thirds = [f"blocks.{index}" for index in range(2, blocks, 3)]
        self.taps = ("downs.1", *thirds)  # all at a quarter of the size; every third block
        initialise(self, init=init, gain=init_gain)

    def forward(self, image: Tensor) -> Tensor:
        require_image(self, image, channels=self.input_channels, multiple=self.multiple, minimum=8)
        image = self.stem(image)  # (N, C, H, W)
        for down in self.downs:
            image = down(image)  # (N, 2C, H/2, W/2), (N, 4C, H/4, W/4)
        for block in self.blocks:
            image = block(image)  # (N, 4C, H/4, W/4)
        for up in self.ups:
            image = up(image)  # (N, 2C, H/2, W/2), (N, C, H, W)
        return torch.tanh(at_least_float32(self.head(image)))


class ResidualBlock(nn.Module):
    """The input plus two normed 3x3 convolutions of it, no activation after; keeps (N, C, H, W)."""

    def __init__(self, channels: int, norm: Norm, bias: bool, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias)
        self.norm1 = make_norm(norm, channels)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout) if dropout > 0.0 else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias)
        self.norm2 = make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(self.activation(self.norm1(self.conv1(x))))
        return x + self.norm2(self.conv2(inner))


def normed(layers: OrderedDict[str, nn.Module], channels: int, norm: Norm) -> nn.Sequential:
    """`layers`, which end in `channels` channels, then the norm and a ReLU."""
    return nn.Sequential(OrderedDict(**layers, norm=make_norm(norm, channels), activation=nn.ReLU()))
