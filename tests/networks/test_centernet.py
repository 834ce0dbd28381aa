"""CenterNet, objects as points, against formulas of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dvsn.networks.centernet import (
    CenterNet,
    centre_focal_loss,
    centre_losses,
    draw_centres,
    peaks,
    radius_of,
)
from dvsn.networks.detectors import Detector, ResNetPyramid


def overlap_of(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(area) - width * height)


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(("width", "height"), [(10.0, 10.0), (40.0, 7.0), (3.0, 80.0)])
def test_boxes_within_the_radius_overlap_enough(width: float, height: float, overlap: float) -> None:
    """Both corners moved by the radius, in any of the nine directions each: the worst IoU is exactly the wanted one."""
    r = float(radius_of(torch.tensor(width), torch.tensor(height), overlap))
    moves = [(i * r, j * r) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    found = [
        overlap_of((0, 0, width, height), (a[0], a[1], width + b[0], height + b[1]))
        for a in moves
        for b in moves
    ]
    assert min(found) == pytest.approx(overlap, abs=1e-4)


def test_radii_of_a_square() -> None:
    """What the docstring says of the authors' code, its roots divided by 2."""
    side = torch.tensor(100.0)
    assert float(radius_of(side, side, 0.3)) == pytest.approx(22.6, abs=0.1)
    assert float(radius_of(side, side, 0.7)) == pytest.approx(8.2, abs=0.1)
    a, b, c = 4 * 0.7, -2 * 0.7 * 200, (0.7 - 1) * 100 * 100
    assert (b + math.sqrt(b * b - 4 * a * c)) / 2 == pytest.approx(27.3, abs=0.1)


def test_bells_by_hand() -> None:
    boxes = torch.tensor([[1.0, 1.0, 8.0, 7.0], [6.0, 2.0, 12.0, 8.0], [2.0, 2.0, 4.0, 4.0]])
    maps = draw_centres(boxes, torch.tensor([1, 1, 2]), (9, 14), 3, 0.3)
    assert maps.shape == (3, 9, 14) and not bool(maps[2].any())
    for label, places in ((0, ((4, 4, 7, 6), (5, 9, 6, 6))), (1, ((3, 3, 2, 2),))):
        for y in range(9):
            for x in range(14):
                bells = []
                for row, column, width, height in places:
                    total, area = width + height, width * height
                    r = math.floor((total - math.sqrt(total**2 - 2.8 * area)) / 4)
                    spread = (2 * r + 1) / 6
                    bells.append(math.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * spread**2)))
                assert float(maps[label, y, x]) == pytest.approx(max(bells), abs=1e-5)
    assert float(maps[0, 4, 4]) == float(maps[0, 5, 9]) == float(maps[1, 3, 3]) == 1


def test_the_focal_loss_is_equation_1() -> None:
    random = np.random.default_rng(0)
    logits, wanted = random.normal(0, 2, (2, 3, 4, 5)), random.uniform(0, 0.99, (2, 3, 4, 5))
    wanted[0, 1, 2, 3] = wanted[1, 0, 0, 0] = 1
    share = 1 / (1 + np.exp(-logits))
    terms = np.where(
        wanted == 1,
        (1 - share) ** 2 * np.log(share),
        (1 - wanted) ** 4 * share**2 * np.log(1 - share),
    )
    found = centre_focal_loss(torch.tensor(logits), torch.tensor(wanted))
    assert float(found) == pytest.approx(-terms.sum())
    sure = torch.tensor([200.0, -200.0], requires_grad=True)
    centre_focal_loss(sure, torch.tensor([0.5, 1.0])).backward()
    assert sure.grad is not None and bool(torch.isfinite(sure.grad).all())


def test_sizes_and_offsets_are_asked_at_centres_alone() -> None:
    """Two objects in two pictures, and one picture without any; by hand."""
    size, offset = torch.zeros(3, 2, 8, 8), torch.zeros(3, 2, 8, 8)
    size[0, :, 3, 2], offset[0, :, 3, 2] = torch.tensor([3.0, 2.0]), torch.tensor([0.5, 0.5])
    targets = [
        {
            "boxes": torch.tensor([[4.0, 10.0, 16.0, 18.0]]),
            "labels": torch.tensor([1]),
        },  # 1, 2.5, 4, 4.5: 2.5, 3.5
        {"boxes": torch.tensor([[0.0, 0.0, 4.0, 8.0]]), "labels": torch.tensor([2])},  # 0.5, 1 at (0, 1)
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()},
    ]
    terms = centre_losses(torch.zeros(3, 2, 8, 8), size, offset, targets, overlap=0.3)
    assert float(terms["loss_size"]) == pytest.approx(0.1 * (0 + 0 + 1 + 2) / 2)
    assert float(terms["loss_offset"]) == pytest.approx((0 + 0 + 0.5 + 0) / 2)
    maps = torch.stack([draw_centres(t["boxes"] / 4, t["labels"], (8, 8), 2, 0.3) for t in targets])
    hand = -(0.25 * math.log(0.5) * torch.where(maps == 1, 1, (1 - maps) ** 4)).sum() / 2
    assert float(terms["loss_heatmap"]) == pytest.approx(float(hand), rel=1e-5)


