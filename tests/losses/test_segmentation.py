"""The objectives of segmentation: by hand, against sorted and brute-force forms, and on empty batches."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from dvsn.config.build import build, options_of
from dvsn.config.menu import conf_dir
from dvsn.config.rules import validate
from dvsn.errors import ConfigError, DataError, UserError
from dvsn.losses import segmentation
from dvsn.losses.boundary import BoundaryCrossEntropy
from dvsn.losses.class_weights import CITYSCAPES, enet, median_frequency, resolve
from dvsn.losses.cross_entropy import (
    CrossEntropy,
    Focal,
    HardestCrossEntropy,
    OhemCrossEntropy,
    at_position,
    mean_of_largest,
)
from dvsn.losses.overlap import Dice, LovaszSoftmax, Tversky
from dvsn.losses.region import BoundaryDistance, RegionMutualInformation
from dvsn.losses.segmentation import Objective, Scores, Term, check_labels
from dvsn.types import SegmentationOutput

RECIPES = sorted(
    path.stem
    for path in Path(conf_dir(), "loss").glob("*.yaml")
    if "segmentation.Objective" in path.read_text(encoding="utf-8")
)
CLASS_TERMS: list[Term] = [
    CrossEntropy(),
    CrossEntropy(average="all", label_smoothing=0.1),
    CrossEntropy(average="valid"),
    OhemCrossEntropy(threshold=0.3, min_kept=40),
    OhemCrossEntropy(threshold=0.01, min_kept=7),
    HardestCrossEntropy(),
    HardestCrossEntropy(threshold=0.01, min_share=0.2),
    Focal(),
    Focal(gamma=0.5),
    Dice(),
    Dice(squared=True, classes="all"),
    LovaszSoftmax(),
    LovaszSoftmax(per_image=True, classes="all"),
    Tversky(),
    Tversky(gamma=0.75, classes="all"),
    Tversky(gamma=2.0),
    BoundaryDistance(),
    RegionMutualInformation(pool=1),
]


def case(
    seed: int, *, classes: int = 4, size: tuple[int, ...] = (2, 6, 7), ignored: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Logits (N, K, H, W) in float64 and labels (N, H, W), some ignored."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size[0], classes, *size[1:], generator=random, dtype=torch.float64)
    target = torch.randint(0, classes, size, generator=random)
    return logits, target.masked_fill(torch.rand(size, generator=random) < ignored, 255)


def value(term: nn.Module, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    result: Tensor = term(Scores(logits, target), target, class_weights)
    assert result.shape == ()
    return result


def certain(*probabilities: float) -> Tensor:
    """Logits (1, 2, 1, P) of pixels whose class 0 has these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack((p.log(), (1 - p).log()))[None, :, None]


def labels(*ids: int) -> Tensor:
    return torch.tensor(ids)[None, None]


# Cross entropy ------------------------------------------------------------------------------------------------


def test_the_three_averages_by_hand() -> None:
    """Probabilities 1/2, 1/4 and 3/4 of the true classes 0, 0 and 1; one pixel is ignored."""
    logits, target = certain(0.5, 0.25, 0.25, 0.9), labels(0, 0, 1, 255)
    a, b, c = math.log(2), math.log(4), math.log(4 / 3)
    weights = torch.tensor([3.0, 0.5])
    total, weighted = a + b + c, 3 * a + 3 * b + 0.5 * c
    cases: list[tuple[Any, float, float]] = [("all", 4, 4), ("valid", 3, 3), ("weights", 3, 6.5)]
    for average, plain, heavy in cases:
        term = CrossEntropy(average=average)
        assert value(term, logits, target).item() == pytest.approx(total / plain)
        assert value(term, logits, target, weights).item() == pytest.approx(weighted / heavy)
        light = torch.tensor([0.2, 0.1])  # together 0.5, and still what is divided by
        lighter = {"weights": 0.5}.get(average, heavy)
        assert value(term, logits, target, light).item() == pytest.approx((0.2 * (a + b) + 0.1 * c) / lighter)
        unweighted = CrossEntropy(average=average, weighted=False)
        assert value(unweighted, logits, target, weights).item() == pytest.approx(total / plain)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_averaged_by_weights_is_torch(smoothing: float) -> None:
    logits, target = case(0)
    weights = torch.tensor([0.3, 2.0, 1.0, 0.0], dtype=torch.float64)
    for given in (None, weights):
        wanted = F.cross_entropy(logits, target, given, ignore_index=255, label_smoothing=smoothing)
        torch.testing.assert_close(
            value(CrossEntropy(label_smoothing=smoothing), logits, target, given), wanted
        )


