"""CenterNet, keypoint triplets: two corners that belong together, and a centre between them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.networks.blocks import conv_bn, conv_bn_relu
from dvsn.networks.centernet import (
    STRIDE,
    PointDetector,
    centre_focal_loss,
    draw_bells,
    highest,
    inside_picture,
    mean_of_levels,
    pixels_of,
    start_heatmap,
    two_convolutions,
)
from dvsn.types import Terms

KEYPOINTS = 70
"""How many of each kind an answer is made of."""
NEAR = 0.5
"""How much the embeddings of two corners of an object may differ."""
LARGE = 150
"""The side in pixels from which on a box's central region is a fifth of it, not a third."""
FARTHEST = 1024
"""The longest side of a map that a trace of the corner poolings reaches over."""


class Triplets(NamedTuple):
    """What the heads say of one kind of keypoint: logits (N, classes - 1, h, w), offsets (N, 2, h, w), and of corners also
    embeddings (N, 1, h, w)."""

    logits: Tensor
    offset: Tensor
    embedding: Tensor | None


class TripletNet(PointDetector):
    """CenterNet with keypoint triplets.

    Duan et al., 2019, arXiv:1904.08189 (not the objects as points of Zhou et al., 2019, arXiv:1904.07850). Heatmaps of top
    left corners, bottom right corners and centres; cascade corner pooling stands before the corners, centre pooling before
    the centres. Terms: `loss_corners` and `loss_centres`, focal; `loss_pull` and `loss_push` of the corners' embeddings,
    times 0.1; `loss_offset`, smooth L1.

    An answer pairs the 70 best corners of each kind that are of one class, in order, and alike in their embeddings, keeps
    pairs with a centre of their class, of the 70 best, in their central region, and scores them with the mean of the three.

    The options are those of `CenterNet`. Known differences, beside the mean of the levels in place of an hourglass: `hidden`
    channels where the paper has 128 and 256; hard suppression at `nms_thresh`, where it has Soft-NMS.
    """

    def __init__(
        self,
        backbone: Any,
        classes: int,
        *,
        hidden: int = 64,
        nms_thresh: float = 0.5,
        **options: Any,
    ) -> None:
        head = TripletHead(backbone.out_channels, classes - 1, hidden)
        super().__init__(backbone, head, nms_thresh=nms_thresh, **options)

    def losses(self, maps: list[tuple[Tensor, ...]], targets: list[dict[str, Tensor]]) -> Terms:
        return triplet_losses([Triplets(*each) for each in maps], targets, overlap=self.overlap)

    def objects(
        self, maps: list[tuple[Tensor, ...]], place: int, sides: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        first, last, centre = (found_in(Triplets(*each), place, sides) for each in maps)
        return triplets(first, last, centre)


# Heads -----------------------------------------------------------------------------------------------


class TripletHead(nn.Module):
    """Levels (N, `channels`, h, w), the finest first -> maps of top left corners, bottom right corners and centres."""

    def __init__(self, channels: int, classes: int, hidden: int) -> None:
        super().__init__()
        pools = (CornerPool(channels, hidden, ahead=True), CornerPool(channels, hidden, ahead=False))
        self.pools = nn.ModuleList([*pools, CentrePool(channels, hidden)])
        self.heatmaps = nn.ModuleList(two_convolutions(hidden, hidden, classes) for _ in self.pools)
        self.offsets = nn.ModuleList(two_convolutions(hidden, hidden, 2) for _ in self.pools)
        self.embeddings = nn.ModuleList(two_convolutions(hidden, hidden, 1) for _ in pools)
        for each in self.heatmaps:
            start_heatmap(each)

    def forward(self, levels: OrderedDict[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """For each kind what `Triplets` holds."""
        x = mean_of_levels(levels)
        found = []
        for number, pool in enumerate(self.pools):
            pooled = pool(x)
            embedding = self.embeddings[number](pooled) if number < len(self.embeddings) else None
            found.append((self.heatmaps[number](pooled), self.offsets[number](pooled), embedding))
        return found


class CornerPool(nn.Module):
    """Cascade corner pooling: (N, channels, h, w) -> (N, hidden, h, w).

    With `ahead` of top left corners: from each pixel the maximum below it, of maps to which the maximum to the right is
    added, plus the same with the two in turn. Else of bottom right corners: above and to the left (Duan et al., figure 5).
    """

    def __init__(self, channels: int, hidden: int, *, ahead: bool) -> None:
        super().__init__()
        self.ahead = ahead
        self.looks, self.bounds = (
            nn.ModuleList(conv_bn_relu(channels, hidden, 3) for _ in range(2)) for _ in range(2)
        )
        self.joins = nn.ModuleList(conv_bn_relu(hidden, hidden, 3) for _ in range(2))
        self.out = conv_bn(hidden, hidden, 3)
        self.around = conv_bn(channels, hidden, 1)
        self.last = conv_bn_relu(hidden, hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        for number, (look, bound, join) in enumerate(zip(self.looks, self.bounds, self.joins, strict=True)):
            along, across = (2, 3) if number == 0 else (3, 2)
            inside = running_maximum(look(x), across, ahead=self.ahead)
            pooled.append(running_maximum(join(bound(x) + inside), along, ahead=self.ahead))
        return self.last(F.relu(self.out(pooled[0] + pooled[1]) + self.around(x)))


class CentrePool(nn.Module):
    """Centre pooling: (N, channels, h, w) -> (N, hidden, h, w); each pixel has the maximum of its column plus that of its
    row, of two maps (Duan et al., figure 5)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.columns, self.rows = conv_bn_relu(channels, hidden, 3), conv_bn_relu(channels, hidden, 3)
        self.out = conv_bn(hidden, hidden, 3)
        self.around = conv_bn(channels, hidden, 1)
        self.last = conv_bn_relu(hidden, hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        crossed = self.columns(x).amax(dim=2, keepdim=True) + self.rows(x).amax(dim=3, keepdim=True)
        return self.last(F.relu(self.out(crossed) + self.around(x)))


def running_maximum(x: Tensor, dim: int, *, ahead: bool) -> Tensor:
    """Of each value of (N, C, h, w) and all behind it along `dim`, 2 or 3; with `ahead` all that follow."""
    if not torch.jit.is_tracing():
        flipped = x.flip(dim) if ahead else x
        best = flipped.cummax(dim).values
        return best.flip(dim) if ahead else best
    step = 1
    while step < FARTHEST:  # ONNX has no cummax: each step doubles how far a value has looked
        pad = [0, 0, 0, 0]
        pad[2 * (3 - dim) + ahead] = step
        wide = F.pad(x, pad, value=-1e4)
        x = torch.maximum(x, wide.narrow(dim, step if ahead else 0, x.shape[dim]))
        step *= 2
    return x


# Losses ----------------------------------------------------------------------------------------------


def triplet_losses(maps: list[Triplets], targets: list[dict[str, Tensor]], *, overlap: float) -> Terms:
    """The terms of a batch; `boxes` of the targets are in pixels of the resized pictures."""
    sides = (maps[0].logits.shape[-2], maps[0].logits.shape[-1])
    count = max(1, sum(len(target["boxes"]) for target in targets))
    focal, aside, ends = [], [], []
    for number, each in enumerate(maps):
        wanted, apart, embedded = [], each.offset.sum() * 0, []
        for place, target in enumerate(targets):
            boxes = target["boxes"].float() / STRIDE
            points = (boxes[:, :2], boxes[:, 2:], (boxes[:, :2] + boxes[:, 2:]) / 2)[number]
            pixels = pixels_of(points, sides)
            x, y = pixels.unbind(dim=1)
            wanted.append(draw_bells(pixels, boxes, target["labels"], sides, each.logits.shape[1], overlap))
            found = each.offset[place, :, y, x].T
            apart = apart + F.smooth_l1_loss(found, points - pixels, reduction="sum")
            if each.embedding is not None:
                embedded.append(each.embedding[place, 0, y, x])
        focal.append(centre_focal_loss(each.logits, torch.stack(wanted)) / count)
        aside.append(apart / count)
        ends.append(embedded)
    pull, push = embedding_losses(ends[0], ends[1])
    return {
        "loss_corners": focal[0] + focal[1],
        "loss_centres": focal[2],
        "loss_pull": 0.1 * pull,
        "loss_push": 0.1 * push,
        "loss_offset": aside[0] + aside[1] + aside[2],
    }


def embedding_losses(first: list[Tensor], last: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of the corners' embeddings (n,) of each picture, how far the two of an object are apart, and how much the means of two
    objects are nearer than 1; means over the pictures' objects and pairs (Law and Deng, 2018, equations 4 and 5)."""
    total = torch.cat([*first, *last]).sum() * 0
    pull, push = total, total
    for one, other in zip(first, last, strict=True):
        mean, count = (one + other) / 2, len(one)
        if count:
            pull = pull + ((one - mean) ** 2 + (other - mean) ** 2).sum() / count
        if count > 1:
            near = F.relu(1 - (mean[:, None] - mean[None]).abs())
            push = push + (near.sum() - near.diagonal().sum()) / (count * (count - 1))
    return pull / len(first), push / len(first)


# Answers ---------------------------------------------------------------------------------------------


class Points(NamedTuple):
    """Keypoints of a picture, the best first: scores, labels from 1, places (n, 2) in pixels of the picture, embeddings."""

    scores: Tensor
    labels: Tensor
    places: Tensor
    embedding: Tensor | None


def found_in(maps: Triplets, place: int, sides: tuple[int, int]) -> Points:
    """The best keypoints of one kind of a picture of a batch, in pixels of the resized picture."""
    heatmap, offset = inside_picture((maps.logits[place].sigmoid(), maps.offset[place]), sides)
    scores, labels, x, y = highest(heatmap, KEYPOINTS)
    places = STRIDE * (torch.stack([x, y], dim=1) + offset[:, y, x].T)
    embedding = None if maps.embedding is None else maps.embedding[place, 0][y, x]
    return Points(scores, labels, places, embedding)


def triplets(first: Points, last: Points, centre: Points) -> tuple[Tensor, Tensor, Tensor]:
    """Top left and bottom right corners that belong together, with a centre between them: scores, labels, boxes (n, 4).

    The central region of a box is the middle third of its sides, of boxes of 150 pixels and more the middle fifth
    (Duan et al., equation 1).
    """
    assert first.embedding is not None and last.embedding is not None
    count, others = first.scores.shape[0], last.scores.shape[0]
    boxes = torch.cat(
        [first.places[:, None].expand(-1, others, -1), last.places[None].expand(count, -1, -1)], dim=-1
    ).reshape(-1, 4)
    alike = (first.labels[:, None] == last.labels[None]) & (
        (first.embedding[:, None] - last.embedding[None]).abs() <= NEAR
    )
    lengths = boxes[:, 2:] - boxes[:, :2]
    pairs = alike.reshape(-1) & (lengths > 0).all(dim=1)
    boxes, lengths = boxes[pairs], lengths[pairs]
    labels = first.labels[:, None].expand(-1, others).reshape(-1)[pairs]
    corners = (first.scores[:, None] + last.scores[None]).reshape(-1)[pairs]
    parts = torch.where(lengths.amax(dim=1) < LARGE, 3.0, 5.0)[:, None]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    apart = (centre.places[None] - middle[:, None]).abs()  # (pairs, centres, 2)
    within = (apart <= (lengths / (2 * parts))[:, None]).all(dim=-1) & (
        labels[:, None] == centre.labels[None]
    )
    between = (within * centre.scores[None]).amax(dim=1)
    kept = within.any(dim=1)
    return ((corners + between) / 3)[kept], labels[kept], boxes[kept]
