"""ByteTrack: which object, person or face of a frame is which of the frames before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from dvsn.errors import ConfigError
from dvsn.portable.smoothing import box_iou

Array = np.ndarray[Any, Any]

STEP, SPEED = 1 / 20, 1 / 160
"""Standard deviations of the Kalman filter, as shares of a box's height: of a place, and of a speed."""
UNSURE = 0.1  # boxes below it are noise
MEMORY = 1.0  # seconds for which an unseen object is waited for
JOIN = 0.2  # least IoU, times the score, of a sure box and the place where its object is expected
JOIN_UNSURE = 0.5  # least IoU of an unsure box
JOIN_NEW = 0.3  # least IoU, times the score, of a box and an object seen once


class Motion:
    """A Kalman filter of one box: centre, width over height, and height, each with a constant speed.

    The noise is that of ByteTrack and DeepSORT (Wojke et al., 2017, arXiv:1703.07402): it grows with the box's height.
    """

    def __init__(self, box: Array) -> None:
        place = to_centre(box)
        height = place[3]
        self.mean = np.concatenate([place, np.zeros(4)])
        spread = [2 * STEP * height] * 2 + [1e-2, 2 * STEP * height]
        rush = [10 * SPEED * height] * 2 + [1e-5, 10 * SPEED * height]
        self.covariance = np.diag(np.square(spread + rush))

    def predict(self, steps: float, *, seen: bool) -> None:
        """Go on by so many frames. A box that is not seen keeps its height."""
        if not seen:
            self.mean[7] = 0
        height = self.mean[3]
        move = np.eye(8)
        move[:4, 4:] = steps * np.eye(4)
        noise = [STEP * height] * 2 + [1e-2, STEP * height] + [SPEED * height] * 2 + [1e-5, SPEED * height]
        self.mean = move @ self.mean
        self.covariance = move @ self.covariance @ move.T + steps * np.diag(np.square(noise))

    def correct(self, box: Array) -> None:
        height = self.mean[3]
        noise = np.diag(np.square([STEP * height] * 2 + [1e-1, STEP * height]))
        gain = np.linalg.solve(self.covariance[:4, :4] + noise, self.covariance[:4]).T
        self.mean = self.mean + gain @ (to_centre(box) - self.mean[:4])
        self.covariance = self.covariance - gain @ self.covariance[:4]

    @property
    def box(self) -> Array:
        x, y, ratio, height = self.mean[:4]
        width = abs(ratio * height)
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


@dataclass
class Track:
    """One object on its way."""

    motion: Motion
    label: int
    number: int | None = None
    """Its number, once it is sure that there is one."""
    unseen: float = 0.0
    """Seconds."""


class ByteTrack:
    """Numbers, from 1, of the boxes of each frame: the same number is the same object.

    Zhang et al., 2022, arXiv:2110.06864, algorithm 1: boxes of a score of at least `sure` are joined to the objects where
    those are expected; what is left of the objects that were just seen is joined to the boxes of a lower score, for an
    object that is hidden scores low; a sure box that is left begins an object, which counts once it is seen a second time
    (in a first frame at once). An object that is not seen for a second is forgotten. As the authors' code: similarity is the
    IoU, in the first step times the score, and a box begins an object from the score `sure` + 0.1 on. Other than there: only
    boxes of one class are joined, and the filter goes by the time between frames rather than by their count.
    """

    def __init__(self, *, sure: float = 0.5, memory: float = MEMORY, rate: float = 30.0) -> None:
        if not 0 < sure < 1:
            raise ConfigError(f"track_score: found {sure}, expected a score between 0 and 1.")
        self.sure, self.memory, self.rate = sure, memory, rate
        self.count = 0
        self.reset()

    def reset(self) -> None:
        """Another sequence begins. Numbers go on."""
        self.tracks: list[Track] = []
        self.time: float | None = None

    def __call__(self, boxes: Array, scores: Array, labels: Array, seconds: float) -> Array:
        """Boxes (N, 4) as corners, scores (N,) and labels (N,) of the frame at `seconds` -> numbers (N,) int64, 0 of those
        that are no object yet."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        first = self.time is None
        past = 1 / self.rate if self.time is None else max(seconds - self.time, 1e-6)
        self.time = seconds
        for track in self.tracks:
            track.motion.predict(past * self.rate, seen=track.unseen == 0)
            track.unseen += past
        numbers = np.zeros(len(boxes), np.int64)
        sure = np.flatnonzero(scores >= self.sure)
        unsure = np.flatnonzero((scores >= UNSURE) & (scores < self.sure))
        known = [track for track in self.tracks if track.number is not None]
        fresh = [track for track in self.tracks if track.number is None]

        def join(
            tracks: list[Track], chosen: Array, least: float, *, scored: bool
        ) -> tuple[list[Track], Array]:
            """Joins what fits, and returns the tracks and boxes that are left."""
            pairs = assign(tracks, boxes[chosen], scores[chosen] if scored else None, labels[chosen], least)
            for row, column in pairs:
                self._see(tracks[row], boxes[chosen[column]])
                numbers[chosen[column]] = tracks[row].number or 0
            taken = {row for row, _ in pairs}
            rest = [track for row, track in enumerate(tracks) if row not in taken]
            return rest, np.delete(chosen, [column for _, column in pairs])

        known, sure = join(known, sure, JOIN, scored=True)
        just = [track for track in known if track.unseen <= past * 1.001]
        join(just, unsure, JOIN_UNSURE, scored=False)
        fresh, sure = join(fresh, sure, JOIN_NEW, scored=True)
        lost = {id(track) for track in fresh}  # seen once only
        self.tracks = [
            track for track in self.tracks if id(track) not in lost and track.unseen <= self.memory
        ]
        for each in sure[scores[sure] >= min(self.sure + 0.1, 0.99)]:
            track = Track(Motion(boxes[each]), int(labels[each]))
            if first:
                numbers[each] = self._name(track)
            self.tracks.append(track)
        return numbers

    def _see(self, track: Track, box: Array) -> None:
        track.motion.correct(box)
        track.unseen = 0.0
        if track.number is None:
            self._name(track)

    def _name(self, track: Track) -> int:
        self.count += 1
        track.number = self.count
        return self.count


def assign(
    tracks: list[Track], boxes: Array, scores: Array | None, labels: Array, least: float
) -> list[tuple[int, int]]:
    """Pairs of a track and a box of its class, the best of all together, each alike by `least` or more."""
    if not tracks or not len(boxes):
        return []
    alike = box_iou(sides(np.array([track.motion.box for track in tracks])), sides(boxes))
    if scores is not None:
        alike = alike * scores
    alike[np.array([track.label for track in tracks])[:, None] != labels] = -1
    rows, columns = linear_sum_assignment(-alike)
    return [
        (int(row), int(column))
        for row, column in zip(rows, columns, strict=True)
        if alike[row, column] >= least
    ]


def to_centre(box: Array) -> Array:
    """Corners (4,) -> centre, width over height, and height."""
    width, height = np.maximum(box[2:] - box[:2], 1e-6)
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, width / height, height])


def sides(corners: Array) -> Array:
    """Corners (N, 4) -> x, y, width, height (N, 4)."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