def test_label_smoothing_mixes_with_the_uniform() -> None:
    logits, target = certain(0.25), labels(0)
    wanted = 0.9 * math.log(4) + 0.1 * (math.log(4) + math.log(4 / 3)) / 2
    assert value(CrossEntropy(label_smoothing=0.1), logits, target).item() == pytest.approx(wanted)


# OHEM ---------------------------------------------------------------------------------------------------------


def sorted_ohem(
    logits: Tensor, target: Tensor, threshold: float, min_kept: int, weights: Tensor | None
) -> float:
    """The fact sheet's steps, pixel by pixel, with a full sort."""
    valid = target != 255
    losses = F.cross_entropy(logits, target, weights, ignore_index=255, reduction="none")[valid]
    q = logits.softmax(1).gather(1, (target * valid)[:, None])[:, 0][valid]
    if not len(q):
        return 0.0
    limit = max(q.sort().values[min(min_kept, len(q) - 1)].item(), threshold)
    kept = [loss.item() for loss, p in zip(losses, q, strict=True) if p.item() < limit - 1e-12]
    return sum(kept) / len(kept) if kept else 0.0


@pytest.mark.parametrize("seed", range(6))
def test_ohem_is_the_sorted_reference(seed: int) -> None:
    logits, target = case(seed)
    weights = torch.tensor([0.3, 2.0, 1.0, 0.7], dtype=torch.float64)
    for threshold in (0.01, 0.3, 0.7, 1.0):
        for min_kept in (0, 1, 5, 30, int((target != 255).sum()), 1000):
            term = OhemCrossEntropy(threshold=threshold, min_kept=min_kept)
            for given in (None, weights):
                wanted = sorted_ohem(logits, target, threshold, min_kept, given)
                assert value(term, logits, target, given).item() == pytest.approx(wanted), (
                    threshold,
                    min_kept,
                )


def test_ohem_by_hand() -> None:
    """q is 0.2, 0.4, 0.6, 0.95 of the class 0."""
    logits, target = certain(0.2, 0.4, 0.6, 0.95), labels(0, 0, 0, 0)
    loss = [-math.log(q) for q in (0.2, 0.4, 0.6, 0.95)]

    def ohem(threshold: float, min_kept: int) -> float:
        return value(OhemCrossEntropy(threshold=threshold, min_kept=min_kept), logits, target).item()

    assert ohem(0.5, 1) == pytest.approx(sum(loss[:2]) / 2)  # more lie below the threshold than must be kept
    assert ohem(0.3, 2) == pytest.approx(sum(loss[:2]) / 2)  # T = 0.6, strictly below: two are left
    assert ohem(0.3, 0) == pytest.approx(loss[0])
    assert ohem(0.9, 4) == pytest.approx(sum(loss[:3]) / 3)  # n <= K: exactly the easiest is left out
    assert ohem(0.96, 100) == pytest.approx(sum(loss) / 4)  # unless it lies below the threshold
    assert ohem(0.1, 0) == 0.0  # T is the least q itself: nothing is left, and nothing is NaN


