"""Detectors on an encoder of timm."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

from dvsn.errors import ConfigError
from dvsn.networks.blocks import require_choice, require_counts, require_image
from dvsn.networks.detectors import Detector
from dvsn.networks.timm_encoder import Expected, KeepsTimm, TimmEncoder

Stride = Literal[4, 8]


class TimmPyramid(nn.Module):
    """A model of timm with a feature pyramid, the backbone of a detector.

    Input: (N, 3, H, W) normalised RGB, H and W divisible by `multiple`. Output: five maps "0" to "4", (N,
    channels, H/s, W/s), s = first_stride times 1, 2, 4, 8, 16 (Lin et al., 2017, arXiv:1612.03144). The
    coarsest of `first_stride` 4 is a subsampled one, as of torchvision's Faster R-CNN; of `first_stride` 8
    the two coarsest are further convolutions, as of its FCOS. Keys of the encoder are timm's behind
    `body.model.`.

    Raises `ConfigError` for an encoder without the strides from `first_stride` to 32, and for one of pictures
    of one size.
    """

    def __init__(self, *, name: str = "resnet18", channels: int = 128, first_stride: Stride = 4) -> None:
        super().__init__()
        require_counts(self, channels=channels)
        require_choice(self, "first_stride", first_stride, Stride)
        self.body = TimmEncoder(name=name)
        wanted = [stride for stride in (4, 8, 16, 32) if stride >= first_stride]
        missing = sorted(set(wanted) - set(self.body.strides))
        if missing:
            raise ConfigError(
                f"network.backbone.name: {name} has maps of strides {', '.join(map(str, self.body.strides))}, and a pyramid "
                f"needs {', '.join(map(str, missing))} too. Choose another model, such as resnet18."
            )
        if self.body.fixed is not None:
            raise ConfigError(
                f"network.backbone.name: {name} takes pictures of {self.body.fixed[0]} x {self.body.fixed[1]} only, and a "
                "detector resizes each to its own size. Choose another model, such as resnet18."
            )
        self.places = tuple(self.body.strides.index(stride) for stride in wanted)
        self.first_stride, self.multiple, self.out_channels = first_stride, self.body.multiple, channels
        extra: Any = LastLevelMaxPool() if first_stride == 4 else LastLevelP6P7(channels, channels)
        widths = [self.body.widths[place] for place in self.places]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra)

    def forward(self, image: Tensor) -> OrderedDict[str, Tensor]:
        require_image(self, image, channels=3, multiple=self.multiple, minimum=self.multiple)
        maps = self.body(image)
        levels = self.fpn(OrderedDict((str(number), maps[place]) for number, place in enumerate(self.places)))
        return OrderedDict((str(number), level) for number, level in enumerate(levels.values()))


class TimmDetector(KeepsTimm, Detector):
    """A `Detector` whose backbone is a `TimmPyramid`; its options and answers are those of `Detector`."""

    kept: ClassVar[str] = "model.backbone.body.model"

    @property
    def expects(self) -> Expected | None:
        """See `TimmEncoder.expects`; a detector's mean and deviation are its own options."""
        expected: Expected | None = self.model.backbone.body.expects
        return expected
