"""Cascade R-CNN and Hybrid Task Cascade against formulas of their own."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dvsn.errors import ConfigError
from dvsn.networks.cascade_rcnn import box_losses, corrected, is_among
from dvsn.networks.detectors import Detector, ResNetPyramid
from dvsn.networks.hybrid_cascade import SEMANTIC, semantic_loss, stuff_maps

SIZE = (96, 128)


def small(detector: Any, **options: Any) -> Detector:
    torch.manual_seed(0)
    given = {"anchors": [8, 16, 32, 64, 128], "proposals": 40, "sampled": 16, "detections": 4, "min_size": 96}
    return Detector(
        backbone=ResNetPyramid(channels=8), classes=4, detector=detector, max_size=128, **{**given, **options}
    )


def target() -> dict[str, torch.Tensor]:
    boxes = torch.tensor([[10.0, 10.0, 40.0, 50.0], [30.0, 20.0, 80.0, 60.0]])
    masks = torch.zeros(2, *SIZE, dtype=torch.uint8)
    for plane, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        plane[top:bottom, left:right] = 1
    return {"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks}


@pytest.fixture(scope="module")
def cascade() -> Detector:
    return small("cascade_rcnn")


@pytest.fixture(scope="module")
def hybrid() -> Detector:
    return small("htc", semantic_classes=5)


# Parts -----------------------------------------------------------------------------------------------


def test_codes_by_stage(cascade: Detector) -> None:
    """Against Cai and Vasconcelos' equation 2, in numpy, divided by the stage's deviations."""
    random = np.random.default_rng(0)
    corner, side = random.uniform(0, 50, (2, 6, 2)), random.uniform(5, 40, (2, 6, 2))
    boxes, truths = (np.concatenate([a, a + b], axis=1) for a, b in zip(corner, side, strict=True))
    for stage, deviation in zip(cascade.model.roi_heads.stages, (0.1, 0.05, 0.033), strict=True):
        apart = (corner[1] + side[1] / 2 - corner[0] - side[0] / 2) / side[0] / deviation
        grown = np.log(side[1] / side[0]) / (2 * deviation)
        codes = stage.box_coder.encode_single(torch.tensor(truths), torch.tensor(boxes))
        np.testing.assert_allclose(codes.numpy(), np.concatenate([apart, grown], axis=1), rtol=1e-6)
        back = corrected(stage, codes, [torch.tensor(boxes)], [(1000, 1000)])[0]
        np.testing.assert_allclose(back.numpy(), truths, rtol=1e-6)


def test_objects_by_stage(cascade: Detector) -> None:
    """Boxes of an overlap of 0.45, 0.55, 0.65 and 0.8 are objects for no, one, two and three stages."""
    truth = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    shifts = [100 * (1 - iou) / (1 + iou) for iou in (0.45, 0.55, 0.65, 0.8)]
    boxes = truth + torch.tensor([[shift, 0.0, shift, 0.0] for shift in shifts])
    found = [
        stage.assign_targets_to_proposals([boxes], [truth], [torch.tensor([2])])[1][0].tolist()
        for stage in cascade.model.roi_heads.stages
    ]
    assert found == [[0, 2, 2, 2], [0, 0, 2, 2], [0, 0, 0, 2]]


def test_box_losses_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 1.0, 1.0]])
    codes = torch.tensor([[9.0, 9.0, 9.0, 9.0], [0.5, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 2])
    found = box_losses(logits, codes, labels, torch.zeros(3, 4))
    # bent at 1: 0.5 costs 0.125 and 3 costs 2.5; the background's codes cost nothing; over three boxes
    assert float(found["loss_box_reg"]) == pytest.approx((0.125 + 2.5) / 3)
    shares = [math.exp(2) / (math.exp(2) + math.e + 1), math.exp(3) / (math.exp(3) + 2), 1 / 3]
    assert float(found["loss_classifier"]) == pytest.approx(-sum(map(math.log, shares)) / 3)


def test_true_boxes_are_not_handed_on(cascade: Detector) -> None:
    truth = torch.tensor([[10.0, 10.0, 40.0, 50.0]])
    boxes = torch.cat(
        [torch.tensor([[8.0, 12.0, 44.0, 49.0]]), truth, torch.tensor([[90.0, 5.0, 140.0, 20.0]])]
    )
    assert is_among(boxes, truth).tolist() == [False, True, False]
    assert is_among(boxes, truth[:0]).tolist() == [False] * 3
    stage = cascade.model.roi_heads.stages[0]
    codes = torch.zeros(3, 4, requires_grad=True)
    (moved,) = corrected(stage, codes, [boxes], [SIZE], [{"boxes": truth}])
    assert not moved.requires_grad
    np.testing.assert_allclose(
        moved.numpy(), [[8, 12, 44, 49], [90, 5, 128, 20]], rtol=1e-6
    )  # cut at the edge


# Training --------------------------------------------------------------------------------------------


def test_a_stage_is_trained_on_the_boxes_of_the_one_before(cascade: Detector, monkeypatch: Any) -> None:
    heads = cascade.train().model.roi_heads
    given: list[torch.Tensor] = []
    for stage in heads.stages:
        inner = stage.select_training_samples

        def record(boxes: Any, targets: Any, inner: Any = inner) -> Any:
            given.append(boxes[0])
            return inner(boxes, targets)

        monkeypatch.setattr(stage, "select_training_samples", record)
    for stage in heads.stages:  # every box moves by half its width times the deviation
        monkeypatch.setattr(stage.box_predictor.bbox_pred, "weight", nn.Parameter(torch.zeros(4, 1024)))
        monkeypatch.setattr(
            stage.box_predictor.bbox_pred, "bias", nn.Parameter(torch.tensor([0.5, 0.0, 0.0, 0.0]))
        )
    wanted = target()
    start = torch.tensor([[20.0, 20.0, 40.0, 40.0], [50.0, 50.0, 80.0, 70.0]])
    features = cascade.model.backbone(torch.rand(1, 3, *SIZE))
    terms = heads.losses(features, [start], [SIZE], [wanted])
    assert torch.equal(given[0], start)
    for before, after, deviation in zip(given[:-1], given[1:], (0.1, 0.05), strict=True):
        moved = before.clone()
        moved[:, 0::2] += 0.5 * deviation * (before[:, 2:3] - before[:, 0:1])
        assert torch.allclose(after[: len(start)], moved)
        truths = wanted["boxes"][:, 0::2] + 0.5 * deviation * (
            wanted["boxes"][:, 2:3] - wanted["boxes"][:, 0:1]
        )
        assert not any(torch.allclose(a[0::2], b) for a, b in itertools.product(after, truths))
    assert set(terms) == {f"{name}_{n}" for name in ("loss_classifier", "loss_box_reg") for n in (1, 2, 3)}


def test_terms_are_weighted_by_stage(monkeypatch: Any) -> None:
    network = small("cascade_rcnn", stage_weights=[1.0, 0.5, 0.25]).train()
    heads = network.model.roi_heads
    one = torch.ones(())
    monkeypatch.setattr(heads, "train_stage", lambda *_: ({"loss_x": one}, []))
    assert heads.losses({}, [], [], []) == {"loss_x_1": one, "loss_x_2": 0.5 * one, "loss_x_3": 0.25 * one}


@pytest.mark.parametrize(
    "detector",
    ["cascade_rcnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cascade_mask_rcnn", "htc"))],
)
def test_every_weight_learns(detector: Any) -> None:
    network = small(detector, **({"semantic_classes": 5} if detector == "htc" else {})).train()
    wanted = target()
    if detector == "htc":
        wanted["stuff"] = torch.randint(0, 5, SIZE, dtype=torch.uint8)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, *SIZE)}
    terms = network([torch.rand(3, *SIZE), torch.rand(3, *SIZE)], [wanted, empty])
    torch.stack(list(terms.values())).sum().backward()
    assert all(bool(torch.isfinite(each)) for each in terms.values())
    assert not [name for name, each in network.named_parameters() if each.grad is None]


# Use -------------------------------------------------------------------------------------------------


def independent(network: Detector, picture: torch.Tensor, scores: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (n, 4) and shares (n, classes) of every proposal, written out stage by stage."""
    model = network.model
    batch, _ = model.transform([picture])
    features = model.backbone(batch.tensors)
    (boxes,), _ = model.rpn(batch, features)
    shares = []
    for stage, deviation in zip(model.roi_heads.stages, (0.1, 0.05, 0.033), strict=True):
        given, side = boxes, boxes[:, 2:] - boxes[:, :2]
        pooled = stage.box_roi_pool(features, [boxes], batch.image_sizes)
        logits, codes = stage.box_predictor(stage.box_head(pooled))
        shares.append(logits.softmax(1))
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + codes[:, :2] * deviation * side
        half = side * (codes[:, 2:] * 2 * deviation).exp() / 2
        boxes = torch.cat([centre - half, centre + half], dim=1)
        boxes = boxes.clamp(min=0).minimum(torch.tensor([128.0, 96.0, 128.0, 96.0]))
    if scores == "last":
        pooled = stage.box_roi_pool(features, [given], batch.image_sizes)
        shares = [each.box_predictor(each.box_head(pooled))[0].softmax(1) for each in model.roi_heads.stages]
    return boxes, sum(shares) / 3  # type: ignore[return-value]