def test_ohem_leaves_ties_at_the_limit_out() -> None:
    logits, target = certain(0.25, 0.5, 0.5, 0.5, 0.75), labels(0, 0, 0, 0, 0)
    assert value(OhemCrossEntropy(threshold=0.3, min_kept=2), logits, target).item() == pytest.approx(
        math.log(4)
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_position_is_found_without_a_sort(seed: int) -> None:
    """What a GPU always asks, and the CPU when few pixels are hard."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 30, (3, 5, 8), generator=random) / 32  # with ties
    valid = torch.rand(values.shape, generator=random) < 0.6
    ranked = values[valid].sort().values
    for position in (0, 1, 17, len(ranked) - 1, len(ranked), 119, 120, 10**6):
        assert at_position(values, valid, position) == ranked[min(position, len(ranked) - 1)]
    assert at_position(values, torch.zeros_like(valid), 3) == -math.inf


def test_the_hardest_share_by_hand() -> None:
    logits, target = certain(0.2, 0.4, 0.6, 0.95, 0.9, 0.5), labels(0, 0, 0, 0, 255, 255)

    def hardest(threshold: float, share: float) -> float:
        return value(HardestCrossEntropy(threshold=threshold, min_share=share), logits, target).item()

    loss = [-math.log(q) for q in (0.2, 0.4, 0.6, 0.95)]
    assert hardest(0.5, 0.25) == pytest.approx(sum(loss[:2]) / 2)
    assert hardest(0.1, 0.25) == pytest.approx(loss[0])
    assert hardest(0.5, 0.75) == pytest.approx(sum(loss[:3]) / 3)
    assert hardest(0.5, 0.99) == pytest.approx(sum(loss[:3]) / 3)  # 3.96 of 4 valid pixels: 3
    assert hardest(0.1, 0.2) == 0.0  # 0.8 of a pixel, and none below the threshold
    assert HardestCrossEntropy().threshold == 0.7 and HardestCrossEntropy().min_share == 1 / 16


def test_the_mean_of_the_largest_counts_on_the_device() -> None:
    values = torch.tensor([[3.0, 1.0], [2.0, 5.0]])
    for count, wanted in ((0, 0.0), (1, 5.0), (2, 4.0), (3, 10 / 3)):
        assert mean_of_largest(values, torch.tensor(count), most=3).item() == pytest.approx(wanted)
    assert mean_of_largest(values, torch.tensor(0), most=0) == 0


def test_a_network_that_answers_nan_does_not_look_good() -> None:
    logits, target = case(0, ignored=0.3)
    for term in CLASS_TERMS:
        assert value(term, logits * math.nan, target).isnan(), term


# Focal, Dice, Lovasz ------------------------------------------------------------------------------------------


def test_focal_by_hand() -> None:
    logits, target = certain(0.5, 0.25, 0.25, 0.9), labels(0, 0, 1, 255)
    parts = [0.5**3 * math.log(2), 0.75**3 * math.log(4), 0.25**3 * math.log(4 / 3)]
    assert value(Focal(gamma=3.0), logits, target).item() == pytest.approx(sum(parts) / 3)
    weights = torch.tensor([2.0, 4.0])
    wanted = (2 * parts[0] + 2 * parts[1] + 4 * parts[2]) / 3
    assert value(Focal(gamma=3.0), logits, target, weights).item() == pytest.approx(wanted)
    cross_entropy = value(CrossEntropy(), *case(3))
    torch.testing.assert_close(value(Focal(gamma=0.0), *case(3)), cross_entropy)


def test_focal_learns_at_any_gamma_from_a_pixel_that_is_surely_right() -> None:
    for gamma in (0.0, 0.5, 1.0, 2.0):
        logits = torch.tensor([[200.0, -200.0]])[:, :, None, None].requires_grad_()
        value(Focal(gamma=gamma), logits, labels(0)).backward()
        assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_dice_by_hand() -> None:
    """Two valid pixels, class 0 with 0.8 and 0.4, true 0 and 1; a third is ignored; class 2 is absent."""
    p = torch.tensor([[0.8, 0.4, 0.1], [0.1, 0.5, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)  # (K, P)
    logits, target = p.log()[None, :, None], labels(0, 1, 255)
    first = (2 * 0.8 + 1) / (1.2 + 1 + 1)
    second = (2 * 0.5 + 1) / (0.6 + 1 + 1)
    third = 1 / (0.2 + 1)
    assert value(Dice(), logits, target).item() == pytest.approx(1 - (first + second) / 2)
    all_three = 1 - (first + second + third) / 3
    assert value(Dice(classes="all"), logits, target).item() == pytest.approx(all_three)
    squared = [2 * 0.8 / (0.64 + 0.16 + 1), 2 * 0.5 / (0.01 + 0.25 + 1)]
    found = value(Dice(squared=True, smooth=0.0), logits, target).item()
    assert found == pytest.approx(1 - sum(squared) / 2)


def brute_force_lovasz(logits: Tensor, target: Tensor, classes: str) -> float:
    """Eq. 9 of the paper: errors in falling order, times what each adds to the Jaccard loss of the set before."""
    valid = target != 255
    probability, truth = logits.softmax(1).movedim(1, -1)[valid], target[valid].tolist()
    values = []
    for k in range(logits.shape[1]):
        true_set = {i for i, t in enumerate(truth) if t == k}
        if not true_set and classes == "present":
            continue
        errors = [1 - p[k].item() if i in true_set else p[k].item() for i, p in enumerate(probability)]

        def jaccard_loss(wrong: set[int], true_set: set[int] = true_set) -> float:
            return len(wrong) / len(true_set | wrong) if wrong else 0.0

        total, wrong = 0.0, set[int]()
        for i in np.argsort([-error for error in errors]).tolist():
            total += errors[i] * (jaccard_loss(wrong | {i}) - jaccard_loss(wrong))
            wrong |= {i}
        values.append(total)
    return sum(values) / len(values) if values else 0.0


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_lovasz_is_brute_force(seed: int, classes: Any) -> None:
    logits, target = case(seed, classes=5)
    target[target == 2] = 255  # a class that is absent
    found = value(LovaszSoftmax(classes=classes), logits, target).item()
    assert found == pytest.approx(brute_force_lovasz(logits, target, classes))
    target[1, :, :] = 255  # an image without a valid pixel has no say in the mean over images
    found = value(LovaszSoftmax(classes=classes, per_image=True), logits, target).item()
    assert found == pytest.approx(brute_force_lovasz(logits[:1], target[:1], classes))


def test_lovasz_of_a_hard_answer_is_one_minus_iou() -> None:
    answer, target = labels(0, 0, 0, 1, 1, 0), labels(0, 0, 1, 1, 0, 255)
    logits = 200.0 * F.one_hot(answer, 2).movedim(-1, 1).double()  # IoU: 2 / 4 and 1 / 3
    wanted = 1 - (2 / 4 + 1 / 3) / 2
    assert value(LovaszSoftmax(), logits, target).item() == pytest.approx(wanted)
    assert value(Dice(smooth=0.0), logits, target).item() == pytest.approx(1 - (4 / 6 + 2 / 4) / 2)


# What holds for every term on classes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CrossEntropy, OhemCrossEntropy, HardestCrossEntropy, Focal])
def test_class_weights_are_used_unless_they_are_not_wanted(kind: Any) -> None:
    logits, target = case(4)
    weights = torch.tensor([0.1, 9.0, 1.0, 2.0], dtype=torch.float64)
    plain = value(kind(), logits, target)
    assert value(kind(weighted=False), logits, target, weights) == plain
    assert value(kind(), logits, target, weights) != plain


@pytest.mark.parametrize("term", CLASS_TERMS, ids=repr)
def test_gradients_are_those_of_the_value(term: Term) -> None:
    logits, target = case(1, size=(2, 3, 4))
    weights = torch.tensor([0.3, 2.0, 1.0, 0.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: value(term, x, target, weights), logits.requires_grad_())


@pytest.mark.parametrize("term", CLASS_TERMS, ids=repr)
def test_ignored_pixels_have_no_gradient_and_no_say(term: Term) -> None:
    logits, target = case(2)
    logits.requires_grad_()
    result = value(term, logits, target)
    result.backward()
    ignored = (target == 255)[:, None].expand_as(logits)
    assert logits.grad is not None and bool((logits.grad[ignored] == 0).all())
    assert bool((logits.grad != 0).any())
    changed = torch.where(ignored, torch.randn_like(logits), logits.detach())
    torch.testing.assert_close(value(term, changed, target), result.detach())


@pytest.mark.parametrize("term", CLASS_TERMS, ids=repr)
def test_poor_batches_are_finite(term: Term) -> None:
    logits, target = case(3)
    one = torch.full_like(target, 255)
    one[0, 0, 0] = 1
    sure = 60.0 * F.one_hot(torch.full_like(target, 1), 4).movedim(-1, 1).double()
    for answer, truth in (
        (logits, torch.full_like(target, 255)),
        (logits, torch.full_like(target, 2)),
        (logits, one),
        (sure, one),
        (sure, torch.full_like(target, 1)),
        (-10 * sure, one),
    ):
        leaf = answer.clone().requires_grad_()
        result = value(term, leaf, truth)
        result.backward()
        assert bool(result.isfinite()) and leaf.grad is not None and bool(leaf.grad.isfinite().all())
        if bool((truth == 255).all()):
            assert not bool(leaf.grad.any())
            constant = isinstance(term, RegionMutualInformation)  # below 0, of regions without any difference
            assert constant or result == 0


# The boundary head ----------------------------------------------------------------------------------------------


def test_boundary_by_hand() -> None:
    """One outline pixel of four, in two images: balanced over the batch, not each image; ignored ones take part."""
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64).view(2, 1, 1, 2)
    boundary = torch.tensor([1, 0, 0, 0], dtype=torch.uint8).view(2, 1, 1, 2)

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    rest = softplus(-1.0) + softplus(2.0) + softplus(0.0)
    wanted = (0.75 * softplus(-0.3) + 0.25 * rest) / 4
    term = BoundaryCrossEntropy()
    assert term(logits, boundary).item() == pytest.approx(wanted)
    for flat in (boundary * 0, boundary * 0 + 1):  # only one kind: all weights are zero
        leaf = logits.clone().requires_grad_()
        result = term(leaf, flat)
        result.backward()
        assert result == 0 and leaf.grad is not None and not bool(leaf.grad.any())
    assert (term.weight, term.boundary_options) == (20.0, {"kernel": 4, "frame": 0})


def test_a_boundary_value_that_is_neither_weighs_nothing_but_counts_in_the_mean() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64).view(1, 1, 1, 3)
    boundary = torch.tensor([1, 0, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    wanted = 0.5 * (F.softplus(-logits[..., 0]) + F.softplus(logits[..., 1])) / 3
    torch.testing.assert_close(BoundaryCrossEntropy()(logits, boundary), wanted.squeeze())


# The objective --------------------------------------------------------------------------------------------------


def recipe(name: str, **options: Any) -> Any:
    text = Path(conf_dir(), "loss", f"{name}.yaml").read_text(encoding="utf-8")
    plain = {
        "facts.class_weights": "null",
        "facts.boundary_frame": "0",
        "classes": "4",
    }  # of a data set without a recipe
    for key, value in plain.items():
        text = text.replace(f"${{data.{key}}}", value)
    return yaml.safe_load(text) | options


def answer(
    seed: int = 0, *, size: tuple[int, int] = (3, 4), auxiliary: int = 2, dtype: torch.dtype = torch.float32
) -> SegmentationOutput:
    """A network's output with all heads, each a leaf that wants its gradient."""
    random = torch.Generator().manual_seed(seed)

    def head(channels: int) -> Tensor:
        return (3 * torch.randn(2, channels, *size, generator=random)).to(dtype).requires_grad_()

    return SegmentationOutput(head(4), tuple(head(4) for _ in range(auxiliary)), head(1))


def truth(seed: int = 0, size: tuple[int, int] = (24, 32)) -> tuple[Tensor, Tensor]:
    """Labels and outlines as the data module gives them, uint8 (N, H, W)."""
    random = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 4, (2, *size), generator=random, dtype=torch.uint8)
    target[:, :3] = 255
    return target, (torch.rand(2, *size, generator=random) < 0.2).to(torch.uint8)


