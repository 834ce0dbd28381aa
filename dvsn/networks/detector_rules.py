"""What mmdetection does otherwise than torchvision with the same weights: anchors without rounding, and finer pooling."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, roi_align

Rules = Literal["torchvision", "mmdetection"]


class ExactAnchors(AnchorGenerator):
    """torchvision's anchors, whose sides it rounds to whole pixels, unrounded."""

    def generate_anchors(
        self, scales: Any, aspect_ratios: Any, dtype: torch.dtype = torch.float32, device: Any = "cpu"
    ) -> Tensor:
        sizes = torch.as_tensor(scales, dtype=dtype, device=device)
        heights = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        halves = [(side[:, None] * sizes[None]).flatten() / 2 for side in (1 / heights, heights)]
        return torch.stack([-halves[0], -halves[1], *halves], dim=1)


class AlignedPool(MultiScaleRoIAlign):
    """Squares of boxes from the level of their size, sampled as mmdetection 2 does: half a pixel further to the upper left
    (`aligned`), at as many places a cell as it has pixels."""

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        levels = [x[name] for name in self.featmap_names]
        owners = [torch.full_like(each[:, :1], number) for number, each in enumerate(boxes)]
        regions = torch.cat([torch.cat(pair, dim=1) for pair in zip(owners, boxes, strict=True)])
        assert self.map_levels is not None and self.scales is not None
        wanted = self.map_levels(boxes)
        first = levels[0]
        found = first.new_zeros(len(regions), first.shape[1], *self.output_size)
        for number, (level, scale) in enumerate(zip(levels, self.scales, strict=True)):
            (inside,) = torch.where(wanted == number)
            squares = roi_align(level, regions[inside], self.output_size, scale, 0, aligned=True)  # type: ignore[arg-type]
            found = found.index_put((inside,), squares.to(found.dtype))
        return found


def parts(
    rules: Rules, anchors: tuple[tuple[int, ...], ...], ratios: tuple[tuple[float, ...], ...], *, masks: bool
) -> dict[str, Any]:
    """Options of torchvision's Faster R-CNN or Mask R-CNN that follow mmdetection; none where torchvision is followed."""
    if rules == "torchvision":
        return {}
    names = ["0", "1", "2", "3"]
    pools = {"box": 7, **({"mask": 14} if masks else {})}
    return {
        "rpn_anchor_generator": ExactAnchors(anchors, ratios),
        **{f"{kind}_roi_pool": AlignedPool(names, side, 0) for kind, side in pools.items()},
    }