@pytest.mark.parametrize("scores", ["own", "last"])
def test_an_answer_is_the_last_stages_boxes_and_the_mean_of_scores(scores: Any) -> None:
    network = small(
        "cascade_rcnn", stage_scores=scores, score_threshold=0.0, overlap=1.0, detections=1000
    ).eval()
    for stage in network.model.roi_heads.stages:  # larger than the start, so that stages differ
        for layer in (stage.box_predictor.cls_score, stage.box_predictor.bbox_pred):
            nn.init.normal_(layer.weight, std=0.3)
    picture = torch.rand(3, *SIZE)
    with torch.no_grad():
        boxes, shares = independent(network, picture, scores)
        (found,) = network([picture])
    sides = (boxes[:, 2:] - boxes[:, :2] >= 0.01).all(dim=1)
    expected = sorted(
        (share, label, *box)
        for box, row in zip(boxes[sides].tolist(), shares[sides].tolist(), strict=True)
        for label, share in enumerate(row)
        if label and share > 0
    )
    rows = zip(found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist(), strict=True)
    mine = sorted((score, label, *box) for score, label, box in rows)
    assert len(mine) == len(expected) > 50
    np.testing.assert_allclose([row[0] for row in mine], [row[0] for row in expected], atol=1e-5)
    np.testing.assert_allclose(np.sort(mine, axis=0), np.sort(expected, axis=0), atol=1e-3)


