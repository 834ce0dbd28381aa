"""The base of tasks of keypoints: crops of people or faces, points in them, their score and their drawing."""

from __future__ import annotations

import functools
import logging
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from dvsn.config.build import build
from dvsn.errors import ConfigError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.coco_evaluator import Evaluator
from dvsn.metrics.keypoint_ap import KeypointAP
from dvsn.metrics.keypoints import make_score
from dvsn.metrics.landmarks import NME
from dvsn.metrics.pck import Reference
from dvsn.pictures import distributions
from dvsn.pictures.grids import to_array
from dvsn.pictures.layers import Layers, Point
from dvsn.portable.draw import draw_skeleton
from dvsn.tasks.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from dvsn.tasks.scored import ScoredTask
from dvsn.tasks.student import Student
from dvsn.types import Batch

log = logging.getLogger(__name__)


class KeypointTask(ScoredTask):
    """Keypoints in crops of people or faces. A task writes `estimate`, which makes points of a network's answer.

    A batch holds:

    - `image`: uint8 RGB (N, 3, H, W); `index` and `name`;
    - `keypoints` (N, K, 2) in pixels of the crop, and `weight` (N, K);
    - `inverse` (N, 2, 3), from crop to picture, and `extent` (N, 2);
    - of faces also `offset` (N,): a keypoint's coordinates minus the pixel in which it is drawn (see `FaceCrop`).

    Options:

    - `mean`, `std`, `channels` (`rgb` or `bgr`): of what the network sees; see `Normalise`.
    - `flip_test`: average with the answer for the mirrored crop, in validation, evaluation and prediction.
    - `shared`: the options of every `NetworkTask`.

    Outside of training everything is in float32, also where training is mixed: bfloat16 moves points by half a pixel.
    """

    kind: ClassVar[str] = "keypoints"
    measured: ClassVar[str] = "people"
    samples: ClassVar[str | None] = "people"
    measures_in_float32: ClassVar[bool] = True

    def __init__(
        self,
        *,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        channels: Literal["rgb", "bgr"] = "rgb",
        flip_test: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.normalise = Normalise(mean=mean, std=std, channels=channels)
        self.flip_test = flip_test

    @functools.cached_property
    def keypoints(self) -> KeypointSet:
        """The keypoints of the data set of the recipe. Raises `ConfigError` where it has none."""
        node = self.data_recipe.get("keypoints")
        if not node:
            raise ConfigError(
                "data.keypoints: this checkpoint knows no names and mirror pairs of its keypoints, such as one converted "
                "from a published file. Add the data set that it was trained on, such as data=coco."
            )
        found = build(node, path="data.keypoints")
        assert isinstance(found, KeypointSet)
        return found

    def data_fact(self, name: str, default: Any) -> Any:
        """What the recipe of the data set says in its `facts` (see `dvsn.data.facts.DataFacts`)."""
        return (self.data_recipe.get("facts") or {}).get(name, default)

    # Training ---------------------------------------------------------------------------------------

    def ask_data(self, data: Any) -> None:
        data.use("people")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        for line in self.left_open():
            log.info("%s", line)

    def left_open(self) -> list[str]:
        """What the data set does not say of its keypoints, and what is done instead: a line each."""
        found = []
        if not self.keypoints.mirrors:
            found.append(
                "data.keypoints.pairs: not given, and no names tell left from right, so nothing is mirrored. Name the pairs "
                "that a mirror exchanges, or set it to [] where there are none."
            )
        score = self.data_fact("score", "pck")
        if score == "pck" and not self.keypoints.sigmas:
            found.append(
                "data.keypoints.sigmas: not given, so keypoints are measured by PCK and not by COCO's AP, which needs them."
            )
        if score == "nme" and self.data_fact("normalise", None) is None:
            found.append(
                "data.facts.normalise: not given, so errors are relative to the diagonal of the box around the points."
            )
        return found

    # Evaluation and use -----------------------------------------------------------------------------

    def use_metrics(  # type: ignore[override]
        self,
        *,
        nms: float = 0.9,
        confident: float = 0.2,
        threshold: float = 0.2,
        reference: Reference = "auto",
        evaluator: Evaluator = "pycocotools",
    ) -> None:
        """The score that the data set is measured by: `data.facts.score`. For the options see
        `dvsn.metrics.keypoints.make_score`."""
        self.flip_test = self.flip_test and self.keypoints.mirrors
        score = make_score(
            self.data_fact("score", "pck"),
            keypoints=self.keypoints,
            nms=nms,
            confident=confident,
            threshold=threshold,
            reference=reference,
            evaluator=evaluator,
            normalise=self.data_fact("normalise", None),
        )
        self._metrics = (MetricCollection({"score": score}, compute_groups=False),)

    def evaluate_as_taught(self, student: Student) -> None:
        super().evaluate_as_taught(student)
        self.flip_test = False

    def teach(self, image: Tensor) -> Any:
        """As `Task.teach`, in float32 as it is measured: bfloat16 would move what is taught by half a pixel."""
        with torch.autocast(image.device.type, enabled=False):
            return super().teach(image)

    def estimate(self, image: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """uint8 RGB crops (N, 3, H, W) and perhaps their `offset` (N,) -> points (N, K, 2) in pixels of the crop, counted as
        the crops' keypoints are, and confidences (N, K)."""
        raise NotImplementedError

    def forward(self, image: Tensor, offset: Tensor | None = None) -> Tensor:
        """As `estimate`, in one tensor (N, K, 3): x, y in pixels of the crop, and confidence."""
        with torch.autocast(image.device.type, enabled=False):
            points, confidence = self.estimate(image, offset)
        return torch.cat([points, confidence.unsqueeze(-1)], dim=-1)

    def _evaluate(self, batch: Batch) -> Tensor:
        answer: Tensor = self(batch["image"], batch.get("offset"))
        self.take_score(batch, answer)
        return answer

    def take_score(self, batch: Batch, answer: Tensor) -> None:
        """Hand an answer (N, K, 3), as `forward` gives it, to the score."""
        self.score.update(
            index=batch["index"],
            points=self.in_picture(batch, answer),
            confidence=answer[..., 2],
            extent=batch["extent"],
        )

    def in_picture(self, batch: Batch, answer: Tensor) -> Tensor:
        """The points (N, K, 2) of an answer in pixels of their pictures."""
        return to_picture(answer[..., :2], batch["inverse"])

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        columns = {"photo": batch["image"], "prediction": self._drawn(batch, output)}
        if "keypoints" in batch:
            truth = torch.cat([batch["keypoints"], batch["weight"].unsqueeze(-1)], dim=-1)
            columns["label"] = self._drawn(batch, truth)
        return columns

    def layers(self, batch: Batch, output: Tensor) -> list[Layers]:
        answers = {"prediction": in_crop(output, batch)}
        if "keypoints" in batch:
            truth = torch.cat([batch["keypoints"], batch["weight"].unsqueeze(-1)], dim=-1)
            answers["label"] = in_crop(truth, batch)
        pictures, names = to_array(batch["image"]), self.keypoints.names
        return [
            Layers(
                name,
                pictures[i],
                tuple(names),
                points={
                    key: tuple(
                        Point(x, y, number, None if key == "label" else seen)
                        for number, (x, y, seen) in enumerate(found[i].float().tolist())
                        if seen > 0
                    )
                    for key, found in answers.items()
                },
            )
            for i, name in enumerate(batch["name"])
        ]

    def _drawn(self, batch: Batch, answer: Tensor) -> Tensor:
        """The crops (N, 3, H, W) with skeletons of (N, K, 3)."""
        image, answer = batch["image"], in_crop(answer, batch)
        pictures = image.permute(0, 2, 3, 1).cpu().contiguous().numpy().copy()
        for picture, points in zip(pictures, answer.float().cpu().numpy(), strict=True):
            draw_skeleton(picture, points[:, :2], points[:, 2], self.keypoints)
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)

    def crop(self) -> Any:
        """What cuts a person or face by its box for this network, in prediction: a sample in, a sample out."""
        raise NotImplementedError

    def details(self) -> dict[str, list[dict[str, Any]]]:
        tables = {
            "scored": self.coverage_table(),
            "keypoints": self.score.table(),
            "not measured": self.score.left_out(),
        }
        return {title: rows for title, rows in tables.items() if rows}

    def by_class(self) -> list[dict[str, Any]]:
        """By keypoint, or by part of the data set; not of COCO's precision, whose evaluation would be made twice."""
        return [] if isinstance(self.score, KeypointAP) else self.score.table()

    def detail_pictures(self) -> dict[str, Any]:
        return {"ced": distributions.picture(self.score.by_subset())} if isinstance(self.score, NME) else {}

    def files(self) -> dict[str, Any]:
        given = {}
        for name, method in (("keypoints.json", "results"), ("ced.csv", "curve"), ("faces.csv", "per_face")):
            tell = getattr(self.score, method, None)
            if tell is not None:
                given[name] = tell()
        return given

    shows: ClassVar[str] = "people"


def in_crop(answer: Tensor, batch: Batch) -> Tensor:
    """Keypoints (N, K, 3) of a batch in the pixels of its crops, which may be counted from an `offset`."""
    if "offset" not in batch:
        return answer
    places = answer[..., :2] - batch["offset"].view(-1, 1, 1)
    return torch.cat([places, answer[..., 2:]], dim=-1)


def to_picture(points: Tensor, inverse: Tensor) -> Tensor:
    """Points (N, K, 2) of crops through their (N, 2, 3) maps to the picture, in float32 wherever it is called."""
    with torch.autocast(points.device.type, enabled=False):
        return points.float() @ inverse[:, :, :2].transpose(1, 2) + inverse[:, None, :, 2]