def test_training_heads_that_no_term_reads_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    def warnings(name: str, output: SegmentationOutput, *leave_out: str) -> list[str]:
        node = recipe(name)
        node["terms"].update(dict.fromkeys(leave_out))
        objective, maps = build(node, path="loss"), truth()
        caplog.clear()
        for _ in range(2):
            objective(output, *maps)
        return [record.message for record in caplog.records]

    assert warnings("pidnet", answer()) == []
    assert warnings("pidnet", answer(), "boundary") == []  # its choice of pixels reads the head
    (found,) = warnings("pidnet", answer(), "boundary", "main_at_boundary")
    assert "boundary head:" in found
    (found,) = warnings("pidnet", answer(), "auxiliary")
    assert "auxiliary head 0 and auxiliary head 1:" in found
    assert warnings("cross_entropy", answer()._replace(auxiliary=(), boundary=None)) == []
    (found,) = warnings("ddrnet", answer(auxiliary=1))
    assert "boundary head:" in found


@pytest.mark.parametrize("align_corners", [True, False])
def test_pidnet_is_the_formula(align_corners: bool) -> None:
    """0.4 l0 + 20 l1 + l2 + l3, written independently, as the authors' code adds maps and scalars up."""
    weights = [0.5, 2.0, 1.0, 0.8]
    node = recipe("pidnet", class_weights=weights, align_corners=align_corners)
    for name in ("main", "main_at_boundary"):
        node["terms"][name]["min_kept"] = 100
    objective = build(node, path="loss")
    output, (target, boundary) = answer(auxiliary=1), truth()
    terms = objective(output, target, boundary)
    assert list(terms) == ["auxiliary", "boundary", "main", "main_at_boundary"]

    def up(logits: Tensor | None) -> Tensor:
        assert logits is not None
        return F.interpolate(
            logits.detach(), size=(24, 32), mode="bilinear", align_corners=align_corners
        ).double()

    p, y, b = up(output.auxiliary[0]), up(output.logits), up(output.boundary)[:, 0]
    target = target.long()
    w = torch.tensor(weights, dtype=torch.float64)
    map_l0 = F.cross_entropy(p, target, w, ignore_index=255, reduction="none")
    edges = (boundary == 1).double()
    balance = torch.where(boundary == 1, 1 - edges.mean(), edges.mean())
    l1 = (balance * F.binary_cross_entropy(b.sigmoid(), edges, reduction="none")).mean()
    l2 = sorted_ohem(y, target, 0.9, 100, w)
    l3 = sorted_ohem(y, torch.where(b.sigmoid() > 0.8, target, 255), 0.9, 100, w)
    total = (0.4 * map_l0 + (20 * l1 + l2 + l3)).mean()
    assert sum(term.item() for term in terms.values()) == pytest.approx(total.item(), rel=1e-5)
    assert terms["auxiliary"].item() == pytest.approx(0.4 * map_l0.mean().item(), rel=1e-5)
    assert terms["boundary"].item() == pytest.approx(20 * l1.item(), rel=1e-5)
    assert terms["main_at_boundary"].item() == pytest.approx(l3, rel=1e-5)
    assert l3 != pytest.approx(l2)


