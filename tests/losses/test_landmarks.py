"""Losses of landmarks: values worked out by hand, gradients where they belong, and what the published readings do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dvsn.errors import ConfigError
from dvsn.losses.heatmaps import AdaptiveWing
from dvsn.losses.landmarks import L1, L2, LandmarkLoss, PFLDLoss, SmoothL1, SoftWing, Wing
from dvsn.types import LandmarkOutput

MODES = ["robust", "paper", "published", "seed", "seed_as_coded"]
WING = 10 - 10 * math.log(6)  # C of w = 10, epsilon = 2
SOFT = 2 - 20 * math.log(5)  # B of 2, 20 and 0.5


def one_face(*errors: float, size: float = 112.0) -> tuple[LandmarkOutput, Tensor, Tensor]:
    """A face whose numbers are wrong by so many pixels of the crop."""
    points = torch.full((1, len(errors) // 2, 2), 0.5)
    return (
        LandmarkOutput(points + torch.tensor(errors).view(1, -1, 2) / size),
        points,
        torch.ones(points.shape[:2]),
    )


# Penalties -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "expected"),  # of errors 0, -0.5, 4 and 30
    [
        (L1(), 34.5),
        (L2(), 0.25 + 16 + 900),
        (SmoothL1(), 0.125 + 3.5 + 29.5),
        (SmoothL1(beta=8.0), 0.25 / 16 + 1 + 26),
        (Wing(), 10 * math.log(1.25) + 10 * math.log(3) + 30 - WING),
        (Wing(w=5.0, epsilon=0.5), 5 * math.log(2) + 5 * math.log(9) + 30 - 5 + 5 * math.log(11)),
        (SoftWing(), 0.5 + 20 * math.log(9) + SOFT + 20 * math.log(61) + SOFT),
    ],
)
def test_penalties_by_hand(loss: LandmarkLoss, expected: float) -> None:
    output, points, weight = one_face(0.0, -0.5, 4.0, 30.0)
    terms = loss(output, points, weight)
    assert list(terms) == ["points"] and float(terms["points"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("loss", "seam"), [(SmoothL1(), 1.0), (Wing(), 10.0), (SoftWing(), 2.0)])
def test_penalties_are_continuous(loss: LandmarkLoss, seam: float) -> None:
    below, above = loss.penalty(torch.tensor([seam * (1 - 1e-6), seam * (1 + 1e-6)]))
    assert float(below) == pytest.approx(float(above), rel=1e-4)


def test_pixels_are_those_of_the_size() -> None:
    output, points, weight = one_face(0.0, -0.5, 4.0, 30.0)
    assert float(L1(size=224.0)(output, points, weight)["points"]) == pytest.approx(69.0, rel=1e-5)
    assert float(L2(size=224.0)(output, points, weight)["points"]) == pytest.approx(4 * 916.25, rel=1e-5)


def test_a_sum_over_labelled_numbers_and_a_mean_over_faces() -> None:
    points = torch.zeros(2, 3, 2)
    errors = torch.tensor([[[1.0, 2], [3, 4], [100, 100]], [[5, 6], [100, 100], [100, 100]]]) / 112
    weight = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    terms = L1()(LandmarkOutput(errors), points, weight)
    assert float(terms["points"]) == pytest.approx((1 + 2 + 3 + 4 + 5 + 6) / 2, rel=1e-5)


def test_the_angle_term_is_of_faces_whose_angles_are_known() -> None:
    points, weight = torch.zeros(3, 2, 2), torch.ones(3, 2)
    predicted = torch.tensor([[0.1, 0.2, 0.3], [1, 1, 1], [0, 0, 0]], requires_grad=True)
    truth = torch.tensor([[0.0, 0, 0], [math.nan, math.nan, math.nan], [0, 0, 0.5]])
    output = LandmarkOutput(points, predicted)
    terms = L2(angle_weight=2.0)(output, points, weight, angles=truth)
    assert float(terms["angles"].detach()) == pytest.approx(2 * (0.01 + 0.04 + 0.09 + 0.25) / 2)
    terms["angles"].backward()
    torch.testing.assert_close(predicted.grad, torch.tensor([[0.2, 0.4, 0.6], [0, 0, 0], [0, 0, -1.0]]))
    nobody = L2()(output, points, weight, angles=torch.full((3, 3), math.nan))["angles"]
    assert float(nobody.detach()) == 0
    assert list(L2()(output, points, weight)) == ["points"]
    assert list(L2()(LandmarkOutput(points), points, weight, angles=truth)) == ["points"]


# PFLD ----------------------------------------------------------------------------------------------------------

DEGREE = math.pi / 180
FLAGS = torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0]])
"""Pose; expression and blur; a plain face; expression and occlusion."""
SQUARES = [0.02, 0.03, 0.05, 0.08]
TRUTH = torch.tensor([[0.0, 0, 0], [10, 0, 0], [0, 20, 0], [0, 0, -30]]) * DEGREE


def four_faces() -> tuple[LandmarkOutput, Tensor, Tensor]:
    """Points off by e of `SQUARES`, angles of 0."""
    points = torch.full((4, 5, 2), 0.5)
    wrong = points.clone()
    wrong[:, 3, 1] += torch.tensor(SQUARES).sqrt()
    return (
        LandmarkOutput(wrong.requires_grad_(), torch.zeros(4, 3, requires_grad=True)),
        points,
        torch.ones(4, 5),
    )


def value(mode: str, **options: Any) -> float:
    output, points, weight = four_faces()
    loss = PFLDLoss(mode=mode, **options)  # type: ignore[arg-type]
    return float(loss(output, points, weight, angles=TRUTH, attributes=FLAGS)["points"].detach())


A = [1 - math.cos(angle * DEGREE) for angle in (0, 10, 20, 30)]


def test_the_paper_and_the_seed_as_meant() -> None:
    g = [4, 2 + 4, 0, 2 + 4]  # shares 1/4, 2/4, -, -, 1/4, 1/4
    expected = sum(a * b * e for a, b, e in zip(A, g, SQUARES, strict=True)) / 4
    assert value("paper") == pytest.approx(expected, rel=1e-5)
    assert value("seed") == pytest.approx(expected, rel=1e-5)


def test_the_paper_with_the_shares_of_the_data_set() -> None:
    shares = [0.1, 0.2, 0.3, 0.0, 0.4, 0.5]
    g = [10, 5 + 2, 0, 5 + 2.5]
    expected = sum(a * b * e for a, b, e in zip(A, g, SQUARES, strict=True)) / 4
    assert value("paper", shares=shares) == pytest.approx(expected, rel=1e-5)


def test_the_seed_as_coded_multiplies_every_angle_with_every_face() -> None:
    g = [4, 6, 0, 6]
    table = [[a * b * e for b, e in zip(g, SQUARES, strict=True)] for a in A]  # N x N
    expected = sum(map(sum, table)) / 16
    assert value("seed_as_coded") == pytest.approx(expected, rel=1e-5)
    assert value("seed_as_coded") != pytest.approx(value("seed"), rel=1e-2)
    g = [4, 4 + 4, 4, 4 + 4]  # blur and occlusion have a share of 1/4
    table = [[a * b * e for b, e in zip(g, SQUARES, strict=True)] for a in A]
    assert value("seed_as_coded", misplaced_flags=True) == pytest.approx(sum(map(sum, table)) / 16, rel=1e-5)


def test_the_published_code_takes_degrees_for_radians_and_drops_a_flag() -> None:
    a = [1 - math.cos(angle) for angle in (0, 10, 20, -30)]  # of degrees
    g = [0, 6, 0, 6]
    expected = sum(x * y * e for x, y, e in zip(a, g, SQUARES, strict=True)) / 4
    assert value("published") == pytest.approx(expected, rel=1e-4)
    output, points, weight = four_faces()
    shifted = LandmarkOutput(output.points, torch.full((4, 3), 2 * math.pi))  # periodic
    terms = PFLDLoss(mode="published")(shifted, points, weight, angles=TRUTH, attributes=FLAGS)
    assert float(terms["points"].detach()) == pytest.approx(expected, rel=1e-4)


def test_robust_by_hand() -> None:
    g = [4, 6, 4, 6]  # the plain face is a class of its own, of share 1/4
    expected = sum((1 + a) * b / 5 * e for a, b, e in zip(A, g, SQUARES, strict=True)) / 4
    output, points, weight = four_faces()
    terms = PFLDLoss(angle_weight=3.0)(output, points, weight, angles=TRUTH, attributes=FLAGS)
    assert list(terms) == ["points", "angles"]
    assert float(terms["points"].detach()) == pytest.approx(expected, rel=1e-5)
    squares = (100 + 400 + 900) * DEGREE**2 / 4
    assert float(terms["angles"].detach()) == pytest.approx(3 * squares, rel=1e-5)


def test_robust_without_attributes_or_angles_is_the_plain_sum_of_squares() -> None:
    output, points, weight = four_faces()
    terms = PFLDLoss()(LandmarkOutput(output.points), points, weight)
    assert list(terms) == ["points"]
    assert float(terms["points"].detach()) == pytest.approx(sum(SQUARES) / 4, rel=1e-5)


def test_robust_with_given_shares_and_another_distance() -> None:
    shares = [0.1, 0.2, 0.0, 0.0, 0.4, 0.5, 0.8]
    g = [10, 5 + 2, 1.25, 5 + 2.5]
    mean = sum(g) / 4
    wings = [
        10 * math.log1p(112 * math.sqrt(e) / 2) if 112 * math.sqrt(e) < 10 else 112 * math.sqrt(e) - WING
        for e in SQUARES
    ]
    expected = sum((1 + a) * b / mean * e for a, b, e in zip(A, g, wings, strict=True)) / 4
    assert value("robust", shares=shares, distance=Wing()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", ["paper", "robust"])
def test_shares_counted_in_the_data_are_those_given_as_numbers(mode: str) -> None:
    """Ten faces, of which 1, 2, 3, 0, 4, 5 have an attribute, and 3 none."""
    flags = torch.zeros(10, 6)
    for column, count in enumerate([1, 2, 3, 0, 4, 5]):
        flags[:count, column] = 1
    flags[5:7, 0] = 1
    output, points, weight = four_faces()
    loss = PFLDLoss(mode=mode, shares="data")  # type: ignore[arg-type]
    loss.count(flags)
    given = [0.3, 0.2, 0.3, 0.0, 0.4, 0.5] + ([0.3] if mode == "robust" else [])
    found = loss(output, points, weight, angles=TRUTH, attributes=FLAGS)["points"]
    assert float(found.detach()) == pytest.approx(value(mode, shares=given), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_who_gets_no_gradient(mode: str) -> None:
    """Plain faces under all but robust; under the published code those, too, that have the dropped flag alone."""
    output, points, weight = four_faces()
    answer = LandmarkOutput(output.points, torch.full((4, 3), 0.7, requires_grad=True))
    loss = PFLDLoss(mode=mode)  # type: ignore[arg-type]
    loss(answer, points, weight, angles=TRUTH, attributes=FLAGS)["points"].backward()
    assert output.points.grad is not None
    silent = [n for n in range(4) if not output.points.grad[n].any()]
    assert silent == {"robust": [], "published": [0, 2]}.get(mode, [2])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("detach", [None, True, False])
def test_whether_the_landmarks_train_the_angles(mode: str, detach: bool | None) -> None:
    output, points, weight = four_faces()
    angles = torch.full((4, 3), 0.7, requires_grad=True)
    loss = PFLDLoss(mode=mode, detach=detach)  # type: ignore[arg-type]
    terms = loss(LandmarkOutput(output.points, angles), points, weight, angles=TRUTH, attributes=FLAGS)
    stops = mode == "robust" if detach is None else detach
    (gradient,) = torch.autograd.grad(terms["points"], angles, allow_unused=True)
    assert (gradient is None) == stops
    if mode == "robust":
        assert torch.autograd.grad(terms["angles"], angles)[0].any()


@pytest.mark.parametrize("mode", MODES)
def test_empty_and_absent_classes_stay_finite(mode: str) -> None:
    loss = PFLDLoss(mode=mode)  # type: ignore[arg-type]
    unknown = torch.full((4, 3), math.nan)
    for flags in (torch.zeros(4, 6), torch.ones(4, 6), FLAGS):
        for truth in (TRUTH, unknown, torch.cat([TRUTH[:2], unknown[2:]])):
            for labelled in (torch.ones(4, 5), torch.zeros(4, 5)):
                output, points, _ = four_faces()
                terms = loss(output, points, labelled, angles=truth, attributes=flags)
                torch.stack(list(terms.values())).sum().backward()
                assert all(bool(torch.isfinite(term)) for term in terms.values())
                for leaf in output:
                    assert leaf is not None and (leaf.grad is None or bool(torch.isfinite(leaf.grad).all()))


def test_half_precision_is_worked_out_in_float32() -> None:
    output, points, weight = four_faces()
    assert output.angles is not None
    half = LandmarkOutput(output.points.bfloat16(), output.angles.bfloat16())
    terms = PFLDLoss()(half, points, weight, angles=TRUTH, attributes=FLAGS.to(torch.uint8))
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert Wing()(half, points, weight)["points"].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "publised"}, "Did you mean 'published'"),
        (
            {"mode": "seed", "shares": [0.5]},
            r"loss\.shares: belongs to mode robust and paper, found mode=seed",
        ),
        ({"mode": "paper", "distance": L1()}, r"loss\.distance: belongs to mode robust"),
        ({"misplaced_flags": True}, r"loss\.misplaced_flags: belongs to mode seed_as_coded"),
        ({"shares": [0.5, 2.0]}, r"expected shares from 0 to 1, found \[0.5, 2.0\]"),
        ({"angle_weight": -1.0}, "angle_weight must be finite and at least 0, found -1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PFLDLoss(**options)


def test_data_that_do_not_fit_are_refused() -> None:
    output, points, weight = four_faces()
    with pytest.raises(ConfigError, match="needs the angles of the head"):
        PFLDLoss(mode="paper")(output, points, weight, attributes=FLAGS)
    with pytest.raises(ConfigError, match="weighs faces by attributes, which this data set does not have"):
        PFLDLoss(mode="published")(output, points, weight, angles=TRUTH)
    with pytest.raises(ConfigError, match="found 6 numbers, expected 7: one an attribute and one of faces"):
        PFLDLoss(shares=[0.5] * 6)(output, points, weight, attributes=FLAGS)
    with pytest.raises(ConfigError, match=r"answers \(4, 5, 2\), but the data's points are \(4, 6, 2\)"):
        L1()(output, torch.zeros(4, 6, 2), torch.ones(4, 6))
    with pytest.raises(ConfigError, match="Wing: epsilon must be finite and above 0, found 0"):
        Wing(epsilon=0)


# Adaptive Wing -------------------------------------------------------------------------------------------------


def adaptive(error: float, target: float, *, alpha: float, w: float, epsilon: float, theta: float) -> float:
    power = alpha - target
    if abs(error) < theta:
        return w * math.log(1 + (abs(error) / epsilon) ** power)
    ratio = theta / epsilon
    slope = w / (1 + ratio**power) * power * ratio ** (power - 1) / epsilon
    return slope * abs(error) - (theta * slope - w * math.log(1 + ratio**power))


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 2.1, "w": 14.0, "epsilon": 1.0, "theta": 0.5},
        {"alpha": 2.5, "w": 8.0, "epsilon": 0.7, "theta": 0.3},
    ],
)
def test_adaptive_wing_by_hand(options: dict[str, float]) -> None:
    target = torch.tensor([0.0, 1.0, 0.3, 0.9]).view(1, 1, 2, 2)
    errors = [0.1, -0.2, 1.4, -0.6]
    maps = target + torch.tensor(errors).view(1, 1, 2, 2)
    given = {"omega" if name == "w" else name: number for name, number in options.items()}
    terms = AdaptiveWing(**given)(maps, target, torch.ones(1, 1))
    each = [adaptive(e, t, **options) for e, t in zip(errors, target.flatten().tolist(), strict=True)]
    assert list(terms) == ["heatmaps"]
    assert float(terms["heatmaps"]) == pytest.approx(sum(each) / 4, rel=1e-5)


def test_adaptive_wing_is_smooth_at_its_seam_and_at_zero() -> None:
    for target in (0.0, 0.5, 1.0):
        t = torch.full((1, 1, 1, 1), target)
        slopes = []
        for error in (0.5 - 1e-4, 0.5 + 1e-4, 0.0):
            maps = (t + error).requires_grad_()
            AdaptiveWing()(maps, t, torch.ones(1, 1))["heatmaps"].backward()
            assert maps.grad is not None
            slopes.append(float(maps.grad))
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-2) and slopes[2] == 0


def test_adaptive_wing_focuses_on_peaks_and_their_neighbours() -> None:
    target = torch.zeros(1, 1, 6, 6)
    target[0, 0, 1, 1], target[0, 0, 4, 4] = 0.2, 0.19
    maps = target + 0.1
    plain = AdaptiveWing()(maps, target, torch.ones(1, 1))["heatmaps"] * 36
    focused = AdaptiveWing(focus=10.0)(maps, target, torch.ones(1, 1))["heatmaps"] * 36
    ground = adaptive(0.1, 0.0, alpha=2.1, w=14, epsilon=1, theta=0.5)
    peak = adaptive(0.1, 0.2, alpha=2.1, w=14, epsilon=1, theta=0.5)
    assert float(focused - plain) == pytest.approx(10 * (8 * ground + peak), rel=1e-4)


def test_adaptive_wing_weighs_keypoints() -> None:
    target, maps = torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    weight = torch.tensor([[1.0, 0, 1], [0, 0, 0.5]])
    alone = [[AdaptiveWing()(maps[n : n + 1, k : k + 1], target[n : n + 1, k : k + 1], torch.ones(1, 1))["heatmaps"]
              for k in range(3)] for n in range(2)]  # fmt: skip
    expected = (alone[0][0] + alone[0][2] + 0.5 * alone[1][2]) / 6
    torch.testing.assert_close(AdaptiveWing()(maps, target, weight)["heatmaps"], expected)
    with pytest.raises(ConfigError, match="expected alpha > 2"):
        AdaptiveWing(alpha=2.0)
    with pytest.raises(ConfigError, match=r"answers \(2, 3, 4, 4\)"):
        AdaptiveWing()(maps, target[:, :2], weight)
