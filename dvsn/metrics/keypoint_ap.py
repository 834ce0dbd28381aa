"""COCO's score of keypoints: average precision and recall over object keypoint similarity."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.errors import ConfigError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.coco_evaluator import Evaluator, classes_of, evaluated
from dvsn.metrics.keypoint_score import Compared, KeypointScore, Row
from dvsn.metrics.truths import Truths
from dvsn.portable.oks import TINY, keypoint_similarity, oks_nms, rescore

AP_NAMES = ("ap", "ap50", "ap75", "apm", "apl", "ar", "ar50", "ar75", "arm", "arl")
SIMILAR = 0.5
"""The least part in OKS with which a keypoint is called right."""
LIKE = 0.5
"""The least intersection over union of a detected box with that of the person whom it shows."""


class KeypointAP(KeypointScore):
    """Average precision and recall over OKS, by pycocotools or the `evaluator` that has the same rules: all ten figures of
    the COCO API, -1 where it has none.

    Before: a person's score is the box's times the mean of the confidences above `confident`, and people of a picture
    whose OKS to a better one is above `nms` are dropped. The evaluator then takes the best 20 of a picture, and
    ignores true people without a labelled keypoint. Any set of keypoints with sigmas will do, such as CrowdPose's 14
    (whose own evaluator also sorts pictures by how crowded they are).

    Where all people were handed over, all annotations count, as published. Where only some were, those count whose box was
    handed over: see `counted`.
    """

    person_score = "oks"
    person_better = "more"
    unit = "the root of the person's area"
    threshold = 0.15

    def __init__(
        self,
        *,
        keypoints: KeypointSet,
        nms: float = 0.9,
        confident: float = 0.2,
        evaluator: Evaluator = "pycocotools",
    ) -> None:
        super().__init__(keypoints=keypoints)
        classes_of(evaluator)  # to hear now of one that is missing
        self.evaluator = evaluator
        self.curves: np.ndarray = np.zeros((0, 0))
        if not keypoints.sigmas:
            raise ConfigError(
                "data.keypoints.sigmas: none are given, but data.facts.score=ap measures by them. Give one number a "
                "keypoint (COCO: 0.026 for the nose, 0.107 for a hip), or set data.facts.score=pck."
            )
        self.nms, self.confident = nms, confident

    def _prepare(self, truths: Truths) -> None:
        content = truths.coco()
        if content is None:
            raise ConfigError(
                f"data.facts.score: {truths.source} has no annotations in COCO's form, which ap is measured by. Set "
                "data.facts.score=pck."
            )
        self._content = content
        self._category = int(content["categories"][0]["id"])
        self._all = as_coco(content, content["annotations"])
        self._by_image: dict[int, list[Row]] = {}
        self._shown: dict[int, Row | None] = {}  # the annotation of a person, by number
        for each in content["annotations"]:
            self._by_image.setdefault(int(each["image_id"]), []).append(each)

    def compared(self, index: np.ndarray) -> Compared:
        """The annotation of each person; of a detected box the one whose box is most like it, from an overlap of `LIKE` on.
        Nothing is labelled of a person without one, or whose annotation has no area."""
        count = len(self.keypoints)
        triples, area = np.zeros((len(index), count, 3)), np.zeros(len(index))
        for place, number in enumerate(index.tolist()):
            annotation = self._annotation_of(number)
            if annotation is not None:
                triples[place], area[place] = _three(annotation), annotation["area"]
        labelled = (triples[..., 2] > 0) & (area > 0)[:, None]
        return Compared(triples[..., :2], labelled, np.sqrt(area + TINY))

    def each(self, errors: np.ndarray) -> np.ndarray:
        """OKS: the mean similarity of the labelled keypoints."""
        return super().each(self.similarity(errors))

    def right(self, errors: np.ndarray) -> np.ndarray:
        return self.similarity(errors) >= SIMILAR

    right_words = f"similarity of {SIMILAR} or more"

    def similarity(self, errors: np.ndarray) -> np.ndarray:
        """Errors (N, K) relative to the root of the area -> each keypoint's part in OKS; NaN stays."""
        return np.exp(-np.square(errors) / (2 * (2 * np.array(self.keypoints.sigmas)) ** 2))

    def _annotation_of(self, number: int) -> Row | None:
        if number not in self._shown:
            self._shown[number] = self._find_annotation(number)
        return self._shown[number]

    def _find_annotation(self, number: int) -> Row | None:
        own = int(self.truths.annotation[number])
        rows = self._by_image.get(int(self.truths.image_id[number]), [])
        if own >= 0:
            return next((each for each in rows if each.get("number", each["id"]) == own), None)
        people = [each for each in rows if not each["iscrowd"]]
        if not people:
            return None
        like = overlaps(np.array([each["bbox"] for each in people], np.float64), self.truths.box[number])
        return people[int(like.argmax())] if like.max() >= LIKE else None

    def truth(self) -> Any:
        """The annotations that count, indexed by pycocotools."""
        handed = self.handed_over()
        if handed.all() or not handed.any():
            return self._all
        seen = set(self.truths.image_id[handed].tolist())
        images = [each for each in self._content["images"] if each["id"] in seen]
        kept = counted(self._content["annotations"], self.truths, handed)
        return as_coco({**self._content, "images": images}, kept)

    def results(self) -> list[Row]:
        """The people after NMS, in the form that COCO's server takes."""
        found = self.answers()
        score = rescore(self.truths.score[found.index], found.confidence, above=self.confident)
        area = found.extent.prod(axis=1)
        people: dict[int, list[int]] = {}
        for place, image_id in enumerate(self.truths.image_id[found.index].tolist()):
            people.setdefault(image_id, []).append(place)
        rows = []
        for image_id, places in people.items():
            group = np.array(places)
            kept = oks_nms(
                found.points[group],
                score[group],
                area[group],
                sigmas=self.keypoints.sigmas,
                threshold=self.nms,
            )
            rows += [
                coco_result(found.points[i], found.confidence[i], score[i], image_id, self._category)
                for i in group[kept]
            ]
        return rows

    def evaluate(self, evaluator: Evaluator | None = None) -> Any:
        """The COCO evaluator after its work; None without a prediction. `evaluator`: another than the metric's own."""
        results, truth = self.results(), self.truth()
        if not results:
            return None
        with contextlib.redirect_stdout(io.StringIO()):
            found = truth.loadRes(results).dataset
        return evaluated(
            truth.dataset,
            found,
            "keypoints",
            evaluator=evaluator or self.evaluator,
            sigmas=self.keypoints.sigmas,
        )

    def compute(self) -> dict[str, Tensor]:
        """Also sets `curves`: the precision (T, R) at each of COCO's OKS and recalls, -1 where no person counts."""
        evaluator = self.evaluate()
        self.curves = (
            np.zeros((0, 0)) if evaluator is None else evaluator.eval["precision"][:, :, 0, 0, -1].copy()
        )
        values = [0.0] * len(AP_NAMES) if evaluator is None else evaluator.stats
        return {name: torch.tensor(float(value)) for name, value in zip(AP_NAMES, values, strict=True)}

    def table(self) -> list[Row]:
        """`similarity` is the keypoint's part in OKS: its mean over all labelled ones, 0 for people not found at OKS 0.5."""
        truth = self.truth()
        total, count = np.zeros(len(self.keypoints)), np.zeros(len(self.keypoints), np.int64)
        people = {number: _three(each) for number, each in truth.anns.items()}
        labelled = {number: triples[:, 2] > 0 for number, triples in people.items()}
        for number, each in truth.anns.items():
            count += labelled[number] * (not each["iscrowd"])
        evaluator = self.evaluate("pycocotools")  # the other one keeps no matches of a picture
        for picture in evaluator.evalImgs if evaluator else ():
            if picture is None or picture["aRng"] != evaluator.params.areaRng[0]:
                continue
            pairs = zip(picture["gtIds"], picture["gtMatches"][0], picture["gtIgnore"], strict=True)
            for number, match, ignore in pairs:
                if match > 0 and not ignore:
                    answer = _three(evaluator.cocoDt.anns[int(match)])
                    distance2 = np.square(answer[:, :2] - people[number][:, :2]).sum(axis=1)
                    area = np.array(truth.anns[number]["area"])
                    total += keypoint_similarity(distance2, area, self.keypoints.sigmas) * labelled[number]
        return [
            {"keypoint": name, "labelled": int(n), "similarity": float(t / n) if n else None}
            for name, n, t in zip(self.keypoints.names, count, total, strict=True)
        ]