def test_the_choice_of_outline_pixels_has_no_gradient() -> None:
    node = recipe("pidnet")
    node["terms"] = {"main_at_boundary": node["terms"]["main_at_boundary"]}
    output, (target, _) = answer(), truth()
    objective = build(node, path="loss")
    assert not objective.needs_boundary
    objective(output, target)["main_at_boundary"].backward()
    assert output.boundary is not None and output.boundary.grad is None and output.logits.grad is not None
    unsure = output._replace(boundary=torch.full_like(output.boundary, -9.0))
    assert objective(unsure, target)["main_at_boundary"] == 0  # no pixel left


def test_align_corners_may_be_filled_in_later() -> None:
    output, (target, _) = answer(), truth()
    objective = build(recipe("cross_entropy"), path="loss")
    assert objective.align_corners is None
    found: dict[bool | None, Tensor] = {None: objective(output, target)["main"]}
    for align_corners in (False, True):
        logits = F.interpolate(output.logits, (24, 32), mode="bilinear", align_corners=align_corners)
        objective.align_corners = align_corners
        found[align_corners] = objective(output, target)["main"]
        wanted = F.cross_entropy(logits, target.long(), ignore_index=255)
        torch.testing.assert_close(found[align_corners], wanted, rtol=1e-5, atol=1e-6)
    assert found[None] == found[False] != found[True]


