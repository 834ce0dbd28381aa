"""Frames that belong together: each person, face or object keeps its number, and its points are made calm."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from dvsn.errors import ConfigError
from dvsn.portable.result import Result
from dvsn.portable.smoothing import OneEuro, matches
from dvsn.predict.tracking import ByteTrack

Array = np.ndarray[Any, Any]

OPTIONS = ("track", "smooth", "min_cutoff", "beta")
FOLLOWED = ("detection", "pose", "landmarks")
"""Tasks that find something that can be followed."""
USUAL = {"min_cutoff": 1.0, "beta": 20.0}
UNSURE = 0.1  # no box of a lower score is sure
FORGET = 1.0  # seconds after which the filter of one that was not seen is dropped


class Following:
    """The results of frames in their order, with `track_ids`, and with calm points if they are to be smoothed.

    Pictures of one folder are a sequence, and so are the frames of one source that knows their times; numbers go on over
    sequences. Who is who: with `track` by ByteTrack, which finds those again who were hidden for up to a second, else by the
    boxes of the last frame (`dvsn.portable.smoothing.matches`). Smoothed by a One-Euro filter each: keypoints, and boxes of
    objects; of faces their predictor has this done, since the turn of a head follows from its points.
    """

    def __init__(self, options: Mapping[str, Any], *, smooth: bool = True) -> None:
        self.smooth, self.by_bytetrack = smooth and bool(options["smooth"]), bool(options["track"])
        self.min_cutoff, self.beta = float(options["min_cutoff"]), float(options["beta"])
        OneEuro(min_cutoff=self.min_cutoff, beta=self.beta)  # refuses wrong numbers
        self.count = self.sequences = 0

    def __call__(self, results: Iterable[Result], rate: Fraction | None) -> Iterator[Result]:
        """Times are those of the frames, else follow from `rate`."""
        for _, sequence in itertools.groupby(results, key=folder_of):
            yield from self._follow(sequence, 1 / float(rate or 30))

    def _follow(self, results: Iterable[Result], step: float) -> Iterator[Result]:
        self.sequences += 1
        who = self._bytetrack(1 / step) if self.by_bytetrack else self._overlap()
        filters: dict[int, tuple[OneEuro, float]] = {}
        last = -step
        for number, result in enumerate(results):
            seconds = result.frame.seconds
            now = last = max(number * step if seconds is None else seconds, last + 1e-6)
            if result.boxes is None:
                yield result
                continue
            numbers = who(result, now)
            if self.smooth:
                result = self._calm(result, numbers, now, filters)
            for old in [key for key, (_, seen) in filters.items() if now - seen > FORGET]:
                del filters[old]
            yield dataclasses.replace(result, track_ids=numbers)

    def _bytetrack(self, rate: float) -> Callable[[Result, float], Array]:
        """Sure is what is drawn, by the result's own `shown_from`."""
        tracker = ByteTrack(rate=rate)
        tracker.count = self.count

        def who(result: Result, now: float) -> Array:
            assert result.boxes is not None and result.scores is not None
            if result.shown_from is not None:
                tracker.sure = min(max(result.shown_from, UNSURE), 0.9)
            labels = np.zeros(len(result.boxes), np.int64) if result.labels is None else result.labels
            numbers = tracker(result.boxes, result.scores, labels, now)
            self.count = tracker.count
            return numbers

        return who

    def _overlap(self) -> Callable[[Result, float], Array]:
        state: dict[str, Any] = {"boxes": np.zeros((0, 4)), "numbers": np.zeros(0, np.int64)}

        def who(result: Result, now: float) -> Array:
            assert result.boxes is not None
            corners = result.boxes
            boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
            numbers = np.zeros(len(boxes), np.int64)
            for place, before in enumerate(matches(boxes, state["boxes"])):
                if before is None:
                    self.count += 1
                numbers[place] = self.count if before is None else state["numbers"][before]
            state.update(boxes=boxes, numbers=numbers)
            return numbers

        return who

    def _calm(
        self, result: Result, numbers: Array, now: float, filters: dict[int, tuple[OneEuro, float]]
    ) -> Result:
        assert result.boxes is not None
        name = next((each for each in ("keypoints", "points") if getattr(result, each) is not None), "boxes")
        values = np.array(getattr(result, name), np.float64)
        places = values.reshape(len(numbers), -1, 2) if name == "boxes" else values[..., :2]
        calm = np.array(places)
        for place, number in enumerate(numbers.tolist()):
            if number == 0:  # nobody yet
                continue
            box = result.boxes[place]
            euro, _ = filters.get(number) or (OneEuro(min_cutoff=self.min_cutoff, beta=self.beta), now)
            filters[number] = (euro, now)
            calm[place] = euro(places[place], now, scale=float(max((box[2:] - box[:2]).max(), 1e-6)))
        if name == "boxes":
            return dataclasses.replace(result, boxes=calm.reshape(-1, 4))
        changes: dict[str, Any] = {name: np.concatenate([calm, values[..., 2:]], axis=-1)}
        return dataclasses.replace(result, **changes)


def folder_of(result: Result) -> str | None:
    """What tells one sequence from the next: of a picture its folder."""
    frame = result.frame
    return None if frame.path is None or frame.seconds is not None else str(frame.path.parent)


def make_following(options: Mapping[str, Any], kind: str) -> Following | None:
    """What `track=...` and `smooth=...` ask for, or None. Raises `ConfigError` for a task that finds nothing to follow, and
    for options of smoothing without it."""
    if not options["smooth"]:
        for name, usual in USUAL.items():
            if options[name] != usual:
                raise ConfigError(f"{name}: only frames are smoothed. Add smooth=true.")
    if not (options["track"] or options["smooth"]):
        return None
    if kind not in FOLLOWED:
        name = "track" if options["track"] else "smooth"
        raise ConfigError(
            f"{name}: the task '{kind}' finds no objects, people or faces that could be followed. Leave {name} away."
        )
    if kind == "landmarks" and not options["track"]:
        return None  # the predictor of faces has them followed
    return Following(options, smooth=kind != "landmarks")
