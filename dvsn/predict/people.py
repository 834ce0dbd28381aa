"""Prediction of pose: people are found, cut out, estimated in batches over pictures, drawn, and written as COCO JSON."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dvsn.atomic import replacing
from dvsn.data.coco_files import read_json
from dvsn.data.files import read_rgb
from dvsn.errors import DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.keypoint_ap import coco_result
from dvsn.metrics.oks import oks_nms, rescore
from dvsn.pictures.grids import grid, write_picture
from dvsn.portable.draw import draw_skeleton
from dvsn.predict.command import refuse_others
from dvsn.predict.person_boxes import Boxes, Finder, make_finder, picture_ids
from dvsn.tasks.keypoints import to_picture

log = logging.getLogger("dvsn")

OPTIONS = ("boxes", "annotations", "detector", "category", "score", "nms", "joint_score", "side_by_side")
Item = TypeVar("Item")
Crop = tuple["Scene", dict[str, Any]]  # a person of a scene, as the network sees it


@dataclass
class Scene:
    """A picture on its way: its people are known, and their answers arrive."""

    source: Path
    target: Path
    image_id: int
    photo: np.ndarray
    people: Boxes
    points: list[np.ndarray] = field(default_factory=list)  # (K, 2) pixels of the picture, one a person
    confidence: list[np.ndarray] = field(default_factory=list)  # (K,)
    area: list[float] = field(default_factory=list)  # of the crop
    inverse: list[np.ndarray] = field(default_factory=list)  # (2, 3), from crop to picture

    @property
    def complete(self) -> bool:
        return len(self.points) == len(self.people.boxes)


def predict_files(
    task: Any, items: list[tuple[Path, Path]], options: dict[str, Any], device: str
) -> list[Path]:
    """A drawn picture for each (picture, target), and keypoints.json of all. Returns the files written.

    A person's score is the box's times the mean of the sure confidences, as in evaluation.
    """
    refuse_others(options, OPTIONS, task.kind)
    work = Work(task, [source for source, _ in items], options, device)
    written = work.run(items, Path(options["output"]) / "keypoints.json")
    log.info("%d people in %d pictures, in %s", len(work.results), len(items), options["output"])
    return written


class Work:
    """Pictures from being read to being written. A batch of people may span pictures, so some wait for answers."""

    def __init__(self, task: Any, sources: list[Path], options: dict[str, Any], device: str) -> None:
        self.task, self.device = task, device
        self.keypoints: KeypointSet = task.keypoints
        self.crop = task.crop()
        self.options = options
        self.side_by_side = bool(options["side_by_side"])
        file = options["annotations"] or annotation_file(str(options["boxes"]))
        self.ids = picture_ids(sources, None if file is None else Path(file))
        self.find = self.make_finder()
        self.scenes: deque[Scene] = deque()
        self.written: list[Path] = []
        self.results: list[dict[str, Any]] = []

    def make_finder(self) -> Finder:
        return make_finder(self.options, self.ids, device=self.device)

    def run(self, items: list[tuple[Path, Path]], file: Path) -> list[Path]:
        """All pictures, and `file` with all results. Returns the files written."""
        for batch in grouped(self.crops(items), int(self.options["batch_size"])):
            self.estimate(batch)
        self.settle()
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(self.results), encoding="utf-8")
        return [*self.written, file]

    def crops(self, items: list[tuple[Path, Path]]) -> Iterator[Crop]:
        """The crops of all people of all pictures."""
        count = len(self.keypoints)
        for source, target in items:
            self.settle()
            photo = read_rgb(source)
            scene = Scene(source, target, self.ids[source], photo, self.find(source, photo))
            self.scenes.append(scene)
            for box in scene.people.boxes:
                person = {
                    "photo": photo, "box": box, "keypoints": np.zeros((count, 2), np.float32),
                    "labelled": np.zeros(count, np.uint8), "index": 0, "name": source.stem,
                }  # fmt: skip
                try:
                    yield scene, self.crop(person, 0)
                except DataError as error:
                    raise DataError(f"{source}: {error}") from error

    def estimate(self, batch: list[Crop]) -> None:
        """Ask the network for a batch, and hand each scene its answers in pixels of the picture."""
        image = torch.stack([sample["image"] for _, sample in batch]).to(self.device)
        inverse = torch.stack([sample["inverse"] for _, sample in batch])
        offset = torch.stack([sample.get("offset", torch.zeros(())) for _, sample in batch]).to(self.device)
        with torch.inference_mode():
            points, confidence = (each.float().cpu() for each in self.task.estimate(image, offset))
        places = to_picture(points, inverse).numpy()
        for (scene, sample), place, sure in zip(batch, places, confidence.numpy(), strict=True):
            scene.points.append(place)
            scene.confidence.append(sure)
            scene.area.append(float(sample["extent"].prod()))
            scene.inverse.append(sample["inverse"].numpy())

    def settle(self) -> None:
        """Write the pictures whose answers have all come."""
        while self.scenes and self.scenes[0].complete:
            scene = self.scenes.popleft()
            people = self.answers(scene)
            drawn = self.draw(scene, people)
            if self.side_by_side:
                drawn = grid([[scene.photo, drawn]], ["photo", "prediction"])
            write_picture(scene.target, drawn)
            self.written.append(scene.target)
            self.results += people

    def answers(self, scene: Scene) -> list[dict[str, Any]]:
        return answers(scene, self.keypoints, float(self.options["nms"]))

    def draw(self, scene: Scene, people: list[dict[str, Any]]) -> np.ndarray:
        return draw(scene.photo, people, self.keypoints, float(self.options["joint_score"]))


def annotation_file(boxes: str) -> str | None:
    """`boxes` where it is a file of COCO annotations, which knows the pictures' ids."""
    path = Path(boxes)
    return boxes if path.suffix == ".json" and path.is_file() and isinstance(read_json(path), dict) else None


def answers(scene: Scene, keypoints: KeypointSet, nms: float) -> list[dict[str, Any]]:
    """The people of a picture in COCO's results format, with their box and the file's name, the best first.

    People more alike than `nms` to a better one are left out; a set without sigmas keeps all, for it has no OKS.
    """
    if not scene.points:
        return []
    points, confidence = np.array(scene.points), np.array(scene.confidence)
    score = rescore(scene.people.scores, confidence)
    kept = np.argsort(-score, kind="stable")
    if keypoints.sigmas:
        kept = oks_nms(points, score, np.array(scene.area), sigmas=keypoints.sigmas, threshold=nms)
    return [
        coco_result(points[each], confidence[each], score[each], scene.image_id, 1)
        | {"bbox": np.round(scene.people.boxes[each], 3).tolist(), "file_name": scene.source.name}
        for each in kept
    ]


def draw(
    photo: np.ndarray, people: list[dict[str, Any]], keypoints: KeypointSet, threshold: float
) -> np.ndarray:
    """A copy of a picture (H, W, 3) with the skeletons, the best on top."""
    picture = np.array(photo, order="C")
    for person in reversed(people):
        triples = np.reshape(person["keypoints"], (-1, 3))
        draw_skeleton(picture, triples[:, :2], triples[:, 2], keypoints, threshold=threshold)
    return picture


def grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last perhaps shorter."""
    group: list[Item] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
