"""Prediction of pose: people are found, cut out, estimated in batches over pictures, drawn, and written as COCO JSON."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable.boxes import Boxes
from dvsn.portable.frame import Frame
from dvsn.portable.joints import Skeleton
from dvsn.portable.oks import oks_nms, rescore
from dvsn.portable.result import Result
from dvsn.predict.person_boxes import PERSON, Finder, PictureIds, make_finder
from dvsn.predict.predictor import Options, Predictor, replaced
from dvsn.reading import read_json
from dvsn.tasks.keypoints import to_picture

log = logging.getLogger("dvsn")

ASKED = ("boxes", "annotations", "detector", "category", "score", "nms", "joint_score", "flip")
OPTIONS = (*ASKED, "side_by_side")


@dataclass
class Scene:
    """A frame on its way: its people are known, and their answers arrive."""

    frame: Frame
    image_id: int
    people: Boxes
    points: list[np.ndarray] = field(default_factory=list)  # (K, 2) pixels of the picture, one a person
    confidence: list[np.ndarray] = field(default_factory=list)  # (K,)
    area: list[float] = field(default_factory=list)  # of the crop
    inverse: list[np.ndarray] = field(default_factory=list)  # (2, 3), from crop to picture

    @property
    def complete(self) -> bool:
        return len(self.points) == len(self.people.boxes)


Crop = tuple[Scene, dict[str, Any]]  # a person of a scene, as the network sees it


class PeoplePredictor(Predictor):
    """The people of each frame with their keypoints, the best first.

    A batch of people may span frames, so some wait for answers: at most twice as many as a batch has people. A person's
    score is the box's times the mean of the sure confidences, as in evaluation; those more alike than `nms` (OKS) to a
    better one are left out, which a set of keypoints without sigmas cannot tell.

    Options: `boxes`, `annotations`, `detector`, `category`, `score`: see `dvsn.predict.person_boxes`; `nms`; `joint_score`,
    from which keypoints are drawn; `flip`, whether to average with the mirrored crop (null: as the recipe); `batch_size`.
    """

    one = PERSON

    def __init__(self, task: Any, options: Options, device: str, sources: Sequence[Path] = ()) -> None:
        super().__init__(task, options, device, sources)
        self.keypoints: KeypointSet = task.keypoints
        self.crop = task.crop()
        file = options["annotations"] or annotation_file(options["boxes"])
        self.ids = PictureIds(self.sources, None if file is None else Path(file))
        self.find = self.make_finder()
        flip = options.get("flip")
        if flip is not None and not isinstance(flip, bool):
            raise ConfigError(f"flip: found {flip!r}, expected true, false or null.")
        self.changes = {} if flip is None else {"flip_test": flip}

    def make_finder(self) -> Finder:
        return make_finder(self.options, self.ids, device=self.device)

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Result]:
        scenes: deque[Scene] = deque()
        batch: list[Crop] = []
        for frame in frames:
            image_id = self.ids(frame)
            scene = Scene(frame, image_id, self.find(frame, image_id))
            scenes.append(scene)
            for sample in self.crops(scene):
                batch.append((scene, sample))
                if len(batch) == self.batch_size:
                    self.estimate(batch)
                    batch = []
            if batch and len(scenes) > 2 * self.batch_size:
                self.estimate(batch)
                batch = []
            yield from self.settled(scenes)
        if batch:
            self.estimate(batch)
        yield from self.settled(scenes)

    def settled(self, scenes: deque[Scene]) -> Iterator[Result]:
        """The results of the first scenes, as long as their answers have all come."""
        while scenes and scenes[0].complete:
            yield self.result(scenes.popleft())

    def crops(self, scene: Scene) -> Iterator[dict[str, Any]]:
        """The crops of all people of a scene."""
        count, frame = len(self.keypoints), scene.frame
        for box in scene.people.boxes:
            person = {
                "photo": frame.picture, "box": box, "keypoints": np.zeros((count, 2), np.float32),
                "labelled": np.zeros(count, np.uint8), "index": 0, "name": frame.name,
            }  # fmt: skip
            try:
                yield self.crop(person, 0)
            except DataError as error:
                raise DataError(f"{frame.path or frame.name}: {error}") from error

    def estimate(self, batch: list[Crop]) -> None:
        """Ask the network for a batch, and hand each scene its answers in pixels of the picture."""
        image = torch.stack([sample["image"] for _, sample in batch]).to(self.device)
        inverse = torch.stack([sample["inverse"] for _, sample in batch])
        offset = torch.stack([sample.get("offset", torch.zeros(())) for _, sample in batch]).to(self.device)
        with torch.inference_mode(), replaced(self.task, **self.changes):
            points, confidence = (each.float().cpu() for each in self.task.estimate(image, offset))
        places = to_picture(points, inverse).numpy()
        for (scene, sample), place, sure in zip(batch, places, confidence.numpy(), strict=True):
            scene.points.append(place)
            scene.confidence.append(sure)
            scene.area.append(float(sample["extent"].prod()))
            scene.inverse.append(sample["inverse"].numpy())

    def found(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Points (N, K, 2) and confidences (N, K) of a scene, float64."""
        count = len(self.keypoints)
        points = np.array(scene.points, np.float64).reshape(-1, count, 2)
        return points, np.array(scene.confidence, np.float64).reshape(-1, count)

    def result(self, scene: Scene) -> Result:
        points, confidence = self.found(scene)
        score = rescore(scene.people.scores, confidence)
        kept = np.argsort(-score, kind="stable")
        if self.keypoints.sigmas and len(score):
            nms = float(self.options["nms"])
            kept = oks_nms(
                np.array(scene.points),
                score,
                np.array(scene.area),
                sigmas=self.keypoints.sigmas,
                threshold=nms,
            )
        return self.record(scene, points, confidence, score, kept, "keypoints")

    def record(
        self,
        scene: Scene,
        points: np.ndarray,
        confidence: np.ndarray,
        score: np.ndarray,
        kept: np.ndarray,
        key: str,
    ) -> Result:
        """The result of the people `kept` of a scene; `key`: what their points are called."""
        triples = np.concatenate([points, confidence[..., None]], axis=-1)
        corners = np.array(scene.people.boxes, np.float64).reshape(-1, 4)
        corners = np.hstack([corners[:, :2], corners[:, :2] + corners[:, 2:]])
        return Result(
            kind=self.task.kind, frame=scene.frame, names=(self.one,), boxes=corners[kept], scores=score[kept],
            skeleton=Skeleton.of(self.keypoints), image_id=scene.image_id,
            shown_from=float(self.options["joint_score"]), **{key: triples[kept]},
        )  # fmt: skip


def annotation_file(boxes: Any) -> str | None:
    """`boxes` where it is a file of COCO annotations, which knows the pictures' ids."""
    if not isinstance(boxes, str):
        return None
    path = Path(boxes)
    return boxes if path.suffix == ".json" and path.is_file() and isinstance(read_json(path), dict) else None
