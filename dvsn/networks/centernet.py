"""CenterNet, objects as points: a heatmap of centres for each class, and at each centre a size."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
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


class PointDetector(nn.Module):
    """Base of both CenterNets and of GFL: points on the levels of a pyramid, called as torchvision's detectors are.

    - `backbone` gives levels, the finest first; `head` reads them. Known difference of the CenterNets: their heads read the
      mean of all levels, resized to the finest of stride 4, where the papers' networks have one map.
    - `score_thresh`: objects of a lower score are left out. `nms_thresh`: besides, those that overlap a better one of
      their class by more; None: none, for a head whose `objects` are few and sorted.
    - `detections_per_img`: the most objects of an answer. `overlap`, of the CenterNets: see `radius_of`.
    """

    def __init__(
        self,
        backbone: Any,
        head: nn.Module,
        *,
        min_size: int | tuple[int, ...] = 512,
        max_size: int = 1333,
        image_mean: list[float],
        image_std: list[float],
        size_divisible: int = 32,
        score_thresh: float = 0.0,
        nms_thresh: float | None = None,
        detections_per_img: int = 100,
        overlap: float = 0.3,
    ) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(
            min_size,  # type: ignore[arg-type]
            max_size,
            image_mean,
            image_std,
            size_divisible=size_divisible,
        )
        self.backbone, self.head = backbone, head
        self.score_thresh, self.nms_thresh = score_thresh, nms_thresh
        self.detections_per_img, self.overlap = detections_per_img, overlap

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Pictures (3, H, W) in [0, 1] -> in training the terms, else boxes, labels and scores of each, the best first."""
        given = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, targets = self.transform(images, targets)
        maps = self.head(self.backbone(batch.tensors))
        if self.training:
            assert targets is not None
            return self.losses(maps, targets)
        found = [
            self.decode(*self.objects(maps, place, sides), sides)
            for place, sides in enumerate(batch.image_sizes)
        ]
        return self.transform.postprocess(found, batch.image_sizes, given)

    def losses(self, maps: Any, targets: list[dict[str, Tensor]]) -> Terms:
        """The terms of what the head said of a batch; `boxes` of the targets are in pixels of the resized pictures."""
        raise NotImplementedError

    def objects(self, maps: Any, place: int, sides: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (n,), labels (n,) from 1 and boxes (n, 4), in pixels, of picture `place` of a batch, of `sides` (H, W)."""
        raise NotImplementedError

    def decode(
        self, scores: Tensor, labels: Tensor, boxes: Tensor, sides: tuple[int, int]
    ) -> dict[str, Tensor]:
        """What `objects` found in a picture, without what is too poor, empty or suppressed."""
        boxes = clip_boxes_to_image(boxes, sides)
        lengths = boxes[:, 2:] - boxes[:, :2]
        kept = (scores > self.score_thresh) & (lengths > 0).all(dim=1)
        boxes, labels, scores = boxes[kept], labels[kept], scores[kept]
        if self.nms_thresh is not None:
            best = batched_nms(boxes, scores, labels, self.nms_thresh)[: self.detections_per_img]
            boxes, labels, scores = boxes[best], labels[best], scores[best]
        return {"boxes": boxes, "labels": labels, "scores": scores}


class CenterNet(PointDetector):
    """CenterNet, objects as points.

    Zhou, Wang and Kraehenbuehl, 2019, arXiv:1904.07850 (not the triplets of Duan et al., 2019, arXiv:1904.08189). An object
    is the pixel of stride 4 in which the centre of its box lies. Three heads of a 3x3 and a 1x1 convolution say for each
    pixel how much it is a centre of each class, the box's width and height, and where in the pixel the centre is. Terms:
    `loss_heatmap`, the focal loss (equation 1); `loss_size`, times 0.1, and `loss_offset`, mean absolute differences at
    the centres (equations 2 and 3). All are over the number of objects. An answer's objects are the `detections_per_img`
    highest values that are the greatest of their 3x3 (section 4), without further suppression unless `nms_thresh` is set.

    `classes` count the background, which has no map; `hidden` channels are between the two convolutions. The other options
    are those of `PointDetector`. Sizes are in pixels of stride 4, as the authors' code has them; the paper says of the
    picture, with the same weight of 0.1.
    """

    def __init__(self, backbone: Any, classes: int, *, hidden: int = 64, **options: Any) -> None:
        super().__init__(backbone, CentreHead(backbone.out_channels, classes - 1, hidden), **options)

    def losses(self, maps: tuple[Tensor, Tensor, Tensor], targets: list[dict[str, Tensor]]) -> Terms:
        return centre_losses(*maps, targets, overlap=self.overlap)

    def objects(
        self, maps: tuple[Tensor, Tensor, Tensor], place: int, sides: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits, size, offset = inside_picture([each[place] for each in maps], sides)
        return peaks(logits.sigmoid(), size, offset, count=self.detections_per_img)


class CentreHead(nn.Module):
    """Levels (N, `channels`, h, w), the finest first -> logits (N, `classes`, h, w), sizes and offsets (N, 2, h, w)."""

    def __init__(self, channels: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.heatmap, self.size, self.offset = (
            two_convolutions(channels, hidden, count) for count in (classes, 2, 2)
        )
        start_heatmap(self.heatmap)
        for last in (self.size[2], self.offset[2]):
            nn.init.normal_(last.weight, std=0.001)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, levels: OrderedDict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x = mean_of_levels(levels)
        return self.heatmap(x), self.size(x), self.offset(x)


def two_convolutions(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, ReLU, 1x1 convolution: (N, inputs, h, w) -> (N, outputs, h, w)."""
    return nn.Sequential(nn.Conv2d(inputs, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, outputs, 1))


def start_heatmap(head: Any) -> None:
    """Let the last layer of a head say `PRIOR` nearly everywhere."""
    nn.init.normal_(head[-1].weight, std=0.001)
    nn.init.constant_(head[-1].bias, math.log(PRIOR / (1 - PRIOR)))


def mean_of_levels(levels: OrderedDict[str, Tensor]) -> Tensor:
    """Levels, the finest first, as one map of its size."""
    first, *others = levels.values()
    resized = [
        F.interpolate(each, size=first.shape[-2:], mode="bilinear", align_corners=False) for each in others
    ]
    return torch.stack([first, *resized]).mean(dim=0)


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


def draw_bells(
    places: Tensor, boxes: Tensor, labels: Tensor, size: tuple[int, int], classes: int, overlap: float
) -> Tensor:
    """(classes, h, w): at each place 1, around it a bell, of several in a pixel the highest.

    `places` (n, 2) int64, x and y, of `boxes` (n, 4) in pixels of the map, `labels` (n,) from 1. The bell's deviation is a
    sixth of 2 r + 1, r being the whole part of `radius_of` the box, as the authors' code has it.
    """
    maps = boxes.new_zeros(classes, *size)
    if not len(boxes):
        return maps
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    deviation = (2 * radius_of(width.ceil(), height.ceil(), overlap).floor() + 1) / 6
    rows, columns = (torch.arange(side, device=boxes.device) for side in size)
    down = (rows[None] - places[:, 1, None]) ** 2  # (n, h)
    across = (columns[None] - places[:, 0, None]) ** 2  # (n, w)
    for number in range(len(boxes)):
        apart = down[number][:, None] + across[number][None]
        bell = torch.exp(-apart / (2 * deviation[number] ** 2))
        own = labels[number : number + 1] - 1  # a tensor, whose value nobody waits for
        maps[own] = torch.maximum(maps[own], bell)
    return maps


def draw_centres(
    boxes: Tensor, labels: Tensor, size: tuple[int, int], classes: int, overlap: float
) -> Tensor:
    """`draw_bells` at the centres of the boxes."""
    return draw_bells(centre_pixels(boxes, size), boxes, labels, size, classes, overlap)


def centre_pixels(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels (n, 2) int64, x and y, of a map (h, w) in which the centres of boxes lie."""
    return pixels_of((boxes[:, :2] + boxes[:, 2:]) / 2, size)


def pixels_of(points: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels (n, 2) int64 of a map (h, w) in which points (n, 2) lie; the nearest of those outside."""
    found = points.floor().long()
    return torch.minimum(found.clamp(min=0), found.new_tensor([size[1] - 1, size[0] - 1]))


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


def inside_picture(maps: Sequence[Tensor], sides: tuple[int, int]) -> list[Tensor]:
    """Maps (C, h, w) without what lies in the padding of a picture of `sides` (H, W)."""
    rows, columns = ((side + STRIDE - 1) // STRIDE for side in sides)
    return [each[:, :rows, :columns] for each in maps]


def peaks(heatmap: Tensor, size: Tensor, offset: Tensor, *, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` highest of `highest`: scores (n,), labels (n,) from 1, boxes (n, 4) in pixels of the resized picture."""
    scores, labels, x, y = highest(heatmap, count)
    centre = torch.stack([x, y], dim=1) + offset[:, y, x].T
    half = size[:, y, x].T.clamp(min=0) / 2
    return scores, labels, STRIDE * torch.cat([centre - half, centre + half], dim=1)


def highest(heatmap: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The `count` highest values of (classes - 1, h, w) that no neighbour of their 3x3 exceeds, the best first: the values,
    labels from 1, and their pixels' x and y, each (n,)."""
    best = F.max_pool2d(heatmap[None], 3, stride=1, padding=1)[0]
    flat = (heatmap * (heatmap == best)).flatten()
    scores, places = flat.topk(min(count, flat.shape[0]))
    columns, plane = heatmap.shape[2], heatmap.shape[1] * heatmap.shape[2]
    inside = places % plane
    return scores, places // plane + 1, inside % columns, inside // columns