def as_coco(content: Mapping[str, Any], annotations: Sequence[Row]) -> Any:
    """pycocotools' index of some annotations of a file's content, which it writes into: so of copies."""
    from pycocotools.coco import COCO

    made = COCO()
    made.dataset = {"info": {}, **content, "annotations": [dict(each) for each in annotations]}
    with contextlib.redirect_stdout(io.StringIO()):
        made.createIndex()
    return made


def counted(annotations: Sequence[Row], truths: Truths, handed: np.ndarray) -> list[Row]:
    """The annotations that a limited run is measured by, `handed` (R,) being the people it was given.

    They are in pictures of these people. One with a box of its own counts if that was handed over. Where boxes were
    detected, one counts if the box most like its own (intersection over union) was. Crowd regions and people whom the
    data set does not list stay, as in a full run.
    """
    listed = dict(zip(truths.annotation.tolist(), handed.tolist(), strict=True))
    places: dict[int, list[int]] = {}
    for place, image_id in enumerate(truths.image_id.tolist()):
        places.setdefault(image_id, []).append(place)
    kept = []
    for each in annotations:
        rows = places.get(each["image_id"], [])
        if not handed[rows].any():
            continue
        number = each.get("number", each["id"])
        if (truths.annotation[rows] >= 0).all():
            wanted = listed.get(number, True)
        else:
            wanted = bool(handed[rows][overlaps(truths.box[rows], each["bbox"]).argmax()])
        if wanted or each["iscrowd"]:
            kept.append(each)
    return kept


def overlaps(boxes: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """Intersection over union of boxes (N, 4) with one, all x, y, width, height: (N,)."""
    one = np.asarray(box, np.float64)
    low = np.maximum(boxes[:, :2], one[:2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], one[:2] + one[2:])
    inside = np.clip(high - low, 0, None).prod(axis=1)
    union = boxes[:, 2:].prod(axis=1) + one[2:].prod() - inside
    return inside / np.maximum(union, 1e-9)


def _three(person: Row) -> np.ndarray:
    return np.array(person["keypoints"], np.float64).reshape(-1, 3)


def coco_result(
    points: np.ndarray, confidence: np.ndarray, score: float, image_id: int, category: int
) -> Row:
    """A person (K, 2) as an entry of COCO's results format; coordinates to a thousandth of a pixel."""
    triples = np.column_stack([np.round(np.float64(points), 3), np.round(np.float64(confidence), 4)])
    return {
        "image_id": int(image_id),
        "category_id": category,
        "keypoints": triples.ravel().tolist(),
        "score": float(score),
    }
