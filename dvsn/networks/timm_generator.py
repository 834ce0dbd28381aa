"""Generators of image translation on an encoder of timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from dvsn.networks.blocks import Norm, at_least_float32, require_choice, require_counts, require_number
from dvsn.networks.decoders import UNetDecoder, pair
from dvsn.networks.timm_encoder import OnEncoder, TimmEncoder


class TimmGenerator(OnEncoder):
    """A U-Net of an encoder of timm and a decoder.

    Input: (N, input_channels, H, W) in [-1, 1] or one-hot, H and W divisible by `multiple`. Output:
    (N, output_channels, H, W) in [-1, 1], float32 also under autocast.

    - `name`, `size`: see `TimmEncoder`; of timm's published weights the first convolution is made to fit
      `input_channels`.
    - `channels`, `norm`: of the decoder (`UNetDecoder`), whose innermost step has `channels`.
    - `dropout` acts behind its two innermost steps; with `task.test_dropout` also in use (Isola et al., 2017,
      arXiv:1611.07004, take their noise from it).

    Behind the decoder the finest map is doubled to the picture's size by the nearest neighbour, each time
    with two 3x3 convolutions: no transposed convolution draws a checkerboard. Decoder and last layer start as
    PyTorch has them.
    """

    response: ClassVar[str] = "image"

    def __init__(
        self,
        *,
        input_channels: int = 3,
        output_channels: int = 3,
        name: str = "resnet18",
        channels: int = 256,
        norm: Norm = "batch",
        dropout: float = 0.5,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        require_counts(
            self, input_channels=input_channels, output_channels=output_channels, channels=channels
        )
        require_choice(self, "norm", norm, Norm)
        require_number(self, "dropout", dropout, least=0.0, most=1.0)
        self.input_channels, self.output_channels = input_channels, output_channels
        self.encoder = TimmEncoder(name=name, channels=input_channels, size=size)
        self.decoder = UNetDecoder(self.encoder.widths, channels, norm=norm, dropout=dropout, dropped=2)
        inputs = self.decoder.width
        self.rest = nn.Sequential()
        for _ in range(self.encoder.strides[0].bit_length() - 1):
            outputs = max(inputs // 2, min(16, channels))
            self.rest.extend([nn.Upsample(scale_factor=2, mode="nearest"), *pair(inputs, outputs, norm)])
            inputs = outputs
        self.head = nn.Conv2d(inputs, output_channels, 3, padding=1)

    @property
    def taps(self) -> tuple[str, ...]:
        """The decoder's steps, finest first, as of the other generators."""
        return tuple(f"decoder.steps.{step}" for step in reversed(range(len(self.decoder.steps))))

    @property
    def dense_tap(self) -> str:
        """The input of the last layer."""
        return "head:in"

    def forward(self, image: Tensor) -> Tensor:
        self.require(image)
        x = self.rest(self.decoder(self.encoder(image)))
        return torch.tanh(at_least_float32(self.head(x)))
