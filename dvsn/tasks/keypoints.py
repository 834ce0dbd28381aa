"""What tasks of keypoints share: crops of people or faces, points in them, and how these are measured and shown."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from dvsn.config.build import build
from dvsn.errors import ConfigError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.keypoints import make_score
from dvsn.metrics.pck import Reference
from dvsn.optim.schedules import Schedule
from dvsn.tasks.base import OptimizerFactory
from dvsn.tasks.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from dvsn.tasks.scored import ScoredTask
from dvsn.tasks.student import Student
from dvsn.types import Batch


class KeypointTask(ScoredTask):
    """Keypoints in crops of people or faces; a task says how a network's answer becomes points (`estimate`).

    A batch holds `image`, uint8 RGB (N, 3, H, W); `keypoints` (N, K, 2) in pixels of the crop and `weight` (N, K);
    `inverse` (N, 2, 3) from crop to picture, `extent` (N, 2), `index` and `name`; of faces also `offset` (N,), by how many
    crop pixels, right and down, keypoints count from the pixels in which they are drawn (see `FaceCrop`).

    - `mean`, `std`, `channels` (`rgb` or `bgr`): of what the network sees; see `Normalise`.
    - `flip_test`: average with the answer for the mirrored crop, in validation, evaluation and prediction.
    - `head_factor` multiplies the learning rate of `head_modules` (null: the network's own last layer);
      `decay_norms: false` spares biases and batch norms the weight decay.

    Outside of training everything is in float32, also where training is mixed: bfloat16 moves points by half a pixel.
    """

    kind: ClassVar[str] = "keypoints"
    measured: ClassVar[str] = "people"
    samples: ClassVar[str | None] = "people"

    def __init__(
        self,
        *,
        network: nn.Module,
        optim: OptimizerFactory,
        schedule: Schedule | None = None,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        channels: Literal["rgb", "bgr"] = "rgb",
        flip_test: bool = True,
        head_factor: float = 1.0,
        head_modules: list[str] | None = None,
        decay_norms: bool = True,
    ) -> None:
        super().__init__(optim=optim, schedule=schedule)
        self.network = network
        self.normalise = Normalise(mean=mean, std=std, channels=channels)
        self.flip_test = flip_test
        self.head_factor, self.head_modules, self.decay_norms = head_factor, head_modules, decay_norms

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"network": self.network}

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

    def training_step(self, batch: Batch, _: int) -> Tensor:
        terms = self.learn(batch)
        self.record(terms)
        return torch.stack(list(terms.values())).sum()

    # Evaluation and use -----------------------------------------------------------------------------

    def use_metrics(  # type: ignore[override]
        self,
        *,
        nms: float = 0.9,
        confident: float = 0.2,
        threshold: float = 0.2,
        reference: Reference = "auto",
    ) -> None:
        """The score that the data set is measured by: `data.facts.score`. For the options see
        `dvsn.metrics.keypoints.make_score`."""
        score = make_score(
            self.data_fact("score", "pck"),
            keypoints=self.keypoints,
            nms=nms,
            confident=confident,
            threshold=threshold,
            reference=reference,
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
            points=to_picture(answer[..., :2], batch["inverse"]),
            confidence=answer[..., 2],
            extent=batch["extent"],
        )

    def validation_step(self, batch: Batch, _: int) -> Tensor:
        return self._evaluate(batch)

    def test_step(self, batch: Batch, _: int) -> Tensor:
        return self._evaluate(batch)

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        columns = {"photo": batch["image"], "prediction": self._drawn(batch, output)}
        if "keypoints" in batch:
            truth = torch.cat([batch["keypoints"], batch["weight"].unsqueeze(-1)], dim=-1)
            columns["label"] = self._drawn(batch, truth)
        return columns

    def _drawn(self, batch: Batch, answer: Tensor) -> Tensor:
        """The crops (N, 3, H, W) with skeletons of (N, K, 3)."""
        from dvsn.pictures.draw import draw_skeleton

        image = batch["image"]
        if "offset" in batch:
            places = answer[..., :2] - batch["offset"].view(-1, 1, 1)
            answer = torch.cat([places, answer[..., 2:]], dim=-1)
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

    def detail_pictures(self) -> dict[str, Any]:
        draw = getattr(self.score, "curve_picture", None)
        return {} if draw is None else {"ced": draw()}

    def files(self) -> dict[str, Any]:
        given = {}
        for name, method in (("keypoints.json", "results"), ("ced.csv", "curve"), ("faces.csv", "per_face")):
            tell = getattr(self.score, method, None)
            if tell is not None:
                given[name] = tell()
        return given

    shows: ClassVar[str] = "people"


def to_picture(points: Tensor, inverse: Tensor) -> Tensor:
    """Points (N, K, 2) of crops through their (N, 2, 3) maps to the picture, in float32 wherever it is called."""
    with torch.autocast(points.device.type, enabled=False):
        return points.float() @ inverse[:, :, :2].transpose(1, 2) + inverse[:, None, :, 2]
