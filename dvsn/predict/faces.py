"""Prediction of landmarks: faces are found, cut out, estimated, made calm over frames, drawn, and written as COCO JSON."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.data.crop import invert, move_points
from dvsn.data.face_crop import from_corner
from dvsn.errors import ConfigError
from dvsn.geometry.head_angles import head_angles
from dvsn.metrics.keypoint_ap import coco_result
from dvsn.metrics.oks import rescore
from dvsn.portable.draw import draw_head, draw_skeleton
from dvsn.portable.smoothing import OneEuro, Tracks
from dvsn.predict.command import refuse_others
from dvsn.predict.face_boxes import make_finder
from dvsn.predict.people import Scene, Work
from dvsn.predict.person_boxes import Finder

log = logging.getLogger("dvsn")

OPTIONS = (
    "boxes", "annotations", "detector", "category", "score", "padding", "joint_score", "points", "outline", "axes",
    "smooth", "fps", "min_cutoff", "beta", "side_by_side",
)  # fmt: skip
FILE = "landmarks.json"
AS_CROPPED = 1.0  # the padding of a whole picture: it shows what the network's crop shows
ANGLES = ("pitch", "yaw", "roll")


def predict_files(
    task: Any, items: list[tuple[Path, Path]], options: dict[str, Any], device: str
) -> list[Path]:
    """A drawn picture for each (picture, target), and landmarks.json of all. Returns the files written.

    The file holds an entry of COCO's results format for each face: `keypoints` as x, y, confidence in pixels of the
    picture, `bbox`, of which the crop was made (of a detector, where it expects the points: the file is good as boxes of
    another prediction), `score` (the box's, times the mean of the sure confidences), `file_name`; `angles_degrees`,
    pitch, yaw and roll of the head in degrees as `dvsn.geometry.head_angles` counts them, or null where they are not known;
    and in a sequence `track`, a number for each face.
    """
    refuse_others(options, OPTIONS, task.kind)
    smooth = bool(options["smooth"])
    if smooth:
        items = sorted(items, key=lambda item: in_order(item[0]))
    work = Faces(task, [source for source, _ in items], options, device)
    written = work.run(items, Path(options["output"]) / FILE)
    found = f"{len(work.results)} faces in {len(items)} pictures"
    found += f" ({work.without} without a face, written as they are)" if work.without else ""
    log.info("%s, in %s", found, options["output"])
    if smooth:
        log.info("%d faces were followed over %d folders of frames", work.tracks.count, work.sequences)
    return written


class Faces(Work):
    """Pictures of faces. Scenes are settled in their order, so that frames can be smoothed as they come."""

    def __init__(self, task: Any, sources: list[Path], options: dict[str, Any], device: str) -> None:
        super().__init__(task, sources, options, device)
        padding = options["padding"]
        if padding is None:
            padding = AS_CROPPED if options["boxes"] == "image" and options["detector"] is None else None
        elif not is_positive(padding):
            raise ConfigError(
                f"padding: found {padding}, expected a factor above 0 for the boxes' longer side."
            )
        if padding is not None:
            self.crop.padding = float(padding)
        if not options["smooth"]:
            for name, usual in (("fps", 30.0), ("min_cutoff", 1.0), ("beta", 20.0)):
                if options[name] != usual:
                    raise ConfigError(f"{name}: only frames are smoothed. Add smooth=true.")
        if not is_positive(options["fps"]):
            raise ConfigError(f"fps: found {options['fps']}, expected the frames in a second, above 0.")
        smoother = {name: float(options[name]) for name in ("min_cutoff", "beta")}
        OneEuro(**smoother)  # refuses wrong numbers
        self.tracks = Tracks(lambda: OneEuro(**smoother))
        self.without = self.sequences = self.frame = 0
        self.folder: Path | None = None

    def make_finder(self) -> Finder:
        return make_finder(self.options, self.ids, device=self.device)

    def answers(self, scene: Scene) -> list[dict[str, Any]]:
        """The faces of a picture, the best first."""
        self.without += not scene.points
        count = len(scene.points)
        points = np.array(scene.points, np.float64).reshape(count, len(self.keypoints), 2)
        numbers: list[int] = []
        if self.options["smooth"]:
            points, numbers = self.smooth(scene, points)
        if not count:
            return []
        confidence = np.array(scene.confidence)
        score = rescore(scene.people.scores, confidence)
        entries = []
        for each in np.argsort(-score, kind="stable"):
            entry = coco_result(points[each], confidence[each], score[each], scene.image_id, 1)
            entry |= {"bbox": np.round(scene.people.boxes[each], 3).tolist(), "file_name": scene.source.name}
            entry["angles_degrees"] = self.angles(points[each], scene.inverse[each])
            entries.append(entry | ({"track": numbers[each]} if numbers else {}))
        return entries

    def smooth(self, scene: Scene, points: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Points (N, K, 2) of the next frame, and the number of each face. Each folder is a sequence of its own."""
        if scene.source.parent != self.folder:
            self.folder, self.frame = scene.source.parent, 0
            self.sequences += 1
            self.tracks.reset()
        self.frame += 1
        return self.tracks(scene.people.boxes, points, self.frame / float(self.options["fps"]))

    def angles(self, points: np.ndarray, inverse: np.ndarray) -> dict[str, float] | None:
        """Of points (K, 2) in the picture whose crop has the map `inverse` (2, 3) to it, in degrees. As in training they
        count from the crop's corner, also where the crop is `centred`."""
        if not self.keypoints.head:
            return None
        height, width = self.task.size
        inverse = np.asarray(inverse, np.float64)
        places = move_points(points, invert(inverse))
        if self.crop.centred:
            places = places + from_corner(width, width * inverse[0, 0])
        fractions = places / [width, height]
        angles = head_angles(fractions, head=self.keypoints.head)
        if angles is None:
            return None
        return {name: round(float(angle), 3) for name, angle in zip(ANGLES, np.degrees(angles), strict=True)}

    def draw(self, scene: Scene, people: list[dict[str, Any]]) -> np.ndarray:
        """A copy of the picture (H, W, 3) with the faces, the best on top."""
        picture = np.array(scene.photo, order="C")
        dots, lines = bool(self.options["points"]), bool(self.options["outline"])
        for face in reversed(people):
            places, sure = np.split(np.reshape(face["keypoints"], (-1, 3)), [2], axis=1)
            draw_skeleton(
                picture, places, sure[:, 0], self.keypoints, threshold=float(self.options["joint_score"]),
                dots=dots, lines=lines,
            )  # fmt: skip
            if self.options["axes"] and face["angles_degrees"] is not None:
                angles = np.radians([face["angles_degrees"][name] for name in ANGLES])
                draw_head(picture, places, angles, self.keypoints)
        return picture


def in_order(path: Path) -> tuple[str, list[tuple[bool, int, str]]]:
    """What frames are sorted by: the folder, then the name, in which numbers count as such: 9.png before 10.png."""
    parts = re.split(r"(\d+)", path.stem)
    return str(path.parent), [
        (each.isdecimal(), int(each) if each.isdecimal() else 0, each) for each in parts
    ]


def is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
