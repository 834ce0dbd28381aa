"""How detectors resize a picture, which an exported file must do to the pixel as the network does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class Resizing(GeneralizedRCNNTransform):
    """torchvision's own, whose traced form finds the same sides.

    A side becomes the whole part of side x scale. torchvision works it out in float64, but traced in float32, where 45x123
    within 48 and 64 becomes 23x63 instead of 23x64: boxes of an ONNX file then lay tens of pixels off.
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        if not torchvision._is_tracing() or self.training or self.fixed_size is not None:
            return super().resize(image, target)
        # With one axis each: of numbers and tensors without any the tracing exporter makes float32.
        sides = torch._shape_as_tensor(image)[-2:].to(torch.float64)
        shorter, longer = torch.tensor([[self.min_size[-1]], [self.max_size]], dtype=torch.float64)
        scale = torch.minimum(shorter / sides.amin(0, keepdim=True), longer / sides.amax(0, keepdim=True))
        height, width = (sides * scale).floor().long().unbind()
        size: list[int] = [height, width]  # type: ignore[list-item] # of tensors, so that the trace keeps them
        return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0], target
