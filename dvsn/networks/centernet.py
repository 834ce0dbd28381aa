"""CenterNet, objects as points: a heatmap of centres for each class, and at each centre a size."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import batched_nms, clip_boxes_to_image

from dvsn.types import Terms

STRIDE = 4
PRIOR = 0.1
"""The share that a heatmap starts at."""


class CenterNet(nn.Module):
    """CenterNet on the levels of a pyramid, called as torchvision's detectors are.

    Zhou, Wang and Kraehenbuehl, 2019, arXiv:1904.07850 (not the triplets of Duan et al., 2019, arXiv:1904.08189). An object
    is the pixel of stride 4 in which the centre of its box lies. Three heads of a 3x3 and a 1x1 convolution say for each
    pixel how much it is a centre of each class, the box's width and height, and where in the pixel the centre is. Terms:
    `loss_heatmap`, the focal loss (equation 1); `loss_size`, times 0.1, and `loss_offset`, mean absolute differences at
    the centres (equations 2 and 3). All are over the number of objects. An answer's objects are the `detections` highest
    values that are the greatest of their 3x3 (section 4).

    - `backbone` gives levels of `out_channels`, the finest first and of stride 4. Known difference: the heads read the mean
      of all of them, resized to the finest, where the paper's networks have one map.
    - `classes` count the background, which has no map; `hidden` channels are between the two convolutions.
    - `score_thresh`: objects of a lower score are left out. `nms_thresh`: besides, those that overlap a better one of
      their class by more; None: the greatest of 3x3 is all.
    - `overlap`: see `radius_of`. Sizes are in pixels of stride 4, as the authors' code has them; the paper says of the
      picture, with the same weight of 0.1.
    """

    def __init__(
        self,
        backbone: Any,
        classes: int,
        *,
        min_size: int | tuple[int, ...] = 512,
        max_size: int = 1333,
        image_mean: list[float],
        image_std: list[float],
        size_divisible: int = 32,
        score_thresh: float = 0.0,
        nms_thresh: float | None = None,
        detections_per_img: int = 100,
        hidden: int = 64,
        overlap: float = 0.3,
    ) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(
            min_size,
            max_size,
            image_mean,
            image_std,
            size_divisible=size_divisible,  # type: ignore[arg-type]
        )
        self.backbone = backbone
        self.head = CentreHead(backbone.out_channels, classes - 1, hidden)
        self.score_thresh, self.nms_thresh = score_thresh, nms_thresh
        self.detections_per_img, self.overlap = detections_per_img, overlap

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Pictures (3, H, W) in [0, 1] -> in training the terms, else boxes, labels and scores of each."""
        given = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, targets = self.transform(images, targets)
        logits, size, offset = self.head(self.backbone(batch.tensors))
        if self.training:
            assert targets is not None
            return centre_losses(logits, size, offset, targets, overlap=self.overlap)
        found = [
            self.decode(heatmap, lengths, places, sides)
            for heatmap, lengths, places, sides in zip(
                logits.sigmoid(), size, offset, batch.image_sizes, strict=True
            )
        ]
        return self.transform.postprocess(found, batch.image_sizes, given)

    def decode(
        self, heatmap: Tensor, size: Tensor, offset: Tensor, sides: tuple[int, int]
    ) -> dict[str, Tensor]:
        """The objects of a picture of `sides` (H, W), from maps (classes - 1, h, w), (2, h, w), (2, h, w)."""
        scores, labels, boxes = peaks(heatmap, size, offset, self.detections_per_img)
        boxes = clip_boxes_to_image(boxes, sides)
        lengths = boxes[:, 2:] - boxes[:, :2]
        kept = (scores > self.score_thresh) & (lengths > 0).all(
            dim=1
        )  # what lies in the padding has no area left
        boxes, labels, scores = boxes[kept], labels[kept], scores[kept]
        if self.nms_thresh is not None:
            best = batched_nms(boxes, scores, labels, self.nms_thresh)
            boxes, labels, scores = boxes[best], labels[best], scores[best]
        return {"boxes": boxes, "labels": labels, "scores": scores}


