"""HRNetV2 + OCR: each pixel attends to one feature vector per class, averaged over the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.networks.blocks import conv_bn_relu, require_counts, require_image, require_number, training_heads
from dvsn.networks.hrnet import HighResolutionTrunk
from dvsn.networks.hrnetv2 import mix_and_classify
from dvsn.networks.initialise import small_normal
from dvsn.types import SegmentationOutput


class HRNetV2OCR(HighResolutionTrunk):
    """HRNetV2 with object-contextual representations.

    Input: (N, 3, H, W) normalised RGB of any size. Output: `logits` (N, classes, H/4, W/4), sides rounded up;
    with `heads` (default: in training) also `auxiliary`, the logits of the soft regions, of the same shape. The
    regions are part of the answer, so they are computed always and nothing is left out of a network for use.

    Yuan, Chen and Wang, 2020, arXiv:1909.11065, section 3.2, as released on HRNetV2-W48 (`align_corners` True
    in each of its recipes). The release lists the auxiliary logits first and has them at weight 0.4. On PASCAL-Context and
    COCO-Stuff every module that the trunk lacks learns ten times faster, not just `classifier`. These modules
    keep the framework's initial values. `adopt` takes the weights of an `HRNetV2`.
    """

    response: ClassVar[str] = "pixels"
    stride = 4
    classifier: tuple[str, ...] = ("cls_head", "aux_head.3")
    training_heads = staticmethod(training_heads(1))

    def __init__(
        self,
        *,
        classes: int,
        align_corners: bool = True,
        channels: int = 512,
        key_channels: int = 256,
        dropout: float = 0.05,
        **trunk: Any,
    ) -> None:
        super().__init__(align_corners=align_corners, **trunk)
        require_counts(self, classes=classes, channels=channels, key_channels=key_channels)
        require_number(self, "dropout", dropout, least=0.0, most=1.0)
        small_normal(self)  # the trunk, which is all there is yet
        joined = sum(self.widths)
        self.aux_head = mix_and_classify(joined, classes)
        self.conv3x3_ocr = conv_bn_relu(joined, channels, 3, bias=True)
        self.ocr_distri_head = Distribution(channels, key_channels, dropout)
        self.cls_head = nn.Conv2d(channels, classes, 1)
        self.set_momentum()

    def forward(self, image: Tensor, *, heads: bool | None = None) -> SegmentationOutput:
        require_image(self, image, channels=3, multiple=1, minimum=1)
        joined = self.joined(image)  # (N, 15 width, h, w)
        regions = self.aux_head(joined)  # (N, classes, h, w)
        features = self.conv3x3_ocr(joined)  # (N, channels, h, w)
        logits = self.cls_head(self.ocr_distri_head(features, gather(features, regions)))
        wanted = self.training if heads is None else heads
        return SegmentationOutput(logits, (regions,) if wanted else ())

    @staticmethod
    def adopt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of an `HRNetV2` under this network's names: its head becomes that of the soft regions.

        It is the release's way to start. What they lack, the rest of the heads, keeps its initial values.
        """
        old, new = "last_layer.", "aux_head."
        return {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in state.items()}


def gather(features: Tensor, regions: Tensor) -> Tensor:
    """One vector per class: features (N, C, h, w) averaged with weights from regions (N, K, h, w) -> (N, C, K, 1).

    The weights of a class are a soft-max over the pixels, not over the classes.
    """
    weights = regions.flatten(2).softmax(dim=2)  # (N, K, h w)
    return torch.matmul(features.flatten(2), weights.transpose(1, 2)).unsqueeze(3)


class Distribution(nn.Module):
    """Attention to the classes, joined with the features: (N, C, h, w) and (N, C, K, 1) -> (N, C, h, w)."""

    def __init__(self, channels: int, key_channels: int, dropout: float) -> None:
        super().__init__()
        self.object_context_block = ObjectContext(channels, key_channels)
        self.conv_bn_dropout = nn.Sequential(*conv_norm(2 * channels, channels), nn.Dropout2d(dropout))

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        context = self.object_context_block(features, classes)
        mixed: Tensor = self.conv_bn_dropout(torch.cat([context, features], dim=1))
        return mixed


class ObjectContext(nn.Module):
    """Attention with pixels as queries and the K classes as keys and values."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.f_pixel = nn.Sequential(
            *conv_norm(channels, key_channels), *conv_norm(key_channels, key_channels)
        )
        self.f_object = nn.Sequential(
            *conv_norm(channels, key_channels), *conv_norm(key_channels, key_channels)
        )
        self.f_down = nn.Sequential(*conv_norm(channels, key_channels))
        self.f_up = nn.Sequential(*conv_norm(key_channels, channels))

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C, K, 1) -> (N, C, h, w)."""
        query, key, value = (
            x.flatten(2).transpose(1, 2)  # (N, h w or K, key_channels)
            for x in (self.f_pixel(features), self.f_object(classes), self.f_down(classes))
        )
        context = F.scaled_dot_product_attention(query, key, value)  # scores times key_channels^-0.5
        context = context.transpose(1, 2).unflatten(2, features.shape[-2:])
        answer: Tensor = self.f_up(context)
        return answer


def conv_norm(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    """1x1 convolution without bias; batch norm and ReLU as a second layer of their own."""
    norm = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
    return nn.Conv2d(inputs, outputs, 1, bias=False), norm
