"""Discriminators that judge an image patch by patch."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from dvsn.networks.blocks import (
    Norm,
    conv_bias,
    make_norm,
    require_choice,
    require_counts,
    require_image,
    require_number,
)
from dvsn.networks.initialise import Init, initialise


class PairDiscriminator(nn.Module):
    """Base of the discriminators: the order of their input channels, and the probability map."""

    response: ClassVar[str] = "verdicts"
    reads: ClassVar[tuple[str, ...]] = ("image",)
    multiple = 1

    def __init__(
        self, condition_channels: int, image_channels: int, image_first: bool, width: int, norm: Norm
    ) -> None:
        super().__init__()
        require_number(self, "condition_channels", condition_channels, least=0)
        require_counts(self, image_channels=image_channels, width=width)
        require_choice(self, "norm", norm, Norm)
        self.input_channels = condition_channels + image_channels
        self.image_first = image_first

    def join(self, condition: Tensor | None, image: Tensor) -> Tensor:
        """(N, condition, H, W) and (N, image, H, W) -> the input, (N, condition + image, H, W).

        An unconditional discriminator (condition_channels=0) is given None.
        """
        if condition is None:
            return image
        return torch.cat((image, condition) if self.image_first else (condition, image), dim=1)

    def probability(self, pair: Tensor) -> Tensor:
        """How likely each patch is real, in [0, 1]: the sigmoid which `forward` leaves to the loss."""
        return torch.sigmoid(self(pair).float())


class PatchGan(PairDiscriminator):
    """A fully convolutional classifier of overlapping patches.

    Input: (N, condition_channels + image_channels, H, W), joined by `join`: the condition first, or the image
    first with `image_first`. Sides of at least 3 * 2**layers.
    Output: logits (N, 1, h, w) with h = floor(H / 2**layers) - 2, higher is more real; no sigmoid.

    Isola et al., 2017, arXiv:1611.07004, section 6.1.2. `layers` convolutions of stride 2, one of stride 1,
    and one of stride 1 to a single channel; widths are `width` times 1, 2, 4, 8, 8, ...

        layers            1        2        3        4        5        6
        patch (pixels)   16       34       70      142      286      574
        256x256 gives   126       62       30       14        6        2

    The first and the last convolution have no norm and always a bias; the others have a bias where the norm
    has no shift of its own (`instance`, `none`), unless `bias` says otherwise.
    """

    def __init__(
        self,
        *,
        condition_channels: int = 3,
        image_channels: int = 3,
        image_first: bool = False,
        width: int = 64,
        layers: int = 3,
        norm: Norm = "batch",
        bias: bool | None = None,
        init: Init = "normal",
        init_gain: float = 0.02,
    ) -> None:
        super().__init__(condition_channels, image_channels, image_first, width, norm)
        require_counts(self, layers=layers)
        self.minimum = 3 * 2**layers
        bias = conv_bias(bias, norm)
        widths = [width * min(2**index, 8) for index in range(layers + 1)]

        first = nn.Conv2d(self.input_channels, widths[0], 4, stride=2, padding=1)
        self.stages = nn.ModuleList([nn.Sequential(OrderedDict(conv=first, activation=nn.LeakyReLU(0.2)))])
        for index in range(1, layers + 1):
            stride = 2 if index < layers else 1
            conv = nn.Conv2d(widths[index - 1], widths[index], 4, stride=stride, padding=1, bias=bias)
            norm_layer = make_norm(norm, widths[index])
            self.stages.append(
                nn.Sequential(OrderedDict(conv=conv, norm=norm_layer, activation=nn.LeakyReLU(0.2)))
            )
        self.head = nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1)
        self.taps = tuple(f"stages.{index}" for index in range(layers + 1))  # finest first
        initialise(self, init=init, gain=init_gain)

    def forward(self, pair: Tensor) -> Tensor:
        require_image(self, pair, channels=self.input_channels, multiple=1, minimum=self.minimum)
        for stage in self.stages:
            pair = stage(pair)  # (N, C, H/2, W/2), (N, 2C, H/4, W/4), ..., and at last one pixel less
        return self.head(pair)  # (N, 1, h, w)


class PixelGan(PairDiscriminator):
    """A classifier of single pixels: 1x1 convolutions only.

    Input: (N, condition_channels + image_channels, H, W), joined by `join`.
    Output: logits (N, 1, H, W), higher is more real; no sigmoid.

    Isola et al., 2017, arXiv:1611.07004, section 6.1.2 (the 1x1 discriminator). As in the authors' code the
    rule for biases (see `PatchGan`) reaches the last convolution too: with batch norm it has none.
    """

    def __init__(
        self,
        *,
        condition_channels: int = 3,
        image_channels: int = 3,
        image_first: bool = False,
        width: int = 64,
        norm: Norm = "batch",
        bias: bool | None = None,
        init: Init = "normal",
        init_gain: float = 0.02,
    ) -> None:
        super().__init__(condition_channels, image_channels, image_first, width, norm)
        bias = conv_bias(bias, norm)
        self.conv1 = nn.Conv2d(self.input_channels, width, 1)
        self.conv2 = nn.Conv2d(width, 2 * width, 1, bias=bias)
        self.norm = make_norm(norm, 2 * width)
        self.activation = nn.LeakyReLU(0.2)
        self.head = nn.Conv2d(2 * width, 1, 1, bias=bias)
        self.taps = ("conv1", "norm")
        initialise(self, init=init, gain=init_gain)

    def forward(self, pair: Tensor) -> Tensor:
        require_image(self, pair, channels=self.input_channels, multiple=1, minimum=1)
        pair = self.activation(self.conv1(pair))  # (N, C, H, W)
        pair = self.activation(self.norm(self.conv2(pair)))  # (N, 2C, H, W)
        return self.head(pair)  # (N, 1, H, W)
