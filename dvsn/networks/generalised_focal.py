"""Generalised focal loss: a detector of one stage that says of each edge of a box how likely every distance is."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import _topk_min
from torchvision.ops import box_iou, distance_box_iou, generalized_box_iou_loss

from dvsn.networks.centernet import PointDetector
from dvsn.types import Terms

FIRST_STRIDE = 8
SIDE = 8
"""A position's square, by which it is assigned, has so many times its level's stride as side."""
CANDIDATES = 9
"""Of each object in each level, from which its positions are taken."""
PRIOR = 0.01
LONGEST = 1000
"""Positions of a level that are decoded."""

Maps = tuple[list[Tensor], list[Tensor]]
"""Of each level logits of classes (N, classes, h, w), and of distances (N, 4 (bins + 1), h, w): left, top, right, bottom."""


class GeneralisedFocal(PointDetector):
    """A head on five levels of stride 8 to 128, called as torchvision's detectors are.

    Li et al., 2020, arXiv:2006.04388. At each position a score for each class, trained to be the IoU of the box there
    (`loss_quality`, equation 4 with beta 2), and for each edge of the box a distribution over `bins` + 1 distances in units
    of the stride, whose mean is the edge (`loss_distribution`, equation 6, times 0.25); `loss_box` is generalised IoU,
    times 2. Both of these are weighted by a position's highest score. Positions are assigned as ATSS does: `assign`. An
    answer has the 1,000 best positions of a level above `score_thresh`, suppressed by `nms_thresh`.

    Known difference: a position is the centre of its cell, where mmdetection takes its upper left corner.
    """

    def __init__(
        self, backbone: Any, classes: int, *, bins: int = 16, nms_thresh: float = 0.6, **options: Any
    ) -> None:
        head = FocalHead(backbone.out_channels, classes - 1, bins)
        super().__init__(backbone, head, **{"score_thresh": 0.05, "nms_thresh": nms_thresh, **options})

    def losses(self, maps: Maps, targets: list[dict[str, Tensor]]) -> Terms:
        scores, distances = (torch.cat([flat(each) for each in kind], dim=1) for kind in maps)
        grid = grid_of([(each.shape[-2], each.shape[-1]) for each in maps[0]], scores)
        return focal_losses(scores, distances, grid, targets)

    def objects(self, maps: Maps, place: int, sides: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        found = []
        for level, (scores, distances) in enumerate(zip(*maps, strict=True)):
            stride = FIRST_STRIDE * 2**level
            centres = cells((scores.shape[-2], scores.shape[-1]), stride, scores)
            inside = (centres[:, 0] < sides[1]) & (centres[:, 1] < sides[0])  # not in the padding
            shares = flat(scores)[place].sigmoid() * inside[:, None]
            values = shares.flatten()
            best, where = values.topk(_topk_min(values, LONGEST, 0))
            spot = torch.div(where, shares.shape[1], rounding_mode="floor")
            chosen = centres[spot]
            boxes = boxes_at(
                flat(distances)[place][spot], chosen, torch.full_like(chosen[:, 0], float(stride))
            )
            found.append((best, where % shares.shape[1] + 1, boxes))
        scores, labels, boxes = (torch.cat(kind) for kind in zip(*found, strict=True))
        return scores, labels, boxes


class Scale(nn.Module):
    """A number that a level's map is multiplied by."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class FocalHead(nn.Module):
    """Levels (N, `channels`, h, w), the finest first -> `Maps`. Two towers of four convolutions with group norms are shared
    by the levels; `scales` and `qualities` hold a module a level, which can be tapped."""

    levels = 5

    def __init__(self, channels: int, classes: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.classes_tower, self.boxes_tower = tower(channels), tower(channels)
        self.scores = nn.Conv2d(channels, classes, 3, padding=1)
        self.distances = nn.Conv2d(channels, 4 * (bins + 1), 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(self.levels))
        self.qualities = nn.ModuleList(nn.Identity() for _ in range(self.levels))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        assert self.scores.bias is not None
        nn.init.constant_(self.scores.bias, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, levels: OrderedDict[str, Tensor]) -> Maps:
        scores, distances = [], []
        for level, scale, quality in zip(levels.values(), self.scales, self.qualities, strict=True):
            scores.append(quality(self.scores(self.classes_tower(level))))
            distances.append(scale(self.distances(self.boxes_tower(level))))
        return scores, distances


def tower(channels: int) -> nn.Sequential:
    """Four times 3x3 convolution, norm of 32 groups (fewer where a narrow map needs it) and ReLU."""
    groups = math.gcd(32, channels)
    groups = groups if groups < channels else max(1, groups // 2)  # a group of one number has no deviation
    parts: list[nn.Module] = []
    for _ in range(4):
        parts += [nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(groups, channels), nn.ReLU()]
    return nn.Sequential(*parts)


# Positions -------------------------------------------------------------------------------------------


class Grid(NamedTuple):
    """The positions of all levels, the finest first."""

    centres: Tensor
    """(m, 2) x, y in pixels."""
    strides: Tensor
    """(m,)"""
    counts: list[int]
    """How many each level has."""

    @property
    def squares(self) -> Tensor:
        """(m, 4)"""
        half = SIDE / 2 * self.strides[:, None]
        return torch.cat([self.centres - half, self.centres + half], dim=1)


def grid_of(sizes: Sequence[tuple[int, int]], like: Tensor) -> Grid:
    """Of levels of these sizes (h, w)."""
    centres, strides = [], []
    for level, size in enumerate(sizes):
        stride = FIRST_STRIDE * 2**level
        centres.append(cells(size, stride, like))
        strides.append(torch.full((len(centres[-1]),), float(stride), device=like.device))
    return Grid(torch.cat(centres), torch.cat(strides), [len(each) for each in centres])


def cells(size: tuple[int, int], stride: int, like: Tensor) -> Tensor:
    """The centres (h w, 2) of the cells of a level (h, w), in pixels."""
    rows, columns = (
        (torch.arange(side, device=like.device, dtype=torch.float32) + 0.5) * stride for side in size
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def flat(level: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h w, C)"""
    return level.flatten(2).transpose(1, 2)


def edges(distances: Tensor) -> Tensor:
    """Logits (..., 4 (bins + 1)) -> the mean distance of each edge (..., 4), in units of the stride."""
    shares = distances.unflatten(-1, (4, -1)).softmax(dim=-1)
    bins = torch.arange(shares.shape[-1], device=shares.device, dtype=shares.dtype)
    return (shares * bins).sum(dim=-1)  # a product of matrices would be of 16 bits under autocast


def boxes_at(distances: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Logits (..., m, 4 (bins + 1)) at positions (m, 2) -> boxes (..., m, 4) in pixels."""
    apart = edges(distances) * strides[:, None]
    return torch.cat([centres - apart[..., :2], centres + apart[..., 2:]], dim=-1)


class Assigned(NamedTuple):
    """What the positions of a picture are for."""

    objects: Tensor
    """(m,) int64: the place of the object that a position finds; -1 for none."""
    near: Tensor
    """(m,): distance IoU with an object of positions that find none, and whose distance IoU with it is at least a share of
    the threshold for finding it and at most that; of several objects the largest; else 0."""


def assign(boxes: Tensor, grid: Grid, *, share: float = 0.25) -> Assigned:
    """Adaptive training sample selection (Zhang et al., 2020, arXiv:1912.02424, algorithm 1), and around its positions those
    that localisation distillation calls valuable (Zheng et al., 2022, arXiv:2102.12252, algorithm 1, `share` being gamma).

    Candidates of an object are the `CANDIDATES` positions of each level that are nearest to its centre. Of these it takes
    those whose square overlaps it by at least the mean plus the deviation of their IoUs, and whose centre is inside of it.
    A position that several objects want is the one's that it overlaps most. `boxes` (n, 4) are in pixels.
    """
    count = len(grid.centres)
    if not len(boxes):
        return Assigned(grid.strides.new_full((count,), -1, dtype=torch.long), grid.strides.new_zeros(count))
    squares = grid.squares
    overlaps = box_iou(squares, boxes)  # (m, n)
    away = torch.cdist(grid.centres, (boxes[:, :2] + boxes[:, 2:]) / 2)
    chosen, start = [], 0
    for size in grid.counts:
        nearest = away[start : start + size].topk(min(CANDIDATES, size), dim=0, largest=False).indices
        chosen.append(nearest + start)
        start += size
    candidates = torch.cat(chosen)  # (k, n)
    theirs = overlaps.gather(0, candidates)
    limits = theirs.mean(dim=0) + theirs.std(dim=0)
    centres = grid.centres[candidates]  # (k, n, 2)
    within = torch.cat([centres - boxes[:, :2], boxes[:, 2:] - centres], dim=-1).amin(dim=-1) > 0.01
    wanted = torch.full_like(overlaps, -1.0)
    wanted.scatter_(0, candidates, torch.where(within & (theirs >= limits), theirs, -1.0))
    best, objects = wanted.max(dim=1)
    objects = torch.where(best >= 0, objects, -1)
    distance = distance_box_iou(squares, boxes)
    around = (distance >= share * limits) & (distance <= limits) & (distance > 0) & (objects < 0)[:, None]
    return Assigned(objects, torch.where(around, distance, 0.0).amax(dim=1))


# Losses ----------------------------------------------------------------------------------------------


def focal_losses(scores: Tensor, distances: Tensor, grid: Grid, targets: list[dict[str, Tensor]]) -> Terms:
    """The terms of logits (N, m, classes) and (N, m, 4 (bins + 1)); `boxes` of the targets are in pixels of the levels."""
    assigned, truths, labels = zip(*(wanted_at(target, grid) for target in targets), strict=True)
    found, truth = torch.stack(assigned), torch.stack(truths)  # (N, m), (N, m, 4)
    said = boxes_at(distances, grid.centres, grid.strides)
    overlap = paired_iou(said.detach(), truth) * found
    quality = torch.zeros_like(scores).scatter(2, torch.stack(labels)[..., None], overlap[..., None])
    weights = scores.detach().sigmoid().amax(dim=2) * found
    divisor = weights.sum().clamp(min=1)
    goal = torch.cat([grid.centres - truth[..., :2], truth[..., 2:] - grid.centres], dim=-1)
    spread = distribution_loss(distances.unflatten(-1, (4, -1)), goal / grid.strides[:, None]).mean(dim=-1)
    return {
        "loss_quality": quality_loss(scores, quality).sum() / found.sum().clamp(min=1),
        "loss_box": 2 * (generalized_box_iou_loss(said, truth) * weights).sum() / divisor,
        "loss_distribution": 0.25 * (spread * weights).sum() / divisor,
    }


def wanted_at(target: dict[str, Tensor], grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Of the positions of a picture whether each finds an object (m,), 0 or 1, and which: its box (m, 4) and its class from
    0 (m,). One that finds none has some box, which weighs nothing: so that no step waits for a count of them."""
    boxes = target["boxes"].float()
    objects = assign(boxes, grid).objects
    if not len(boxes):
        nobody = torch.cat([grid.centres, grid.centres + 1], dim=1)
        return torch.zeros_like(grid.strides), nobody, torch.zeros_like(objects)
    found, place = objects >= 0, objects.clamp(min=0)
    return found.to(boxes.dtype), boxes[place], target["labels"][place] - 1


def quality_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """Quality focal loss with beta 2, elementwise: |quality - share|^2 times the cross-entropy."""
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (quality - logits.sigmoid()) ** 2 * entropy


def distribution_loss(logits: Tensor, goal: Tensor) -> Tensor:
    """Distribution focal loss, elementwise: logits (..., bins + 1) and distances (...), which are cut to the bins; the
    cross-entropies of the two bins beside a distance, weighted by how near it is to each."""
    bins = logits.shape[-1] - 1
    goal = goal.clamp(0, bins - 0.1)
    lower = goal.floor().long()
    logs = logits.log_softmax(dim=-1)
    left, right = (-logs.gather(-1, each[..., None])[..., 0] for each in (lower, lower + 1))
    share: Tensor = goal - lower
    return left * (1 - share) + right * share


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 4) with those of the same place."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inner = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(each[..., 2:] - each[..., :2]).clamp(min=0).prod(dim=-1) for each in (a, b)]
    return inner / (areas[0] + areas[1] - inner).clamp(min=1e-6)
