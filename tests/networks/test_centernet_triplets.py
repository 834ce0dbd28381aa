"""CenterNet, keypoint triplets, against formulas of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from dvsn.networks.centernet_triplets import (
    CentrePool,
    CornerPool,
    Points,
    Triplets,
    embedding_losses,
    running_maximum,
    triplet_losses,
    triplets,
)
from dvsn.networks.detectors import Detector, ResNetPyramid


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_running_maximum(dim: int, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor(np.random.default_rng(0).normal(size=(2, 3, 7, 9)), dtype=torch.float32)
    expected = np.empty_like(x.numpy())
    for place in range(x.shape[dim]):
        taken = range(place, x.shape[dim]) if ahead else range(place + 1)
        part = x.numpy().take(list(taken), axis=dim).max(axis=dim)
        expected[(slice(None),) * dim + (place,)] = part
    assert np.array_equal(running_maximum(x, dim, ahead=ahead).numpy(), expected)
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)  # what is exported
    assert np.array_equal(running_maximum(x, dim, ahead=ahead).numpy(), expected)


def rows_and_columns(x: torch.Tensor, dim: int, ahead: bool) -> torch.Tensor:
    return torch.stack(
        [
            (x.narrow(dim, place, x.shape[dim] - place) if ahead else x.narrow(dim, 0, place + 1)).amax(dim)
            for place in range(x.shape[dim])
        ],
        dim=dim,
    )


@pytest.mark.parametrize("ahead", [True, False])
def test_corner_pooling_looks_inside_and_along(ahead: bool) -> None:
    """Top left corners: the maximum below of (bound + the maximum to the right), plus that with the two in turn."""
    torch.manual_seed(0)
    pool, x = CornerPool(4, 3, ahead=ahead).eval(), torch.rand(2, 4, 6, 5)
    with torch.no_grad():
        down = pool.joins[0](pool.bounds[0](x) + rows_and_columns(pool.looks[0](x), 3, ahead))
        across = pool.joins[1](pool.bounds[1](x) + rows_and_columns(pool.looks[1](x), 2, ahead))
        summed = rows_and_columns(down, 2, ahead) + rows_and_columns(across, 3, ahead)
        expected = pool.last((pool.out(summed) + pool.around(x)).clamp(min=0))
        assert torch.allclose(pool(x), expected, atol=1e-6)


def test_centre_pooling_is_of_the_whole_row_and_column() -> None:
    torch.manual_seed(0)
    pool, x = CentrePool(4, 3).eval(), torch.rand(1, 4, 6, 5)
    with torch.no_grad():
        columns, rows = pool.columns(x), pool.rows(x)
        crossed = torch.empty(1, 3, 6, 5)
        for i in range(6):
            for j in range(5):
                crossed[:, :, i, j] = columns[:, :, :, j].amax(2) + rows[:, :, i].amax(2)
        expected = pool.last((pool.out(crossed) + pool.around(x)).clamp(min=0))
        assert torch.allclose(pool(x), expected, atol=1e-6)


def test_embeddings_by_hand() -> None:
    """One picture of three objects, one of one, one of none. Means 1, 1.5, 4, so pairs are nearer than 1 by 0.5 once."""
    first = [torch.tensor([0.9, 1.0, 4.0]), torch.tensor([2.0]), torch.tensor([])]
    last = [torch.tensor([1.1, 2.0, 4.0]), torch.tensor([2.0]), torch.tensor([])]
    pull, push = embedding_losses(first, last)
    assert float(pull) == pytest.approx((2 * 0.01 + 2 * 0.25) / 3 / 3)
    assert float(push) == pytest.approx(2 * 0.5 / 6 / 3)


def test_the_terms_by_hand() -> None:
    """One object; corners at (1.25, 2.5) and (4.75, 6), centre (3, 4.25) in pixels of stride 4."""
    target = {"boxes": torch.tensor([[5.0, 10.0, 19.0, 24.0]]), "labels": torch.tensor([2])}
    maps = [
        Triplets(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8)) for _ in range(3)
    ]
    maps[0].offset[0, :, 2, 1] = torch.tensor([0.25, 0.5])  # right
    maps[1].embedding[0, 0, 6, 4] = 3.0  # type: ignore[index]
    maps[2] = maps[2]._replace(embedding=None)
    terms = triplet_losses(maps, [target], overlap=0.3)
    assert float(terms["loss_pull"]) == pytest.approx(0.1 * 2 * 1.5**2) and float(terms["loss_push"]) == 0
    assert float(terms["loss_offset"]) == pytest.approx(
        0.75**2 / 2 + 0.25**2 / 2
    )  # of the last corner, the centre
    r = math.floor((8 - math.sqrt(64 - 2.8 * 16)) / 4)  # of 4 x 4, in whole pixels
    spread = (2 * r + 1) / 6
    total = []
    for x, y in ((1, 2), (4, 6), (3, 4)):
        bells = np.zeros((3, 8, 8))
        rows, columns = np.mgrid[:8, :8]
        bells[1] = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
        total.append((np.where(bells == 1, 1, (1 - bells) ** 4) * 0.25 * math.log(2)).sum())
    assert float(terms["loss_corners"]) == pytest.approx(total[0] + total[1], rel=1e-5)
    assert float(terms["loss_centres"]) == pytest.approx(total[2], rel=1e-5)


def test_triplets_by_another_way() -> None:
    """All triples, one by one, with the central region of equation 1."""
    random = np.random.default_rng(0)

    def points(count: int, embedded: bool) -> Points:
        embedding = torch.tensor(random.uniform(0, 2, count)) if embedded else None
        scores, labels = random.uniform(0.1, 1, count), random.integers(1, 3, count)
        return Points(
            torch.tensor(scores),
            torch.tensor(labels),
            torch.tensor(random.uniform(0, 300, (count, 2))),
            embedding,
        )

    first, last, centre = points(60, True), points(60, True), points(60, False)
    assert first.embedding is not None and last.embedding is not None
    expected = []
    for i in range(60):
        for j in range(60):
            (left, top), (right, bottom) = first.places[i].tolist(), last.places[j].tolist()
            if first.labels[i] != last.labels[j] or abs(first.embedding[i] - last.embedding[j]) > 0.5:
                continue
            if right <= left or bottom <= top:
                continue
            n = 3 if max(right - left, bottom - top) < 150 else 5
            a, b = ((n + 1) * left + (n - 1) * right) / (2 * n), ((n - 1) * left + (n + 1) * right) / (2 * n)
            c, d = ((n + 1) * top + (n - 1) * bottom) / (2 * n), ((n - 1) * top + (n + 1) * bottom) / (2 * n)
            inside = [
                float(centre.scores[k])
                for k, (x, y) in enumerate(centre.places.tolist())
                if a <= x <= b and c <= y <= d and centre.labels[k] == first.labels[i]
            ]
            if inside:
                score = (float(first.scores[i]) + float(last.scores[j]) + max(inside)) / 3
                expected.append((score, int(first.labels[i]), left, top, right, bottom))
    scores, labels, boxes = triplets(first, last, centre)
    rows = zip(scores.tolist(), labels.tolist(), boxes.tolist(), strict=True)
    found = sorted((score, label, *box) for score, label, box in rows)
    assert len(found) == len(expected) > 10
    np.testing.assert_allclose(found, sorted(expected), rtol=1e-9)


def test_targets_decode_to_themselves_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    network = Detector(
        backbone=ResNetPyramid(channels=8), classes=4, detector="centernet_triplets", min_size=96, max_size=160,
        score_threshold=0.5,
    )  # fmt: skip
    boxes = torch.tensor([[6.0, 4.0, 30.0, 20.0], [20.0, 18.0, 44.5, 40.0]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([3, 1])},
        {"boxes": boxes[:0], "labels": torch.zeros(0).long()},
    ]
    terms = network.train()([torch.rand(3, 48, 60), torch.rand(3, 48, 64)], targets)
    torch.stack(list(terms.values())).sum().backward()
    assert not [name for name, each in network.named_parameters() if each.grad is None]
    scaled, maps = boxes / 2, []  # twice as large, at a quarter
    for points in (scaled[:, :2], scaled[:, 2:], (scaled[:, :2] + scaled[:, 2:]) / 2):
        logits, offset = torch.full((1, 3, 32, 32), -9.0), torch.zeros(1, 2, 32, 32)
        embedding = torch.zeros(1, 1, 32, 32)
        for number, (label, point) in enumerate(zip((3, 1), points, strict=True)):
            x, y = (int(side) for side in point)
            logits[0, label - 1, y, x], embedding[0, 0, y, x] = 9.0, 3.0 * number
            offset[0, :, y, x] = point - point.floor()
        maps.append((logits, offset, embedding))
    model: Any = network.eval().model
    model.head.forward = lambda _: maps
    (found,) = network([torch.rand(3, 48, 60)])
    order = found["labels"].argsort(descending=True)
    assert found["labels"][order].tolist() == [3, 1] and float(found["scores"].min()) > 0.99
    assert torch.allclose(found["boxes"][order], boxes, atol=1e-4)
