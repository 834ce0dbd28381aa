"""Who is who over frames, and calm points."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsn.errors import ConfigError
from dvsn.portable.frame import Frame
from dvsn.portable.result import Result
from dvsn.portable.smoothing import OneEuro
from dvsn.predict.following import make_following
from dvsn.predict.tracking import ByteTrack, Motion, to_centre

RATE = 10.0
ONE = np.zeros(1, np.int64)


def box(x: float, y: float = 50.0, width: float = 20.0, height: float = 40.0) -> list[float]:
    return [x, y, x + width, y + height]


def walked(frames: list[list[tuple[list[float], float]]], **options: Any) -> list[list[int]]:
    """The numbers of boxes and scores, frame by frame at RATE."""
    tracker = ByteTrack(rate=RATE, **options)
    found = []
    for number, frame in enumerate(frames):
        boxes = np.array([each for each, _ in frame]).reshape(-1, 4)
        scores = np.array([score for _, score in frame])
        found.append(tracker(boxes, scores, np.zeros(len(frame), np.int64), number / RATE).tolist())
    return found


def test_two_who_cross_keep_their_numbers() -> None:
    """At 3 and -4 pixels a frame; where they meet their boxes are nearly the same, and only their speed tells them apart."""
    frames = [[(box(10 + 3 * t), 0.9), (box(100 - 4 * t, 52), 0.8)] for t in range(25)]
    assert walked(frames) == [[1, 2]] * 25


def test_one_who_scores_low_is_kept_and_begins_nothing() -> None:
    seen = [[(box(2.0 * t), 0.9)] for t in range(5)]
    low = [[(box(2.0 * t), 0.2)] for t in range(5, 9)]
    assert walked(seen + low) == [[1]] * 9
    assert walked(low) == [[0]] * 4
    noise = [[(box(2.0 * t), 0.05)] for t in range(5, 9)]
    assert walked(seen + noise)[5:] == [[0]] * 4


def test_one_who_is_hidden_is_found_again_for_a_second() -> None:
    seen = [[(box(5.0 * t), 0.9)] for t in range(8)]
    back = [(box(5.0 * t), 0.9) for t in range(30)]
    gap = [*seen, *[[]] * 9, [back[17]]]
    assert walked(gap)[-1] == [1]  # expected at its speed: 45 pixels from where it was, with a box 20 wide
    long = [*seen, *[[]] * 11, [back[19]], [back[20]]]
    assert walked(long)[-2:] == [[0], [2]]  # another, from its second frame on


def test_a_new_one_counts_from_its_second_frame_and_needs_a_score() -> None:
    first = [(box(0.0), 0.9)]
    assert walked([first, [*first, (box(200.0), 0.7)], [*first, (box(200.0), 0.7)]]) == [[1], [1, 0], [1, 2]]
    assert walked([first, [*first, (box(200.0), 0.55)], [*first, (box(200.0), 0.55)]]) == [
        [1],
        [1, 0],
        [1, 0],
    ]
    once = [first, [*first, (box(200.0), 0.7)], first, [*first, (box(200.0), 0.7)]]
    assert walked(once)[-1] == [1, 0]


def test_classes_are_never_joined() -> None:
    tracker = ByteTrack(rate=RATE)
    boxes = np.array([box(0.0)])
    assert tracker(boxes, np.ones(1), ONE, 0.0).tolist() == [1]
    assert tracker(boxes, np.ones(1), ONE + 1, 0.1).tolist() == [0]


def test_the_filter_is_the_textbook_one() -> None:
    """A step by the usual formulas, with the inverse that the code avoids."""
    motion = Motion(np.array(box(10.0)))
    mean, covariance = motion.mean.copy(), motion.covariance.copy()
    motion.predict(1.0, seen=True)
    motion.correct(np.array(box(13.0)))
    move = np.block([[np.eye(4), np.eye(4)], [np.zeros((4, 4)), np.eye(4)]])
    noise = np.diag([2, 2, 1e-2, 2, 0.25, 0.25, 1e-5, 0.25]) ** 2
    mean, covariance = move @ mean, move @ covariance @ move.T + noise
    look = np.eye(4, 8)
    gain = covariance @ look.T @ np.linalg.inv(look @ covariance @ look.T + np.diag([2, 2, 1e-1, 2]) ** 2)
    mean = mean + gain @ (to_centre(np.array(box(13.0))) - look @ mean)
    np.testing.assert_allclose(motion.mean, mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        motion.covariance, (np.eye(8) - gain @ look) @ covariance, rtol=1e-7, atol=1e-9
    )
    np.testing.assert_allclose(Motion(np.array(box(7.0))).box, box(7.0))


# Results ---------------------------------------------------------------------------------------------

OPTIONS = {"track": False, "smooth": False, "fps": 30.0, "min_cutoff": 1.0, "beta": 20.0}


def people(times: list[float | None], places: list[list[float]]) -> list[Result]:
    """A result for each frame, with a person of two joints at each x."""
    found = []
    for index, (seconds, xs) in enumerate(zip(times, places, strict=True)):
        frame = Frame(np.zeros((100, 300, 3), np.uint8), f"f{index}", None, index, seconds)
        boxes = np.array([box(x) for x in xs]).reshape(-1, 4)
        keypoints = np.array([[[x, 60, 0.9], [x + 10, 70, 0.4]] for x in xs]).reshape(-1, 2, 3)
        found.append(
            Result(kind="pose", frame=frame, boxes=boxes, scores=np.ones(len(xs)), keypoints=keypoints)
        )
    return found


def test_smoothing_goes_by_the_frames_own_times() -> None:
    random = np.random.default_rng(0)
    times = np.cumsum(random.uniform(0.01, 0.1, 20))
    xs = 50 + random.normal(0, 1, 20)
    following = make_following(OPTIONS | {"smooth": True, "beta": 2.0}, "pose")
    assert following is not None
    found = list(following(people(times.tolist(), [[x] for x in xs]), Fraction(30)))
    euro = OneEuro(min_cutoff=1.0, beta=2.0)
    for result, x, now in zip(found, xs, times, strict=True):
        assert result.keypoints is not None and result.track_ids is not None
        expected = euro(np.array([[x, 60], [x + 10, 70]]), now, scale=40.0)
        np.testing.assert_allclose(result.keypoints[0, :, :2], expected)
        assert result.keypoints[0, :, 2].tolist() == [0.9, 0.4] and result.track_ids.tolist() == [1]


def test_who_is_lost_comes_back_as_another() -> None:
    """Two people 190 pixels apart: told apart by their boxes in any order, and anew after a frame without them."""
    following = make_following(OPTIONS | {"smooth": True, "min_cutoff": 0.01, "beta": 0.0}, "pose")
    assert following is not None
    places = [[10.0, 200.0], [201.0, 10.0], [10.0], [10.0, 201.0], []]
    found = list(following(people([0.0, 0.1, 0.2, 0.3, 0.4], places), None))
    ids = [each.track_ids.tolist() for each in found]  # type: ignore[union-attr]
    assert ids == [[1, 2], [2, 1], [1], [1, 3], []]
    xs = [each.keypoints[:, 0, 0] for each in found]  # type: ignore[index]
    assert 200 < xs[1][0] < 200.02 and xs[1][1] == 10  # calm: it has hardly moved
    assert xs[3][1] == 201  # another, whose filter starts anew
    assert xs[4].shape == (0,)


def test_sequences_go_on_counting_and_do_not_mix() -> None:
    following = make_following(OPTIONS | {"track": True}, "pose")
    assert following is not None
    none: list[float | None] = [None] * 3
    first = people(none, [[10.0, 200.0]] * 3)
    pictures = [*first, *people(none, [[10.0]] * 3)]
    for place, each in enumerate(pictures):
        folder = "a" if place < 3 else "b"
        each.frame = dataclasses.replace(each.frame, path=Path(folder) / f"{place}.png")
    found = list(following(pictures, Fraction(10)))
    assert [each.track_ids.tolist() for each in found] == [[1, 2]] * 3 + [[3]] * 3  # type: ignore[union-attr]
    assert (following.count, following.sequences) == (3, 2)


def test_what_cannot_be_followed_is_refused() -> None:
    assert make_following(OPTIONS, "segmentation") is None
    with pytest.raises(ConfigError, match="track: the task 'segmentation' finds no objects"):
        make_following(OPTIONS | {"track": True}, "segmentation")
    with pytest.raises(ConfigError, match=r"beta: only frames are smoothed. Add smooth=true"):
        make_following(OPTIONS | {"beta": 3.0, "track": True}, "pose")