def test_peaks_by_hand() -> None:
    heatmap = torch.zeros(2, 6, 8)
    heatmap[1, 2, 3], heatmap[1, 2, 4], heatmap[0, 5, 7] = (
        0.9,
        0.8,
        0.5,
    )  # the second is no greatest of its 3x3
    size, offset = torch.zeros(2, 6, 8), torch.zeros(2, 6, 8)
    size[:, 2, 3], offset[:, 2, 3] = torch.tensor([2.0, 4.0]), torch.tensor([0.25, 0.5])
    size[:, 5, 7] = torch.tensor([-1.0, 1.0])
    scores, labels, boxes = peaks(heatmap, size, offset, count=2)
    assert scores.tolist() == pytest.approx([0.9, 0.5]) and labels.tolist() == [2, 1]
    assert boxes[0].tolist() == [4 * 2.25, 4 * 0.5, 4 * 4.25, 4 * 4.5]
    assert boxes[1].tolist() == [28, 18, 28, 22]  # a width below 0 is 0
    assert len(peaks(heatmap, size, offset, count=1000)[0]) == 96


def points(**options: object) -> Detector:
    torch.manual_seed(0)
    return Detector(
        backbone=ResNetPyramid(channels=8),
        classes=4,
        detector="centernet",
        min_size=96,
        max_size=160,
        **options,
    )  # type: ignore[arg-type]


def test_targets_decode_to_themselves() -> None:
    """Maps as the losses want them give back the boxes, also of a picture that was resized and padded."""
    network = points(score_threshold=0.5).eval()
    boxes = torch.tensor([[6.0, 4.0, 30.0, 20.0], [20.0, 18.0, 44.5, 40.0]])
    model: CenterNet = network.model
    scaled = 2 * boxes
    heatmap = draw_centres(scaled / 4, torch.tensor([3, 1]), (32, 32), 3, 0.3)
    x, y = ((scaled[:, :2] + scaled[:, 2:]) / 8).floor().long().unbind(1)
    size, offset = torch.zeros(2, 32, 32), torch.zeros(2, 32, 32)
    size[:, y, x] = ((scaled[:, 2:] - scaled[:, :2]) / 4).T
    offset[:, y, x] = ((scaled[:, :2] + scaled[:, 2:]) / 8).T - torch.stack([x, y])
    logits = torch.logit(heatmap, eps=1e-6)
    model.head.forward = lambda _: (logits[None], size[None], offset[None])  # type: ignore[method-assign]
    (found,) = network([torch.rand(3, 48, 60)])
    assert found["labels"].tolist() in ([3, 1], [1, 3])
    order = found["labels"].argsort(descending=True)
    assert torch.allclose(found["boxes"][order], boxes, atol=1e-4)
    heatmap[0, 31, 31] = 1.0  # in the padding: not looked at
    logits = torch.logit(heatmap, eps=1e-6)
    size[:, 31, 31] = 2.0
    model.detections_per_img = 2
    assert len(network([torch.rand(3, 48, 60)])[0]["labels"]) == 2


def test_every_weight_learns_and_the_options_count() -> None:
    network = points().train()
    targets = [
        {"boxes": torch.tensor([[10.0, 10.0, 40.0, 50.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()},
    ]
    terms = network([torch.rand(3, 96, 128), torch.rand(3, 80, 100)], targets)
    assert set(terms) == {"loss_heatmap", "loss_size", "loss_offset"}
    torch.stack(list(terms.values())).sum().backward()
    assert not [name for name, each in network.named_parameters() if each.grad is None]
    network.eval()
    assert float(network([torch.rand(3, 96, 128)])[0]["scores"].max()) == pytest.approx(0.1, abs=0.05)
    assert not len(points(score_threshold=0.5).eval()([torch.rand(3, 96, 128)])[0]["scores"])
    model: CenterNet = points(overlap=0.4).eval().model
    heatmap, size = torch.zeros(1, 24, 32), torch.full((2, 24, 32), 8.0)
    heatmap[0, 10, 10], heatmap[0, 10, 12] = 0.9, 0.8  # 8 wide, 2 apart: an IoU of 0.6
    maps = (torch.logit(heatmap)[None], size[None], torch.zeros(1, 2, 24, 32))
    sides = (96, 128)
    assert len(model.decode(*model.objects(maps, 0, sides), sides)["scores"]) == 1
    model.nms_thresh = None
    assert len(model.decode(*model.objects(maps, 0, sides), sides)["scores"]) == 2
