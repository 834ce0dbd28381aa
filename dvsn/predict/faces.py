"""Prediction of landmarks: faces are found, cut out, estimated, made calm over frames, drawn, and written as COCO JSON."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.errors import ConfigError
from dvsn.portable.crop import head_degrees
from dvsn.portable.frame import Frame
from dvsn.portable.oks import rescore
from dvsn.portable.result import Result
from dvsn.predict.face_boxes import FACE, make_finder
from dvsn.predict.following import Following
from dvsn.predict.people import PeoplePredictor, Scene
from dvsn.predict.person_boxes import Finder
from dvsn.predict.predictor import Options

log = logging.getLogger("dvsn")

ASKED = (
    "boxes", "annotations", "detector", "category", "score", "padding", "joint_score", "flip", "smooth", "fps",
    "min_cutoff", "beta",
)  # fmt: skip
OPTIONS = (*ASKED, "points", "outline", "axes", "side_by_side")
FILE = "landmarks.json"
AS_CROPPED = 1.0  # the padding of a whole picture: it shows what the network's crop shows


class FacePredictor(PeoplePredictor):
    """The faces of each frame with their points and how the heads are turned, the best first.

    `boxes` of the results are those that the crops were made of; of a detector, where it expects the points: they are good
    as boxes of another prediction. With `smooth`, the frames of a folder or a video, in their order, are a sequence in which
    each face has a number (`track_ids`) and its points are made calm.

    Options: as `PeoplePredictor`, without `nms`; `padding` of the crop; `smooth`, `fps` of frames that know no time,
    `min_cutoff` and `beta`.
    """

    one = FACE

    def __init__(self, task: Any, options: Options, device: str, sources: Sequence[Path] = ()) -> None:
        super().__init__(task, options, device, sources)
        padding = options["padding"]
        if padding is None:
            whole = isinstance(options["boxes"], str) and options["boxes"] == "image"
            padding = AS_CROPPED if whole and options["detector"] is None else None
        elif not is_positive(padding):
            raise ConfigError(
                f"padding: found {padding}, expected a factor above 0 for the boxes' longer side."
            )
        if padding is not None:
            self.crop.padding = float(padding)
        if options["smooth"] and not is_positive(options["fps"]):
            raise ConfigError(f"fps: found {options['fps']}, expected the frames in a second, above 0.")
        self.following = Following({**options, "track": False}) if options["smooth"] else None

    def make_finder(self) -> Finder:
        return make_finder(self.options, self.ids, device=self.device)

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Result]:
        self.turns: deque[np.ndarray] = deque()
        results = super().__call__(frames)
        if self.following is not None:
            self.following.count = 0
            results = self.following(results, Fraction(self.options["fps"]).limit_denominator(1001))
        for result in results:  # in the order of the scenes
            inverses = self.turns.popleft()
            if self.keypoints.head and result.points is not None:
                angles = [
                    self.angles(points[:, :2], inverse)
                    for points, inverse in zip(result.points, inverses, strict=True)
                ]
                result.angles_degrees = np.array(angles, np.float64).reshape(-1, 3)
            yield result

    def result(self, scene: Scene) -> Result:
        points, confidence = self.found(scene)
        score = rescore(scene.people.scores, confidence)
        kept = np.argsort(-score, kind="stable")
        self.turns.append(np.array(scene.inverse).reshape(-1, 2, 3)[kept])
        return self.record(scene, points, confidence, score, kept, "points")

    def angles(self, points: np.ndarray, inverse: np.ndarray) -> list[float]:
        """Pitch, yaw and roll in degrees of points (K, 2) in the picture: see `dvsn.portable.crop.head_degrees`."""
        return head_degrees(
            points, inverse, self.task.size, centred=self.crop.centred, head=self.keypoints.head
        )


def is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