def test_heads_by_name_and_by_index() -> None:
    output, (target, _) = answer(auxiliary=3), truth()

    def of(head: Any) -> float:
        objective = Objective(classes=4, terms={"x": CrossEntropy(weight=0.5, head=head)})
        return objective(output, target)["x"].item()

    assert of("auxiliary") == pytest.approx(of(0) + of(1) + of(2))
    swapped = SegmentationOutput(output.auxiliary[1])
    main = Objective(classes=4, terms={"x": CrossEntropy(weight=0.5)})
    assert of(1) == pytest.approx(main(swapped, target)["x"].item())
    for head in (3, "auxiliary"):
        lacking = output if head == 3 else SegmentationOutput(output.logits)
        objective = Objective(classes=4, terms={"deep": CrossEntropy(head=head)})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"loss\.terms\.deep.*auxiliary heads"):
            objective(lacking, target)


def test_every_head_is_resized_once_and_its_pixels_are_worked_out_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: dict[str, int] = {}

    def count(module: Any, name: str) -> None:
        original = getattr(module, name)

        def wrapper(*args: Any, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return original(*args, **options)

        monkeypatch.setattr(module, name, wrapper)

    count(segmentation, "resize")
    count(segmentation, "resized_cross_entropy")
    build(recipe("pidnet"), path="loss")(answer(auxiliary=1), *truth())
    assert calls == {"resize": 1, "resized_cross_entropy": 2}  # the boundary head; the class heads
    count(F, "interpolate")
    build(recipe("pidnet"), path="loss")(answer(auxiliary=1, size=(24, 32)), *truth())
    assert "interpolate" not in calls  # no resize when the sizes agree


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", RECIPES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    objective = build(recipe(name, class_weights=[0.5, 2.0, 1.0, 0.8]), path="loss")
    half, (target, boundary) = answer(dtype=dtype), truth()
    assert half.boundary is not None
    full = SegmentationOutput(
        half.logits.float(), tuple(each.float() for each in half.auxiliary), half.boundary.float()
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective(half, target, boundary)
    for key, wanted in objective(full, target, boundary).items():
        assert terms[key].dtype == torch.float32
        torch.testing.assert_close(terms[key], wanted, rtol=0, atol=0)
    torch.stack(list(terms.values())).sum().backward()
    assert half.logits.grad is not None and half.logits.grad.dtype == dtype


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_finite_on_every_batch(name: str) -> None:
    objective = build(recipe(name, class_weights=[0.5, 2.0, 1.0, 0.8]), path="loss")
    target, boundary = truth()
    one = torch.full_like(target, 255)
    one[1, 5, 5] = 3
    for truths in (target, torch.full_like(target, 255), torch.full_like(target, 1), one, target.long()):
        for outlines in (boundary, boundary * 0):
            output = answer()
            terms = objective(output, truths, outlines)
            total = torch.stack(list(terms.values())).sum()
            total.backward()
            grads = [each.grad for each in (output.logits, *output.auxiliary, output.boundary)]  # type: ignore[union-attr]
            used = [grad for grad in grads if grad is not None]
            assert bool(total.isfinite()) and used and all(bool(grad.isfinite().all()) for grad in used)
            assert all(term.ndim == 0 and term.requires_grad for term in terms.values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_repeats_every_option_and_passes_the_checks(name: str) -> None:
    node = recipe(name)
    validate({"loss": node})
    kinds = [(node, Objective)] + [(term, type(build(term, path="loss"))) for term in node["terms"].values()]
    for given, kind in kinds:
        assert set(given) - {"_target_"} == set(options_of(kind).named), given["_target_"]
    assert node["align_corners"] is None and node["class_weights"] is None


def test_labels_that_no_class_has_are_named() -> None:
    objective = build(recipe("cross_entropy"), path="loss")
    target, _ = truth()
    target[0, 4, 4], target[1, 5, 5:8] = 4, 19
    with pytest.raises(DataError, match=r"4 \(1 pixels\), 19 \(3 pixels\).*0 to 3.*255"):
        objective(answer(), target)
    with pytest.raises(DataError, match=r"-1 \(1 pixels\)"):
        check_labels(torch.tensor([0, -1, 255]), classes=4)
    check_labels(torch.tensor([0, 3, 255], dtype=torch.uint8), classes=4)


def test_what_does_not_fit_is_refused() -> None:
    target, boundary = truth()
    pidnet = build(recipe("pidnet"), path="loss")
    assert pidnet.needs_boundary and pidnet.boundary_options == {"kernel": 4, "frame": 0}
    with pytest.raises(UserError, match=r"boundary map is None, expected \(2, 24, 32\)"):
        pidnet(answer(), target)
    with pytest.raises(ConfigError, match=r"loss\.terms\.boundary.*null"):
        pidnet(answer()._replace(boundary=None), target, boundary)
    with pytest.raises(UserError, match=r"labels are \(2, 1, 24, 32\)"):
        pidnet(answer(), target[:, None], boundary)
    with pytest.raises(ConfigError, match="the network answers 4 classes"):
        build(recipe("cross_entropy", classes=5), path="loss")(answer(), target)
    with pytest.raises(ConfigError, match="two classes"):
        Objective(classes=1, terms={"main": CrossEntropy()})
    with pytest.raises(ConfigError, match="no term"):
        Objective(classes=2, terms={"main": None})
    with pytest.raises(ConfigError, match=r"loss\.terms\.main.*Conv2d"):
        Objective(classes=2, terms={"main": nn.Conv2d(1, 1, 1)})
    two = {"a": BoundaryCrossEntropy(kernel=2), "b": BoundaryCrossEntropy(kernel=4)}
    with pytest.raises(ConfigError, match="one boundary map"):
        Objective(classes=2, terms=two)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (CrossEntropy, {"average": "valid_pixels"}, "Did you mean 'valid'"),
        (CrossEntropy, {"label_smoothing": 1.0}, "label_smoothing"),
        (CrossEntropy, {"weight": -1.0}, "weight"),
        (CrossEntropy, {"weight": math.nan}, "weight"),
        (CrossEntropy, {"head": "aux"}, "head='aux'"),
        (CrossEntropy, {"head": True}, "head=True"),
        (CrossEntropy, {"boundary_threshold": 1.5}, "boundary_threshold"),
        (OhemCrossEntropy, {"threshold": 0.0}, "threshold"),
        (OhemCrossEntropy, {"min_kept": -1}, "min_kept"),
        (HardestCrossEntropy, {"min_share": 1.5}, "min_share"),
        (Focal, {"gamma": -1.0}, "gamma"),
        (Dice, {"classes": "some"}, "classes='some'"),
        (Dice, {"smooth": -1.0}, "smooth"),
        (LovaszSoftmax, {"classes": "some"}, "classes='some'"),
        (BoundaryCrossEntropy, {"kernel": 0}, "kernel"),
    ],
)
def test_meaningless_options_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options)


