"""The U-Net generator of pix2pix, in the forms in which it was published."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError, UserError
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

SkipOrder = Literal["skip_up", "up_skip"]


class UNet(nn.Module):
    """An encoder that halves the image `depth` times, and a decoder that is given each encoder map again.

    Input: (N, input_channels, H, W) in [-1, 1] or one-hot, H and W divisible by `multiple` = 2**depth.
    Output: (N, output_channels, H, W) in [-1, 1], float32 also under autocast.

    Isola et al., 2017, arXiv:1611.07004, section 6.1.1. Widths are `width` times 1, 2, 4, 8, 8, ... The
    defaults are the authors' later PyTorch release, `unet_256`; `depth=7` is its `unet_128`. Releases differ,
    hence the options:

    - `norm`: with `instance` or `none` every convolution has a bias, with `batch` only the last one, unless
      `bias` and `first_bias` (the encoder's first convolution) say otherwise.
    - `bottleneck_norm`: a norm after the innermost encoder convolution. It needs more than one value per
      channel: with batch norm, batch 1 and sides of 2**depth there is nothing to normalise.
    - `dropout` acts in the decoder steps `dropout_steps`, 1 being the innermost. The paper has (1, 2, 3);
      None is the release's rule, 2 to depth - 4: each step at full width but the innermost.
    - `skip_order`: which comes first in the concatenation, the encoder map or the up-sampled one. Only the
      order of the weights depends on it.
    - `upsample`: `resize` replaces the transposed convolutions (see `dvsn.networks.blocks.upsampling`).

    Differences: activations are not in place (the sums are the same), and the convolution biases which the
    paper's Lua code sets to zero before each update do not exist here.
    """

    response: ClassVar[str] = "image"

    def __init__(
        self,
        *,
        input_channels: int = 3,
        output_channels: int = 3,
        width: int = 64,
        depth: int = 8,
        norm: Norm = "batch",
        bottleneck_norm: bool = False,
        bias: bool | None = None,
        first_bias: bool | None = None,
        dropout: float = 0.5,
        dropout_steps: Sequence[int] | None = None,
        skip_order: SkipOrder = "skip_up",
        upsample: Upsample = "transposed",
        init: Init = "normal",
        init_gain: float = 0.02,
    ) -> None:
        super().__init__()
        require_choice(self, "norm", norm, Norm)
        require_choice(self, "skip_order", skip_order, SkipOrder)
        require_choice(self, "upsample", upsample, Upsample)
        require_counts(self, input_channels=input_channels, output_channels=output_channels, width=width)
        require_number(self, "depth", depth, least=2)
        require_number(self, "dropout", dropout, least=0.0, most=1.0)
        dropout_steps = range(2, depth - 3) if dropout_steps is None else dropout_steps
        if not set(dropout_steps) <= set(range(1, depth)):
            raise ConfigError(
                f"UNet: dropout_steps must lie in 1..{depth - 1} (depth={depth}), not {list(dropout_steps)}."
            )
        self.input_channels, self.output_channels = input_channels, output_channels
        self.multiple, self.skip_order = 2**depth, skip_order
        self.bottleneck_norm = norm if bottleneck_norm else "none"

        bias = conv_bias(bias, norm)
        first_bias = bias if first_bias is None else first_bias
        widths = [width * min(2**level, 8) for level in range(depth)]
        self.downs = nn.ModuleList([conv_down(input_channels, widths[0], first_bias)])
        for level in range(1, depth):
            level_norm = self.bottleneck_norm if level == depth - 1 else norm
            self.downs.append(down_step(widths[level - 1], widths[level], bias, level_norm))
        self.ups = nn.ModuleList()
        for step in range(1, depth):  # 1 is the innermost
            level = depth - 1 - step
            inputs = widths[-1] if step == 1 else 2 * widths[level + 1]
            rate = dropout if step in dropout_steps else 0.0
            own = step > 1  # nothing else reads the concatenation before it
            self.ups.append(up_step(inputs, widths[level], bias, norm, rate, upsample, in_place=own))
        self.head = up_step(2 * widths[0], output_channels, True, "none", 0.0, upsample, in_place=True)
        self.taps = tuple(f"ups.{index}" for index in reversed(range(depth - 1)))  # finest first
        self.dense_tap = self.taps[0]
        initialise(self, init=init, gain=init_gain)

    def forward(self, image: Tensor) -> Tensor:
        require_image(
            self, image, channels=self.input_channels, multiple=self.multiple, minimum=self.multiple
        )
        self._require_statistics(image)
        skips: list[Tensor] = []
        for down in self.downs:
            image = down(image)  # (N, C, H/2, W/2), (N, 2C, H/4, W/4), ...
            skips.append(image)
        image = skips.pop()
        for up in self.ups:
            up_sampled, skip = up(image), skips.pop()
            pair = (skip, up_sampled) if self.skip_order == "skip_up" else (up_sampled, skip)
            image = torch.cat(pair, dim=1)
        return torch.tanh(at_least_float32(self.head(image)))

    def _require_statistics(self, image: Tensor) -> None:
        """A norm at the bottleneck must see more than one value per channel."""
        batch, _, height, width = image.shape
        spatial = (height // self.multiple) * (width // self.multiple)
        norm = self.downs[-1].get_submodule("norm")
        training = norm.training and not isinstance(norm, nn.SyncBatchNorm)  # that one sees the other devices
        alone = {"batch": training and batch * spatial == 1, "instance": spatial == 1, "none": False}
        if alone[self.bottleneck_norm]:
            remedy = "a batch of two or more, " if self.bottleneck_norm == "batch" else ""
            raise UserError(
                f"UNet: the {self.bottleneck_norm} norm at the bottleneck sees one value per channel, so it "
                f"has no variance (batch {batch}, image {height} x {width}, bottleneck 1 x 1). Use "
                f"{remedy}larger images, or network.bottleneck_norm=false as in network=unet_256."
            )


def conv_down(inputs: int, outputs: int, bias: bool) -> nn.Conv2d:
    """(N, inputs, H, W) -> (N, outputs, H/2, W/2)."""
    return nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=bias)


def down_step(inputs: int, outputs: int, bias: bool, norm: Norm) -> nn.Sequential:
    """Activation, convolution, norm: (N, inputs, H, W) -> (N, outputs, H/2, W/2)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(activation=nn.LeakyReLU(0.2))
    layers["conv"] = conv_down(inputs, outputs, bias)
    layers["norm"] = make_norm(norm, outputs)
    return nn.Sequential(layers)


def up_step(
    inputs: int, outputs: int, bias: bool, norm: Norm, dropout: float, kind: Upsample, *, in_place: bool
) -> nn.Sequential:
    """Activation, up-sampling, norm, dropout: (N, inputs, H, W) -> (N, outputs, 2H, 2W)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(activation=nn.ReLU(inplace=in_place))
    layers.update(upsampling(kind, inputs, outputs, kernel=4, bias=bias))
    layers["norm"] = make_norm(norm, outputs)
    if dropout > 0.0:
        layers["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(layers)
