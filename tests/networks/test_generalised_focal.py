"""GFL against formulas written out: positions, assignment by loops, distributions, losses, and what it decodes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from dvsn.errors import ConfigError
from dvsn.networks.detectors import Detector, ResNetPyramid
from dvsn.networks.generalised_focal import (
    FocalHead,
    assign,
    boxes_at,
    distribution_loss,
    edges,
    focal_losses,
    grid_of,
    paired_iou,
    quality_loss,
)

SIZES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]


def detector(**options: Any) -> Detector:
    torch.manual_seed(0)
    backbone = ResNetPyramid(channels=8, first_stride=8)
    return Detector(backbone=backbone, classes=3, detector="gfl", min_size=64, max_size=96, **options)


def test_positions_are_the_centres_of_cells() -> None:
    grid = grid_of(SIZES, torch.zeros(1))
    assert grid.counts == [96, 24, 6, 2, 1] and len(grid.strides) == 129
    assert grid.centres[0].tolist() == [4, 4] and grid.centres[13].tolist() == [12, 12]
    assert grid.centres[96].tolist() == [8, 8] and grid.centres[-1].tolist() == [64, 64]
    assert grid.squares[0].tolist() == [-28, -28, 36, 36]


def assigned_by_loops(boxes: Tensor, share: float) -> tuple[list[int], list[float]]:
    """ATSS, and what is around its positions, one position at a time, in plain numbers."""
    grid = grid_of(SIZES, boxes)
    best = [(-1.0, -1)] * len(grid.centres)
    limits, distances = [], []
    squares = grid.squares.double()
    for number, box in enumerate(boxes.double().tolist()):
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        candidates, start = [], 0
        for count in grid.counts:
            inside = range(start, start + count)
            far = {i: math.dist(grid.centres[i].tolist(), middle) for i in inside}
            candidates += sorted(inside, key=lambda i, far=far: far[i])[:9]  # type: ignore[misc]
            start += count
        ious = [float(box_iou(squares[i][None], torch.tensor([box]).double())) for i in candidates]
        mean = sum(ious) / len(ious)
        limit = mean + math.sqrt(sum((each - mean) ** 2 for each in ious) / (len(ious) - 1))
        limits.append(limit)
        for i, iou in zip(candidates, ious, strict=True):
            x, y = grid.centres[i].tolist()
            within = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if within and iou >= limit and iou > best[i][0]:
                best[i] = (iou, number)
        row = []
        for i, square in enumerate(squares.tolist()):
            iou = float(box_iou(squares[i][None], torch.tensor([box]).double()))
            apart = math.dist(((square[0] + square[2]) / 2, (square[1] + square[3]) / 2), middle) ** 2
            pairs = ((0, 2), (1, 3))
            hull = [max(square[b], box[b]) - min(square[a], box[a]) for a, b in pairs]
            row.append(iou - apart / (hull[0] ** 2 + hull[1] ** 2))
        distances.append(row)
    near = []
    for i, (_, number) in enumerate(best):
        fit = [
            row[i] for row, limit in zip(distances, limits, strict=True) if share * limit <= row[i] <= limit
        ]
        near.append(max(fit, default=0.0) if number < 0 else 0.0)
    return [number for _, number in best], near


def test_assignment_is_that_of_loops() -> None:
    boxes = torch.tensor([[10.3, 8.1, 61.0, 50.4], [40.2, 20.0, 90.7, 63.0], [3.1, 30.2, 12.4, 37.9]])
    found = assign(boxes, grid_of(SIZES, boxes), share=0.25)
    objects, near = assigned_by_loops(boxes, 0.25)
    assert found.objects.tolist() == objects and {0, 1, 2} <= set(objects)
    torch.testing.assert_close(found.near, torch.tensor(near), atol=1e-5, rtol=0)
    assert (
        bool(((found.near > 0) & (found.objects >= 0)).logical_not().all()) and found.near.count_nonzero() > 3
    )
    none = assign(torch.zeros(0, 4), grid_of(SIZES, boxes))
    assert none.objects.unique().tolist() == [-1] and none.near.sum() == 0


def test_an_edge_is_the_mean_of_its_distribution() -> None:
    logits = torch.full((1, 4, 5), -50.0)
    for edge, (a, b) in enumerate([(0, 0), (1, 2), (4, 4), (0, 4)]):
        logits[0, edge, [a, b]] = 0.0
    torch.testing.assert_close(edges(logits.flatten(1)), torch.tensor([[0.0, 1.5, 4.0, 2.0]]))
    box = boxes_at(logits.flatten(1), torch.tensor([[20.0, 12.0]]), torch.tensor([8.0]))
    torch.testing.assert_close(box, torch.tensor([[20.0, 0.0, 52.0, 28.0]]))


def test_edges_stay_float32_under_autocast() -> None:
    logits = torch.randn(1, 5, 4 * 17, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = edges(logits)
    torch.testing.assert_close(found, edges(logits), rtol=0, atol=0)


def test_losses_by_hand() -> None:
    """A share of 1/2 for a quality of 0.8, and of 0: (0.3)^2 ln 2 and (0.5)^2 ln 2. A distance of 1.25 between even bins:
    ln 4 from either side; beyond the last bin it is cut to a tenth below it."""
    found = quality_loss(torch.zeros(2), torch.tensor([0.8, 0.0]))
    torch.testing.assert_close(found, torch.tensor([0.09, 0.25]) * math.log(2))
    even = distribution_loss(torch.zeros(1, 4), torch.tensor([1.25]))
    torch.testing.assert_close(even, torch.tensor([math.log(4)]))
    logits = torch.tensor([[0.0, 1.0, 2.0, 0.5]])
    logs = logits.log_softmax(dim=1)[0]
    near = distribution_loss(logits.repeat(2, 1), torch.tensor([1.25, 9.0]))
    torch.testing.assert_close(
        near, torch.stack([-0.75 * logs[1] - 0.25 * logs[2], -0.1 * logs[2] - 0.9 * logs[3]])
    )


def test_terms_are_those_of_the_positions() -> None:
    """Written out over the positions that are assigned, one by one."""
    torch.manual_seed(0)
    grid = grid_of(SIZES, torch.zeros(1))
    scores, distances = torch.randn(2, 129, 2), torch.randn(2, 129, 4 * 9)
    boxes = torch.tensor([[10.3, 8.1, 61.0, 50.4], [40.2, 20.0, 90.7, 63.0]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([1, 2])},
        {"boxes": boxes[:0], "labels": torch.zeros(0).long()},
    ]
    terms = focal_losses(scores, distances, grid, targets)
    objects = assign(boxes, grid).objects.tolist()
    quality, weights, giou, spread, count = torch.zeros(2, 129, 2), [], [], [], 0
    for i, number in enumerate(objects):
        if number < 0:
            continue
        count += 1
        said, box = (
            boxes_at(distances[0, i][None], grid.centres[i][None], grid.strides[i][None])[0],
            boxes[number],
        )
        quality[0, i, [0, 1][number]] = iou = box_iou(said[None], box[None])[0, 0]
        hull = (torch.maximum(said[2:], box[2:]) - torch.minimum(said[:2], box[:2])).prod()
        union = (said[2:] - said[:2]).prod() + (box[2:] - box[:2]).prod()
        union = union / (1 + iou)
        giou.append(1 - (iou - (hull - union) / hull))
        x, y = grid.centres[i]
        goal = torch.stack([x - box[0], y - box[1], box[2] - x, box[3] - y]) / grid.strides[i]
        spread.append(distribution_loss(distances[0, i].view(4, 9), goal).mean())
        weights.append(scores[0, i].sigmoid().max())
    share = torch.stack(weights)
    torch.testing.assert_close(terms["loss_quality"], quality_loss(scores, quality).sum() / count)
    torch.testing.assert_close(
        terms["loss_box"], 2 * (torch.stack(giou) * share).sum() / share.sum().clamp(min=1)
    )
    wanted = 0.25 * (torch.stack(spread) * share).sum() / share.sum().clamp(min=1)
    torch.testing.assert_close(terms["loss_distribution"], wanted)


def test_iou_of_pairs() -> None:
    a = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    b = torch.tensor([[2.0, 0.0, 6.0, 4.0], [3.0, 3.0, 4.0, 4.0], [5.0, 5.0, 5.0, 5.0]])
    assert paired_iou(a, b).tolist() == [pytest.approx(8 / 24), 0, 0]


def test_pictures_without_objects_teach_scores_alone() -> None:
    network = detector().train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    terms = network([torch.rand(3, 64, 96)] * 2, [empty, empty])
    assert terms["loss_box"] == 0 and terms["loss_distribution"] == 0 and terms["loss_quality"] > 0
    sum(terms.values()).backward()
    assert all(each.grad is not None for each in network.model.head.parameters())


def test_what_is_said_of_a_position_is_found_there() -> None:
    """The head is made to say one box at one position, of the second class, and nothing in the padding."""
    network = detector(score_threshold=0.3).eval()
    head, bins = network.model.head, 16
    scores = [torch.full((1, 2, *size), -9.0) for size in SIZES]
    distances = [torch.full((1, 4 * (bins + 1), *size), -40.0) for size in SIZES]
    scores[1][0, 1, 2, 3], scores[0][0, 0, 7, 11] = (
        2.0,
        5.0,
    )  # the second lies in the padding of a picture 56 high
    for edge, steps in enumerate((1, 2, 1, 1)):
        distances[1][0, edge * (bins + 1) + steps, 2, 3] = 0.0
    network.model.head.forward = lambda _: (scores, distances)
    (found,) = network([torch.rand(3, 56, 90)])
    assert isinstance(head, FocalHead) and found["labels"].tolist() == [2]
    ratio = min(64 / 56, 96 / 90)  # the shorter side is made 64, unless the longer exceeds 96
    expected = torch.tensor([56 - 16.0, 40 - 32.0, 56 + 16.0, 40 + 16.0]) / ratio
    torch.testing.assert_close(found["boxes"][0], expected.clamp(max=90), atol=1.0, rtol=0)
    assert found["scores"][0] == pytest.approx(torch.tensor(2.0).sigmoid().item())


def test_only_this_detector_has_distributions_to_tap() -> None:
    paths = detector().distribution_taps
    assert len(paths) == 10 and paths[0] == "model.head.scales.0" and paths[-1] == "model.head.qualities.4"
    other = Detector(backbone=ResNetPyramid(channels=8), classes=3)
    assert other.distribution_taps == ()
    with pytest.raises(ConfigError, match=r"first_stride: found 4, but gfl wants"):
        Detector(backbone=ResNetPyramid(channels=8), classes=3, detector="gfl")