def test_an_objective_adds_nothing_to_a_checkpoint() -> None:
    objective = build(recipe("pidnet", class_weights=[1, 2, 3, 4]), path="loss")
    assert not objective.state_dict() and not list(objective.parameters())
    assert objective.double().class_weights.tolist() == [1, 2, 3, 4]  # moves with the module


# Class weights --------------------------------------------------------------------------------------------------


def test_weights_by_name_list_and_file(tmp_path: Path) -> None:
    assert resolve(None, classes=3) is None
    assert resolve("cityscapes", classes=19) == list(CITYSCAPES)
    assert (CITYSCAPES[0], CITYSCAPES[3], CITYSCAPES[-1], sum(CITYSCAPES)) == (
        0.8373, 1.0345, 1.0507, pytest.approx(19.0001)
    )  # fmt: skip
    assert resolve([1, 2.5], classes=2) == [1.0, 2.5]
    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"method": "enet", "weights": [1.5, 2], "classes": ["a", "b"]}))
    assert resolve(str(file), classes=2) == [1.5, 2.0]
    for wrong, message in (
        ("cityscapes", "expected 2 numbers.*found 19"),
        ("cityscape", "Did you mean 'cityscapes'"),
        ([1.0], "expected 2 numbers.*found 1 "),
        ([1.0, "x"], "expected 2 numbers"),
        ([0.0, 0.0], "above 0"),
        ([1.0, math.nan], "finite"),
        ([1.0, -1.0], "finite"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(wrong, classes=2)  # type: ignore[arg-type]
    for content in ("{", "[1, 2]", '{"other": 1}', '{"weights": 3}'):
        file.write_text(content)
        with pytest.raises(ConfigError, match=r"weights\.json"):
            resolve(str(file), classes=2)


def test_formulas_by_hand() -> None:
    """Frequencies 0.1, 0.5 and 0.2, and a class that never occurs."""
    assert median_frequency([10, 50, 10, 0], [100, 100, 50, 0]) == pytest.approx([2.0, 0.4, 1.0, 0.0])
    assert median_frequency([10, 50], [100, 100]) == pytest.approx([3.0, 0.6])
    assert median_frequency([0, 0], [0, 0]) == [0.0, 0.0]
    assert enet([50, 0], total=100) == pytest.approx([1 / math.log(1.52), 1 / math.log(1.02)])
    assert enet([0], total=0) == pytest.approx([1 / math.log(1.02)])


def test_formulas_give_the_weights_known_for_camvid() -> None:
    folder = Path(os.environ.get("DVSN_DATA", "data"), "camvid", "trainannot")
    if not folder.is_dir():
        pytest.skip(f"no CamVid at {folder}")
    counts, present, total = np.zeros(12, np.int64), np.zeros(12, np.int64), 0
    for file in folder.glob("*.png"):
        ids = np.asarray(cv2.imread(str(file), cv2.IMREAD_UNCHANGED))
        histogram = np.bincount(ids.ravel(), minlength=12)
        counts, total = counts + histogram, total + int(histogram.sum())
        present += (histogram > 0) * histogram.sum()
    assert median_frequency(counts[:11].tolist(), present[:11].tolist()) == pytest.approx(
        [0.2793, 0.2017, 4.7865, 0.1490, 1.0, 0.4217, 3.8467, 1.9736, 0.7889, 6.3747, 8.8587], abs=6e-5
    )
    assert enet(counts[:11].tolist(), total=total) == pytest.approx(
        [5.792, 4.440, 34.022, 3.447, 15.912, 9.020, 32.014, 32.479, 13.207, 38.388, 44.135], abs=6e-4
    )
