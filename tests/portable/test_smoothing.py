"""The One-Euro filter by hand, at rest, in motion and in noise; faces that are followed, lost and found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dvsn.errors import ConfigError
from dvsn.portable.smoothing import OneEuro, box_iou, matches, smoothing_weight


def test_three_steps_by_hand() -> None:
    """Cut-offs of 1 / (2 pi) Hz make the weight 1 / (1 + rate): 1/2 at one frame a second."""
    unit = 1 / (2 * math.pi)
    smooth = OneEuro(min_cutoff=unit, beta=unit, d_cutoff=unit)
    assert smooth(np.array([4.0]), 0.0) == 4
    # speed 1/2 * (8 - 4) = 2, so the cut-off is 3 / (2 pi) and the weight 1 / (1 + 1/3) = 3/4
    assert smooth(np.array([8.0]), 1.0) == pytest.approx(7.0)
    # two seconds on, at rate 1/2: the speed's weight is 1 / (1 + 1/2) = 2/3, so its value is 2/3 * (1 - 7) / 2 + 2/3 =
    # -4/3; the cut-off is 7/3 / (2 pi), and the weight 1 / (1 + 3/14) = 14/17
    assert smooth(np.array([1.0]), 3.0) == pytest.approx(14 / 17 * 1 + 3 / 17 * 7)
    smooth.reset()
    assert smooth(np.array([100.0]), 0.0) == 100


def test_the_weight_is_the_exponent_of_the_filter() -> None:
    """A weight a at rate r is that of an RC filter: the cut-off and the time constant are each other's inverse."""
    np.testing.assert_allclose(smoothing_weight(np.array([30 / (2 * math.pi)]), 30.0), 0.5)
    assert smoothing_weight(np.array([1e9]), 30.0)[0] == pytest.approx(1)


def test_each_number_has_its_own_filter_and_units_do_not_matter() -> None:
    random = np.random.default_rng(0)
    frames = random.normal(size=(20, 5, 2)).cumsum(axis=0)
    together, large = OneEuro(), OneEuro()
    answers = np.array([together(frame, number / 30) for number, frame in enumerate(frames)])
    alone = OneEuro()
    single = [alone(frame[3, 1], number / 30) for number, frame in enumerate(frames)]
    np.testing.assert_allclose(answers[:, 3, 1], single)
    enlarged = [large(70 * frame, number / 30, scale=70.0) for number, frame in enumerate(frames)]
    np.testing.assert_allclose(enlarged, 70 * answers)


def test_rest_stays_motion_is_followed_and_noise_is_calmed() -> None:
    still = OneEuro()
    constant = np.full((4, 2), 3.7)
    assert all((still(constant, number / 25) == constant).all() for number in range(9))
    slow, fast = OneEuro(beta=0.0), OneEuro(beta=1000.0)
    line = np.arange(60.0) / 30  # one face a second
    lags = [line - [smooth(np.array(x), n / 30) for n, x in enumerate(line)] for smooth in (slow, fast)]
    assert lags[0][-1] == pytest.approx(1 / (2 * math.pi), rel=1e-3)  # the time constant of 1 Hz
    assert abs(lags[1][-1]) < 5e-4
    noise = np.random.default_rng(0).normal(0, 0.005, (120, 50))
    smooth = OneEuro()
    calm = np.array([smooth(frame, n / 30) for n, frame in enumerate(noise)])
    assert np.abs(np.diff(calm[30:], axis=0)).mean() < 0.25 * np.abs(np.diff(noise[30:], axis=0)).mean()


def test_what_is_not_a_number_starts_anew() -> None:
    smooth = OneEuro()
    smooth(np.array([1.0, 1.0]), 0.0)
    answer = smooth(np.array([np.nan, 1.0]), 1.0)
    assert np.isnan(answer[0]) and answer[1] == 1
    assert smooth(np.array([50.0, 1.0]), 2.0)[0] == 50
    assert 50 < smooth(np.array([51.0, 1.0]), 3.0)[0] < 51


def test_wrong_numbers_are_refused() -> None:
    for options in ({"min_cutoff": 0.0}, {"beta": -1.0}, {"beta": math.nan}, {"d_cutoff": -1.0}):
        with pytest.raises(ConfigError, match="min_cutoff, beta: found"):
            OneEuro(**options)
    smooth = OneEuro()
    smooth(np.zeros(1), 1.0)
    with pytest.raises(ValueError, match="time must go on"):
        smooth(np.zeros(1), 1.0)


def test_overlap_by_hand() -> None:
    boxes, others = np.array([[0.0, 0, 4, 2], [9, 9, 1, 1]]), np.array([[2.0, 0, 4, 2], [0, 0, 4, 2]])
    np.testing.assert_allclose(box_iou(boxes, others), [[4 / 12, 1], [0, 0]])
    assert matches(boxes, others) == [1, None]
    assert matches(boxes, others[:0]) == [None, None] and matches(boxes[:0], others) == []


def test_the_best_pair_is_matched_first() -> None:
    before = np.array([[0.0, 0, 10, 10], [4, 0, 10, 10]])
    now = np.array(
        [[3.0, 0, 10, 10], [4, 0, 10, 10]]
    )  # the first is nearer to the second's old place than to its own
    assert matches(now, before) == [0, 1]