def test_masks_are_the_mean_of_the_stages() -> None:
    network = small("cascade_mask_rcnn", score_threshold=0.0).eval()
    heads = network.model.roi_heads
    features = network.model.backbone(torch.rand(1, 3, *SIZE))
    with torch.no_grad():
        (found,) = heads.detect(
            features, [torch.tensor([[5.0, 5.0, 60.0, 60.0], [20.0, 20.0, 90.0, 80.0]])], [SIZE]
        )
        pooled = heads.stages[0].mask_roi_pool(features, [found["boxes"]], [SIZE])
        each = [stage.mask_predictor(stage.mask_head(pooled)).sigmoid() for stage in heads.stages]
    mean = torch.stack(each).mean(dim=0)
    expected = torch.stack([masks[label] for masks, label in zip(mean, found["labels"], strict=True)])
    assert torch.allclose(found["masks"][:, 0], expected, atol=1e-6) and found["masks"].shape[-1] == 28


# Hybrid Task Cascade ---------------------------------------------------------------------------------


def test_masks_read_those_before_and_what_is_around(hybrid: Detector) -> None:
    """Written out: m_1 = M_1(x), m_2 = M_2(x + G(m_1)), m_3 = M_3(x + G(m_2)), x with the semantic features."""
    heads = hybrid.eval().model.roi_heads
    torch.manual_seed(1)
    levels = {str(n): torch.rand(1, 8, 24 // 2**n or 1, 32 // 2**n) for n in range(5)}
    features = {**levels, SEMANTIC: torch.rand(1, 8, 12, 16)}
    boxes = [torch.tensor([[5.0, 5.0, 60.0, 60.0], [20.0, 20.0, 90.0, 80.0]])]
    with torch.no_grad():
        found = heads.mask_logits(features, boxes, [SIZE], upto=3)
        first, second, third = heads.stages
        x = first.mask_roi_pool(levels, boxes, [SIZE]) + heads.semantic_pool(features[SEMANTIC], boxes)
        one = first.mask_head(x)
        two = second.mask_head(x + F.conv2d(one, heads.flows[0].weight, heads.flows[0].bias))
        three = third.mask_head(x + F.conv2d(two, heads.flows[1].weight, heads.flows[1].bias))
        expected = [stage.mask_predictor(m) for stage, m in zip(heads.stages, (one, two, three), strict=True)]
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
        heads.train()
        (last,) = heads.mask_logits(features, boxes, [SIZE], upto=2)
        heads.eval()
        squares = first.box_roi_pool(levels, boxes, [SIZE])
        around = heads.semantic_pool(features[SEMANTIC], boxes).reshape(2, 8, 7, 2, 7, 2).mean(dim=(3, 5))
        assert torch.allclose(heads.pooled(features, boxes, [SIZE]), squares + around, atol=1e-5)
    assert torch.allclose(last, expected[1], atol=1e-5)


def test_masks_are_trained_on_the_boxes_of_their_own_stage(hybrid: Detector, monkeypatch: Any) -> None:
    """Interleaved: between the boxes of a stage and its masks the boxes are corrected and sampled anew."""
    heads = hybrid.train().model.roi_heads
    calls: list[tuple[str, torch.Tensor]] = []
    for number, stage in enumerate(heads.stages):
        inner = stage.select_training_samples

        def record(boxes: Any, targets: Any, number: int = number, inner: Any = inner) -> Any:
            calls.append((f"sample {number}", boxes[0]))
            return inner(boxes, targets)

        monkeypatch.setattr(stage, "select_training_samples", record)
    features = hybrid.model.backbone(torch.rand(1, 3, *SIZE))
    heads.losses(features, [torch.tensor([[20.0, 20.0, 40.0, 40.0]])], [SIZE], [target()])
    assert [name for name, _ in calls] == [f"sample {n}" for n in (0, 0, 1, 1, 2, 2)]
    for (_, masks), (_, boxes) in zip(calls[1::2], calls[2::2], strict=False):
        assert torch.equal(masks, boxes)  # the next stage starts where this one's masks did
    assert not torch.equal(calls[0][1], calls[1][1])


def test_stuff_is_learnt_where_it_is_labelled() -> None:
    """At stride 8, over the labelled places; by hand."""
    stuff = torch.full((16, 24), 255, dtype=torch.uint8)
    stuff[:8, :8], stuff[8:, 16:] = 2, 0
    logits = torch.zeros(2, 3, 4, 4)
    logits[0, 2, 0, 0] = 1.0
    wanted = stuff_maps([{"stuff": stuff}, {}], [(16, 24), (32, 32)], logits)
    expected = torch.full((2, 4, 4), 255)
    expected[0, 0, 0], expected[0, 1, 2] = 2, 0
    assert torch.equal(wanted, expected)
    hand = (-math.log(math.e / (math.e + 2)) + math.log(3)) / 2
    assert float(semantic_loss(logits, wanted)) == pytest.approx(hand)
    logits.requires_grad_()
    nothing = semantic_loss(logits, torch.full((2, 4, 4), 255))
    nothing.backward()
    assert float(nothing.detach()) == 0 and logits.grad is not None and not bool(logits.grad.any())


def test_the_semantic_term_has_its_weight(hybrid: Detector) -> None:
    torch.manual_seed(0)
    wanted = {**target(), "stuff": torch.ones(SIZE, dtype=torch.uint8)}
    heads = hybrid.train().model.roi_heads
    features = hybrid.model.backbone(torch.rand(1, 3, *SIZE))
    with torch.no_grad():
        _, terms = heads(features, [torch.tensor([[20.0, 20.0, 40.0, 40.0]])], [SIZE], [wanted])
        logits, _ = heads.semantic(list(features.values()))
        expected = 0.2 * -logits.log_softmax(dim=1)[:, 1].mean()
    assert float(terms["loss_semantic"]) == pytest.approx(float(expected), rel=1e-4)
    without = small("htc")
    assert without.model.roi_heads.semantic is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage_weights": [1.0, 0.5]}, r"network.stage_weights: found \[1.0, 0.5\], expected 3 numbers"),
        ({"stage_overlaps": [0.5, 0.6, 1.5]}, r"network.stage_overlaps: .* below 1"),
        ({"stage_deviations": [0.1, 0.05, 0.0]}, r"network.stage_deviations: .* above 0"),
        ({"stage_scores": "first"}, r"network.stage_scores: found 'first', expected own or last"),
        (
            {"semantic_classes": 19},
            r"network.semantic_classes: found 19, but cascade_rcnn has no semantic branch",
        ),
        ({"centre_overlap": 0}, "network.centre_overlap: found 0, expected a number above 0 and below 1"),
        ({"hidden": 0}, "hidden must be at least 1, found 0"),
        ({"detector": "cascade"}, r"network.detector: found 'cascade'.*cascade_rcnn"),
    ],
)
def test_stages_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        small(options.pop("detector", "cascade_rcnn"), **options)