class CentreHead(nn.Module):
    """Levels (N, `channels`, h, w), the finest first -> logits (N, `classes`, h, w), sizes and offsets (N, 2, h, w)."""

    def __init__(self, channels: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.heatmap, self.size, self.offset = (
            nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, count, 1))
            for count in (classes, 2, 2)
        )
        for head, start in (
            (self.heatmap, math.log(PRIOR / (1 - PRIOR))),
            (self.size, 0.0),
            (self.offset, 0.0),
        ):
            last: Any = head[2]
            nn.init.normal_(last.weight, std=0.001)
            nn.init.constant_(last.bias, start)

    def forward(self, levels: OrderedDict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        first, *others = levels.values()
        resized = [
            F.interpolate(each, size=first.shape[-2:], mode="bilinear", align_corners=False)
            for each in others
        ]
        x = torch.stack([first, *resized]).mean(dim=0)
        return self.heatmap(x), self.size(x), self.offset(x)


# Targets and losses ----------------------------------------------------------------------------------


def radius_of(width: Tensor, height: Tensor, overlap: float) -> Tensor:
    """How far two opposite corners of a box may each be moved, on either axis, so that its IoU with the box is still
    `overlap`; the least of three ways: both inwards, both outwards, one inwards and one outwards.

    Law and Deng, 2018, arXiv:1808.01244, section 3.2, which has 0.3. The authors' code and CenterNet's say 0.7, but divide
    the roots by 2 in place of twice the leading coefficient: of a square of side s it makes 0.27 s, where 0.3 makes
    0.23 s, and 0.7 0.08 s.
    """
    total, area = width + height, width * height
    inwards = (total - (total**2 - 4 * (1 - overlap) * area).sqrt()) / 4
    outwards = (-total + (total**2 + 4 * (1 / overlap - 1) * area).sqrt()) / 4
    shifted = (total - (total**2 - 4 * area * (1 - overlap) / (1 + overlap)).sqrt()) / 2
    return torch.stack([inwards, outwards, shifted]).amin(dim=0)


def draw_centres(
    boxes: Tensor, labels: Tensor, size: tuple[int, int], classes: int, overlap: float
) -> Tensor:
    """(classes, h, w): at each centre 1, around it a bell, of several in a place the highest.

    `boxes` (n, 4) in pixels of the map, `labels` (n,) from 1. The bell's deviation is a sixth of 2 r + 1, r being the whole
    part of `radius_of`, as the authors' code has it.
    """
    maps = boxes.new_zeros(classes, *size)
    if not len(boxes):
        return maps
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    deviation = (2 * radius_of(width.ceil(), height.ceil(), overlap).floor() + 1) / 6
    centre = centre_pixels(boxes, size)
    rows, columns = (torch.arange(side, device=boxes.device) for side in size)
    down = (rows[None] - centre[:, 1, None]) ** 2  # (n, h)
    across = (columns[None] - centre[:, 0, None]) ** 2  # (n, w)
    for number, label in enumerate((labels - 1).tolist()):
        apart = down[number][:, None] + across[number][None]
        bell = torch.exp(-apart / (2 * deviation[number] ** 2))
        maps[label] = torch.maximum(maps[label], bell)
    return maps


def centre_pixels(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels (n, 2) int64, x and y, of a map (h, w) in which the centres of boxes lie."""
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2).floor().long()
    limit = centre.new_tensor([size[1] - 1, size[0] - 1])
    return torch.minimum(centre.clamp(min=0), limit)


def centre_focal_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Equation 1, summed, not yet over the number of objects: alpha 2, beta 4; `wanted` is 1 at centres."""
    share = logits.sigmoid()
    found = F.logsigmoid(logits) * (1 - share) ** 2 * (wanted == 1)
    other = F.logsigmoid(-logits) * share**2 * (1 - wanted) ** 4 * (wanted < 1)
    return -(found + other).sum()


def centre_losses(
    logits: Tensor, size: Tensor, offset: Tensor, targets: list[dict[str, Tensor]], *, overlap: float
) -> Terms:
    """The terms of a batch; `boxes` of the targets are in pixels of the resized pictures."""
    sides = (logits.shape[-2], logits.shape[-1])
    count = max(1, sum(len(target["boxes"]) for target in targets))
    maps, apart, aside = [], size.sum() * 0, offset.sum() * 0
    for number, target in enumerate(targets):
        boxes = target["boxes"].float() / STRIDE
        maps.append(draw_centres(boxes, target["labels"], sides, logits.shape[1], overlap))
        x, y = centre_pixels(boxes, sides).unbind(dim=1)
        lengths, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
        apart = apart + (size[number, :, y, x].T - lengths).abs().sum()
        aside = aside + (offset[number, :, y, x].T - (centre - torch.stack([x, y], dim=1))).abs().sum()
    return {
        "loss_heatmap": centre_focal_loss(logits, torch.stack(maps)) / count,
        "loss_size": 0.1 * apart / count,
        "loss_offset": aside / count,
    }


# Answers ---------------------------------------------------------------------------------------------


def peaks(heatmap: Tensor, size: Tensor, offset: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` highest values that no neighbour exceeds: scores (n,), labels (n,) from 1, boxes (n, 4) in pixels of the
    resized picture, the best first."""
    highest = F.max_pool2d(heatmap[None], 3, stride=1, padding=1)[0]
    flat = (heatmap * (heatmap == highest)).flatten()
    scores, places = flat.topk(min(count, flat.shape[0]))
    columns, plane = heatmap.shape[2], heatmap.shape[1] * heatmap.shape[2]
    labels, inside = places // plane + 1, places % plane
    x, y = inside % columns, inside // columns
    centre = torch.stack([x, y], dim=1) + offset[:, y, x].T
    half = size[:, y, x].T.clamp(min=0) / 2
    return scores, labels, STRIDE * torch.cat([centre - half, centre + half], dim=1)
