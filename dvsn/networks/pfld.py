"""PFLD: landmarks of a face by one regression from three scales, small enough for a phone."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError, UserError
from dvsn.networks.blocks import (
    conv_bn,
    conv_bn_relu,
    require_choice,
    require_counts,
    require_image,
    require_number,
)
from dvsn.types import LandmarkOutput

Second = Literal["full", "depthwise", "separable"]
Pool = Literal["pool", "flatten"]
Residual = Literal["published", "every"]

STRIDE = 16


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the inputs, 3x3 of each channel, 1x1: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride).

    MobileNetV2's block (Sandler et al., 2018, arXiv:1801.04381) with ReLU instead of ReLU6.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        stride: int = 1,
        *,
        shortcut: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        wide = expansion * inputs
        self.conv = nn.Sequential(
            *conv_bn_relu(inputs, wide, 1, bias=bias),
            *conv_bn(wide, wide, 3, stride, groups=wide, bias=bias),
            nn.ReLU(inplace=True),
            *conv_bn(wide, outputs, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv(x)
        return x + residual if self.shortcut else residual


class HeadAngles(nn.Module):
    """The auxiliary net: a map at 1/4 of the crop, (N, inputs, s/4, s/4), -> pitch, yaw and roll (N, 3).

    `padding` is that of the last convolution, whose kernel is as large as its map: 1 gives 3x3 places, of which the
    largest values count (published code), 0 a single one (paper). Its widths are not scaled with the network's.
    """

    def __init__(self, inputs: int, *, kernel: int, padding: int, bias: bool) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(inputs, 128, 3, 2, bias=bias)
        self.conv2 = conv_bn_relu(128, 128, 3, bias=bias)
        self.conv3 = conv_bn_relu(128, 32, 3, 2, bias=bias)
        self.conv4 = conv_bn_relu(32, 128, kernel, padding=padding, bias=bias)
        self.fc1 = nn.Linear(128, 32)
        self.fc2 = nn.Linear(32, 3)  # nothing stands between the two, in either code

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv4(self.conv3(self.conv2(self.conv1(x))))  # (N, 128, 1 + 2 padding, 1 + 2 padding)
        angles: Tensor = self.fc2(self.fc1(x.amax(dim=(2, 3))))
        return angles


class PFLD(nn.Module):
    """A practical facial landmark detector.

    Input: (N, 3, size, size), values in [0, 1] without mean and deviation; the published weights want BGR (both are
    `task.mean`, `task.std` and `task.channels`). Output: `points` (N, landmarks, 2) as fractions of the crop's side;
    `angles` (N, 3) in training, or with `heads=True`.

    Guo et al., 2019, arXiv:1902.10859, table 1. The authors published no code. The defaults are the popular PyTorch
    re-implementation, whose weights fit by name; where it differs from the paper's table, options choose:

    - `width` multiplies all widths of the backbone, not those of the auxiliary net (0.25: the paper's small one).
    - `second` convolution: `full` (published code), `depthwise` (paper), `separable`: depthwise and then 1x1 (the
      source document's code).
    - `pool`: the maps at 1/8 (S1) and 1/16 (S2) go into the last layer as their means, or `flatten`ed, which comes nearer
      to the 12.5 MB that the paper states; no reading of its table gives them.
    - `residual`: a shortcut in `every` block of stride 1 that keeps its width, or not in the first one of the second group
      (`published`).
    - `bias`: in every convolution, though a batch norm follows (source document). The last convolution always has one.
    - `last_norm`: a batch norm behind the last convolution (source document). The published files carry one, bn8, that
      their code never applies: the converter drops it, since parameters without a gradient stop distributed training.
    - `auxiliary`: with the net that tells the head's angles in training; `auxiliary_padding`: see `HeadAngles`.

    Initial weights are the framework's, as in both codes.
    """

    response: ClassVar[str] = "points"
    multiple = STRIDE
    taps = ("block3_5", "block5_6", "conv7")  # finest first: 1/4, 1/8, 1/16
    classifier: tuple[str, ...] = ("fc",)

    def __init__(
        self,
        *,
        landmarks: int,
        width: float = 1.0,
        size: int = 112,
        second: Second = "full",
        pool: Pool = "pool",
        residual: Residual = "published",
        bias: bool = False,
        last_norm: bool = False,
        auxiliary: bool = True,
        auxiliary_padding: int = 1,
    ) -> None:
        super().__init__()
        require_counts(self, landmarks=landmarks)
        require_number(self, "width", width, least=1 / 16)
        require_number(self, "auxiliary_padding", auxiliary_padding, least=0, most=1)
        require_choice(self, "second", second, Second)
        require_choice(self, "pool", pool, Pool)
        require_choice(self, "residual", residual, Residual)
        if not isinstance(size, int) or size < STRIDE or size % STRIDE:
            raise ConfigError(f"PFLD: size must be a multiple of {STRIDE} such as 112, found {size!r}.")
        self.landmarks, self.size, self.pool = landmarks, size, pool
        w64, w128, w16, w32 = (round(width * channels) for channels in (64, 128, 16, 32))
        block = partial(InvertedResidual, bias=bias)
        same = partial(block, shortcut=True)

        self.conv1 = nn.Conv2d(3, w64, 3, stride=2, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(w64)
        groups = 1 if second == "full" else w64
        self.conv2 = nn.Conv2d(w64, w64, 3, padding=1, groups=groups, bias=bias)
        self.bn2 = nn.BatchNorm2d(w64)
        self.mix2 = conv_bn_relu(w64, w64, 1, bias=bias) if second == "separable" else nn.Identity()

        self.conv3_1 = block(w64, w64, 2, 2)
        self.block3_2, self.block3_3 = same(w64, w64, 2), same(w64, w64, 2)
        self.block3_4, self.block3_5 = same(w64, w64, 2), same(w64, w64, 2)
        self.conv4_1 = block(w64, w128, 2, 2)
        self.conv5_1 = block(w128, w128, 4, shortcut=residual == "every")
        self.block5_2, self.block5_3 = same(w128, w128, 4), same(w128, w128, 4)
        self.block5_4, self.block5_5 = same(w128, w128, 4), same(w128, w128, 4)
        self.block5_6 = same(w128, w128, 4)
        self.conv6_1 = block(w128, w16, 2)
        self.conv7 = conv_bn_relu(w16, w32, 3, 2, bias=bias)
        kernel = size // STRIDE  # the whole of the map
        self.conv8 = nn.Conv2d(w32, w128, kernel)
        self.bn8 = nn.BatchNorm2d(w128) if last_norm else nn.Identity()
        places = (1, 1) if pool == "pool" else (4 * kernel**2, kernel**2)
        self.fc = nn.Linear(w16 * places[0] + w32 * places[1] + w128, 2 * landmarks)
        padding = auxiliary_padding
        self.auxiliary = HeadAngles(w64, kernel=kernel, padding=padding, bias=bias) if auxiliary else None

    def forward(self, image: Tensor, *, heads: bool | None = None) -> LandmarkOutput:
        """`heads`: also answer the angles; None: in training only."""
        self._require(image)
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)  # (N, 64, s/2, s/2), of width 1
        x = self.mix2(F.relu(self.bn2(self.conv2(x)), inplace=True))
        x = self.block3_4(self.block3_3(self.block3_2(self.conv3_1(x))))
        early = self.block3_5(x)  # (N, 64, s/4, s/4)
        x = self.block5_2(self.conv5_1(self.conv4_1(early)))
        x = self.block5_6(self.block5_5(self.block5_4(self.block5_3(x))))
        first = self.conv6_1(x)  # (N, 16, s/8, s/8)
        second = self.conv7(first)  # (N, 32, s/16, s/16)
        third = F.relu(self.bn8(self.conv8(second)), inplace=True)  # (N, 128, 1, 1)
        scales = [self._vector(first), self._vector(second), third.flatten(1)]
        points = self.fc(torch.cat(scales, dim=1)).unflatten(1, (self.landmarks, 2))
        wanted = self.training if heads is None else heads
        angles = self.auxiliary(early) if wanted and self.auxiliary is not None else None
        return LandmarkOutput(points, angles)

    def _vector(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) if self.pool == "pool" else x.flatten(1)

    def _require(self, image: Tensor) -> None:
        require_image(self, image, channels=3, multiple=self.size, minimum=self.size)
        if tuple(image.shape[-2:]) != (self.size, self.size):
            raise UserError(
                f"PFLD: found a crop of {image.shape[-2]} x {image.shape[-1]}, expected {self.size} x {self.size}: its last "
                "layer sees the whole crop. Set transform.size, or network.size in a new training."
            )
