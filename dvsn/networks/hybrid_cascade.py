"""Hybrid Task Cascade: boxes and masks of a cascade in turns, with what a picture's stuff tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import RoIAlign

from dvsn.errors import ConfigError
from dvsn.networks.cascade_rcnn import MASK_CHANNELS, Boxes, CascadeHeads, Samples, Sizes, Targets
from dvsn.types import Terms

IGNORED = 255
SEMANTIC_LEVEL = 1
"""The level whose size the semantic branch works at: stride 8."""
SEMANTIC = "semantic"
"""The name of its features among the levels, which the poolings of the levels do not read."""


class HybridHeads(CascadeHeads):
    """The heads of Hybrid Task Cascade in the place of a model's `roi_heads`.

    Chen et al., 2019, arXiv:1901.07518. Beside Cascade Mask R-CNN:

    - interleaved: the mask head of a stage is trained on the boxes which the stage has corrected, sampled anew;
    - mask information flow: a mask head reads, beside its own pooled features, those of the head before it (their last map
      before the upsampling) through a 1x1 convolution. Gradients reach all the heads before;
    - with `semantic_classes` a semantic branch: what it makes of the whole picture is pooled as the levels are, and added to
      the features of boxes and masks. Its term `loss_semantic`, times `semantic_weight`, is the cross-entropy where the
      targets have labels, `stuff` (H, W) uint8 with 255 for none; 0 where no picture has any. Null: no such branch.

    `rectified`: as in mmdetection, whose 1x1 convolutions have a ReLU, but for that of the classes of stuff; whose branch
    resizes levels with their corners aligned, before their convolution; and whose pooling of it is `aligned`.
    """

    def __init__(
        self,
        plain: Any,
        *,
        classes: int,
        channels: int,
        levels: int,
        semantic_classes: int | None = None,
        semantic_weight: float = 0.2,
        rectified: bool = False,
        **stages: Any,
    ) -> None:
        super().__init__(plain, classes=classes, channels=channels, **stages)
        self.flows = nn.ModuleList(nn.Conv2d(MASK_CHANNELS, channels, 1) for _ in range(len(self.stages) - 1))
        self.semantic_weight, self.rectified = semantic_weight, rectified
        self.semantic: SemanticBranch | None = None
        if semantic_classes is not None:
            self.semantic = SemanticBranch(channels, levels, semantic_classes, rectified=rectified)
            side = plain.mask_roi_pool.output_size[0]
            self.thinned = side // plain.box_roi_pool.output_size[0]  # boxes have squares of half the side
            self.semantic_pool = RoIAlign(
                side,
                0.5 ** (2 + SEMANTIC_LEVEL),
                plain.mask_roi_pool.sampling_ratio,
                aligned=rectified,
            )

    def forward(
        self, features: dict[str, Tensor], proposals: Boxes, sizes: Sizes, targets: Targets | None = None
    ) -> tuple[list[dict[str, Tensor]], Terms]:
        if self.semantic is None:
            return super().forward(features, proposals, sizes, targets)
        logits, embedded = self.semantic(list(features.values()))
        found, terms = super().forward({**features, SEMANTIC: embedded}, proposals, sizes, targets)
        if self.training:
            assert targets is not None
            loss = semantic_loss(logits, stuff_maps(targets, sizes, logits))
            terms["loss_semantic"] = self.semantic_weight * loss
        return found, terms

    def mask_samples(self, stage: Any, sampled: Samples, moved: Boxes, targets: Targets) -> Samples:
        boxes, matched, labels, _ = stage.select_training_samples(moved, targets)
        return boxes, matched, labels

    def pooled(self, features: dict[str, Tensor], boxes: Boxes, sizes: Sizes) -> Tensor:
        squares = super().pooled(features, boxes, sizes)
        if SEMANTIC not in features:
            return squares
        around = self.semantic_pool(features[SEMANTIC], boxes)
        return squares + F.avg_pool2d(around, self.thinned)

    def mask_logits(
        self, features: dict[str, Tensor], boxes: Boxes, sizes: Sizes, *, upto: int
    ) -> list[Tensor]:
        first: Any = self.stages[0]
        pooled = first.mask_roi_pool(features, boxes, sizes)
        if SEMANTIC in features:
            pooled = pooled + self.semantic_pool(features[SEMANTIC], boxes)
        read: list[Tensor] = []
        asked: list[Any] = list(self.stages)[:upto]
        for stage, flow in zip(asked, [None, *self.flows][:upto], strict=True):
            given = pooled if flow is None else pooled + self.flowing(flow(read[-1]))
            read.append(stage.mask_head(given))
        start = upto - 1 if self.training else 0
        return [stage.mask_predictor(x) for stage, x in zip(asked[start:], read[start:], strict=True)]

    def flowing(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.rectified else x


class SemanticBranch(nn.Module):
    """The levels of a pyramid as one map of stride 8, its classes and what it tells the heads.

    In: levels, finest first, (N, `channels`, H/s, W/s), s = 4, 8, 16, ... Out: logits (N, classes, H/8, W/8), and features
    (N, `channels`, H/8, W/8). Every level goes through a 1x1 convolution and is resized; the sum goes through four 3x3
    convolutions with ReLUs, and two 1x1 convolutions read it (Chen et al., 2019, figure 4). `rectified`: see `HybridHeads`.
    """

    def __init__(self, channels: int, levels: int, classes: int, *, rectified: bool = False) -> None:
        super().__init__()
        self.rectified = rectified
        if classes < 2:
            raise ConfigError(f"network.semantic_classes: found {classes}, expected 2 or more, or null.")
        self.laterals = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(levels))
        self.convs = nn.Sequential(
            *(layer for _ in range(4) for layer in (nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()))
        )
        self.logits = nn.Conv2d(channels, classes, 1)
        self.embedding = nn.Conv2d(channels, channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.embedding.weight, std=0.001)  # the heads start with hardly anything added

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        size = levels[SEMANTIC_LEVEL].shape[-2:]
        pairs = list(zip(self.laterals, levels, strict=True))
        if self.rectified:
            read = [F.relu(lateral(enlarged(level, size, aligned=True))) for lateral, level in pairs]
        else:
            read = [enlarged(lateral(level), size, aligned=False) for lateral, level in pairs]
        x = self.convs(torch.stack(read).sum(dim=0))
        told = self.embedding(x)
        return self.logits(x).float(), (F.relu(told) if self.rectified else told).float()


def enlarged(level: Tensor, size: Sequence[int], *, aligned: bool) -> Tensor:
    """A level (N, C, h, w) at `size`, bilinear; as it is where it has that."""
    if level.shape[-2:] == torch.Size(size):
        return level
    return F.interpolate(level, size=tuple(size), mode="bilinear", align_corners=aligned)


def stuff_maps(targets: Targets, sizes: Sizes, logits: Tensor) -> Tensor:
    """The labels of the pictures at the places of logits (N, classes, h, w): (N, h, w) int64, 255 where there is none."""
    height, width = logits.shape[-2:]
    maps = torch.full((len(targets), height, width), IGNORED, dtype=torch.long, device=logits.device)
    stride = 2 ** (2 + SEMANTIC_LEVEL)
    for number, (target, size) in enumerate(zip(targets, sizes, strict=True)):
        if "stuff" in target:
            rows, columns = (max(1, side // stride) for side in size)
            plane = target["stuff"][None, None].float()
            resized = F.interpolate(plane, size=(rows, columns), mode="nearest-exact")
            maps[number, :rows, :columns] = resized[0, 0].long()
    return maps


def semantic_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled places; 0, of which gradients are 0, where there is none."""
    total = F.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
    return total / (wanted != IGNORED).sum().clamp(min=1)
