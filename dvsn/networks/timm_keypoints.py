"""Keypoints and landmarks on an encoder of timm: by heatmaps, or regressed at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from dvsn.networks.blocks import conv_bn_relu, require_counts
from dvsn.networks.simple_baseline import heatmap_head
from dvsn.networks.timm_encoder import OnEncoder, TimmEncoder
from dvsn.types import LandmarkOutput


class TimmPose(OnEncoder):
    """A model of timm and the deconvolutions of SimpleBaseline, for heatmaps of poses or of faces.

    Input: (N, 3, H, W) normalised RGB, H and W divisible by `multiple`. Output: heatmaps (N, joints, H/s,
    W/s), no activation; s is the encoder's coarsest stride, mostly 32, halved by each of the
    `deconvolutions`: 4 for three.

    Xiao, Wu and Wei, 2018, arXiv:1804.06208, whose encoder is a ResNet. Deconvolutions and last layer start
    from N(0, 0.001), as there; the encoder as timm has it.
    """

    response: ClassVar[str] = "heatmaps"
    classifier: tuple[str, ...] = ("final_layer",)

    def __init__(
        self,
        *,
        joints: int,
        name: str = "resnet18",
        deconvolutions: int = 3,
        deconvolution_width: int = 256,
        deconvolution_kernel: int = 4,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = TimmEncoder(name=name, size=size)
        self.deconv_layers, self.final_layer, self.stride = heatmap_head(
            self,
            self.encoder.widths[-1],
            joints,
            multiple=self.encoder.multiple,
            deconvolutions=deconvolutions,
            width=deconvolution_width,
            kernel=deconvolution_kernel,
        )

    def forward(self, image: Tensor) -> Tensor:
        self.require(image)
        heatmaps: Tensor = self.final_layer(self.deconv_layers(self.encoder(image)[-1]))
        return heatmaps


class TimmLandmarks(OnEncoder):
    """A model of timm that answers with points: the averages of its maps, and one matrix.

    Input: (N, 3, H, W) normalised RGB of any size, which is padded for the encoder (`OnEncoder.padded`).
    Output: `points` (N, landmarks, 2), fractions of the crop's sides; in training and with `auxiliary` also
    `angles` (N, 3), pitch, yaw and roll in radians.

    The three coarsest maps are averaged over the crop, without what was padded, and joined, as PFLD joins
    three scales (Guo et al., 2019, arXiv:1902.10859, section 3.3). The matrix starts near zero, its bias at
    0.5: all points in the middle of the crop. The head of the angles reads the finest map from stride 4 on:
    3x3 convolution with norm and ReLU, average, matrix.
    """

    response: ClassVar[str] = "points"
    classifier: tuple[str, ...] = ("fc",)

    def __init__(
        self,
        *,
        landmarks: int,
        name: str = "resnet18",
        auxiliary: bool = True,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        require_counts(self, landmarks=landmarks)
        self.landmarks = landmarks
        self.encoder = TimmEncoder(name=name, size=size)
        self.fc = nn.Linear(sum(self.encoder.widths[-3:]), 2 * landmarks)
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.constant_(self.fc.bias, 0.5)
        self.early = next((n for n, stride in enumerate(self.encoder.strides) if stride >= 4), -1)
        self.auxiliary = AverageAngles(self.encoder.widths[self.early]) if auxiliary else None

    @property
    def multiple(self) -> int:
        """Any size will do."""
        return 1

    def forward(self, image: Tensor, *, heads: bool | None = None) -> LandmarkOutput:
        """`heads`: also answer the angles; None: in training only."""
        height, width = image.shape[-2:]
        maps = [
            each[..., : -(-height // stride), : -(-width // stride)]
            for each, stride in zip(self.encoder(self.padded(image)), self.encoder.strides, strict=True)
        ]
        pooled = torch.cat([each.mean(dim=(2, 3)) for each in maps[-3:]], dim=1)
        points = self.fc(pooled).unflatten(1, (self.landmarks, 2))
        wanted = self.training if heads is None else heads
        angles = self.auxiliary(maps[self.early]) if wanted and self.auxiliary is not None else None
        return LandmarkOutput(points, angles)


class AverageAngles(nn.Module):
    """(N, width, H, W) -> angles (N, 3)."""

    def __init__(self, width: int, middle: int = 64) -> None:
        super().__init__()
        self.mix = conv_bn_relu(width, middle, 3, 2)
        self.fc = nn.Linear(middle, 3)

    def forward(self, x: Tensor) -> Tensor:
        angles: Tensor = self.fc(self.mix(x).mean(dim=(2, 3)))
        return angles
