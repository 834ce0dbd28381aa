"""Facial landmarks in a face's crop: regressed at once, or by heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from dvsn.data.face_crop import FaceCrop
from dvsn.distill.method import Kind
from dvsn.errors import ConfigError
from dvsn.losses.heatmaps import AdaptiveWing, JointMSE
from dvsn.losses.landmarks import PFLDLoss
from dvsn.metrics.angles import AngleError
from dvsn.tasks.keypoints import KeypointTask
from dvsn.tasks.pose import Pose
from dvsn.tasks.student import Student, Translate
from dvsn.types import Batch, LandmarkOutput, Terms

PADDING = 1.2  # of a face's box, where the data set does not say; as published


class LandmarkEstimator(nn.Module):
    """What is shipped: uint8 RGB crops (N, 3, H, W) -> points (N, L, 2) float32, x and y in pixels of the crop."""

    size: Tensor

    def __init__(self, normalise: nn.Module, network: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.normalise, self.network = normalise, network
        device = next((parameter.device for parameter in network.parameters()), None)
        sides = torch.tensor([float(size[1]), float(size[0])], device=device)
        self.register_buffer("size", sides, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        points: Tensor = self.network(self.normalise(image), heads=False).points
        return points.float() * self.size


class Landmarks(KeypointTask):
    """Landmarks of faces by a network that answers with points, such as PFLD. Batches, shared options: see `KeypointTask`.

    A batch may also hold `attributes` (N, A) of 0 and 1, and `angles` (N, 3), the head's pitch, yaw and roll in radians, a
    row of NaN where they are not known.

    - `size` (H, W) of the crops; the network's points are fractions of it.
    - `mean`, `std`, `channels`: the popular PFLD sees blue, green, red in [0, 1] and nothing else.
    - `flip_test` averages with the points of the mirrored crop.
    """

    kind: ClassVar[str] = "landmarks"
    measured: ClassVar[str] = "faces"
    shows: ClassVar[str] = "faces"
    response: ClassVar[Kind] = "points"

    def __init__(
        self,
        *,
        network: nn.Module,
        loss: nn.Module,
        size: Sequence[int],
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
        channels: Literal["rgb", "bgr"] = "bgr",
        flip_test: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(
            network=network, mean=mean, std=std, channels=channels, flip_test=flip_test, **shared
        )
        if not hasattr(network, "landmarks"):
            raise ConfigError(
                f"network: {type(network).__name__} does not answer with points. Choose network=pfld, or the form of this "
                "task for networks that answer with heatmaps: task=landmarks_heatmaps."
            )
        if isinstance(loss, JointMSE | AdaptiveWing):
            raise ConfigError(
                f"loss: {type(loss).__name__} compares heatmaps, and {type(network).__name__} answers with points. Choose "
                "loss=pfld or loss=wing."
            )
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ConfigError(f"task.size: found {list(size)}, expected [SIDE, SIDE] in pixels.")
        self.loss, self.size = loss, (size[0], size[1])
        self.teaching_size = self.size

    def crop(self) -> Any:
        return box_crop(self, self.size, centred=False)

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        return with_crops(self, node, self.size, centred=False)

    def use_metrics(self, **options: Any) -> None:
        """Also the error of the head's angles, where the network and the keypoints tell them."""
        super().use_metrics(**options)
        if getattr(self.network, "auxiliary", None) is not None and self.keypoints.head:
            scores = {"score": self.score, "angles": AngleError()}
            self._metrics = (MetricCollection(scores, compute_groups=False),)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if isinstance(self.loss, PFLDLoss) and self.loss.counts_data:
            records = self.trainer.datamodule.datasets["train"].records  # type: ignore[attr-defined]
            flags = [record.attributes for record in records]
            if any(each is None for each in flags):
                raise ConfigError(
                    "loss.shares=data: the training faces have no attributes to count. Leave it out: without attributes all "
                    "faces weigh alike."
                )
            self.loss.count(torch.from_numpy(np.array(flags)).to(self.device))

    @property
    def sides(self) -> Tensor:
        """Width and height of the crops, (2,)."""
        return torch.tensor([float(self.size[1]), float(self.size[0])], device=self.device)

    def labelled(self, batch: Batch) -> Batch:
        """Also `points` (N, L, 2), the keypoints as fractions of the crop."""
        return {**batch, "points": batch["keypoints"] / self.sides}

    def objective(self, output: LandmarkOutput, batch: Batch) -> Terms:
        """The loss's named terms."""
        terms: Terms = self.loss(
            output,
            batch["keypoints"] / self.sides,
            batch["weight"],
            angles=batch.get("angles"),
            attributes=batch.get("attributes"),
        )
        return terms

    def respond(self, image: Tensor, *, heads: bool, offset: Tensor | None = None) -> LandmarkOutput:
        """uint8 RGB crops (N, 3, H, W) and their `offset` (N,) -> points as fractions of the crop, and with `heads` the
        head's angles. Without one the crop is its own picture, pixel for pixel: 0."""
        image = self.layout(self.normalise(image))
        points, angles = self.network(image, heads=heads)
        if self.flip_test and self.keypoints.mirrors:
            mirrored, turned = self.network(self.layout(image.flip(-1)), heads=heads)
            mirror = torch.from_numpy(self.keypoints.mirror).to(points.device)
            points = (points + self.mirrored_back(mirrored[:, mirror], offset)) / 2
            angles = None if angles is None else (angles + turned * angles.new_tensor([1, -1, -1])) / 2
        return LandmarkOutput(points, angles)

    def mirrored_back(self, points: Tensor, offset: Tensor | None) -> Tensor:
        """Fractions (N, L, 2) in mirrored crops -> in the crops: pixel x - offset becomes width - 1 - (x - offset)."""
        width, (x, y) = self.size[1], points.unbind(-1)
        shift = points.new_zeros(len(points)) if offset is None else offset
        return torch.stack([((width - 1 + 2 * shift) / width).unsqueeze(-1) - x, y], dim=-1)

    def estimate(self, image: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        points = self.respond(image, heads=False, offset=offset).points.float() * self.sides
        return points, points.new_ones(points.shape[:2])

    def translate_from(self, teacher: Student) -> Translate | None:
        """Points that a teacher has read from heatmaps, as fractions of the crop's area, become fractions as labels count
        them: a crop that is not `centred` has them half a picture pixel less."""
        if teacher.response != "heatmaps":
            return None

        def translate(points: Tensor, batch: Batch) -> Tensor:
            offset = batch.get("offset", points.new_zeros(len(points)))
            return points + (offset.view(-1, 1, 1) - 0.5) / self.sides

        return translate

    def _evaluate(self, batch: Batch) -> Tensor:
        if "angles" not in self.metrics or "angles" not in batch:
            return super()._evaluate(batch)
        with torch.autocast(batch["image"].device.type, enabled=False):
            points, angles = self.respond(batch["image"], heads=True, offset=batch.get("offset"))
        answer = torch.cat([points * self.sides, points.new_ones(*points.shape[:2], 1)], dim=-1)
        self.take_score(batch, answer)
        self.metrics["angles"].update(angles, batch["angles"])
        return answer

    def deployable(self) -> nn.Module:
        return LandmarkEstimator(self.normalise, self.network, self.size).eval()


class HeatmapLandmarks(Pose):
    """Landmarks of faces by a network that answers with heatmaps, such as HRNetV2 (Sun et al., 2019, arXiv:1904.04514).

    Everything is that of `Pose` but the crop, which is a face's square, and the kind: wherever landmarks are asked
    for, either form of the task will do. Points come with the peak of their map as confidence.
    """

    kind: ClassVar[str] = "landmarks"
    measured: ClassVar[str] = "faces"
    shows: ClassVar[str] = "faces"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the crops."""
        return self.codec.size

    def teach_points(self, image: Tensor) -> Tensor:
        """As a teacher of a network of points, such as PFLD: what the maps are read as, (N, L, 2) fractions of the crop's
        area. Its labels may count otherwise: `Landmarks.translate_from`."""
        with torch.autocast(image.device.type, enabled=False):
            maps = self.teach(image)
            points, _ = self.codec.decode(maps)
        sides = points.new_tensor([maps.shape[-1], maps.shape[-2]]) * self.codec.stride
        return (points + 0.5) / sides

    def crop(self) -> Any:
        return box_crop(self, self.size, centred=True)

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        return with_crops(self, node, self.size, centred=True)


def box_crop(task: KeypointTask, size: tuple[int, int], *, centred: bool) -> FaceCrop:
    """The crop of prediction, by a box: landmarks are what is asked for, so they cannot say where the face is."""
    padding = float(task.data_fact("padding", PADDING))
    crop = FaceCrop(size=size, padding=padding, box="rectangle", centred=centred)
    crop.keypoints = task.keypoints
    return crop


def with_crops(
    task: KeypointTask, node: dict[str, Any], size: tuple[int, int], *, centred: bool
) -> dict[str, Any]:
    """A data node with the crops that a network was trained with, unaugmented. Crops are made from `points` or `rectangle`:
    as the transform of the node says, or as the data set says where it is another than the training's, else as in training.
    """
    given, trained = ((each.get("transform") or {}).get("eval") or {} for each in (node, task.data_recipe))
    published, known = (
        (each.get("facts") or {}).get("face_box", "points") for each in (node, task.data_recipe)
    )
    if given == trained and published != known:
        given = {"box": published}
    crop = {
        "_target_": f"{FaceCrop.__module__}.FaceCrop",
        "size": list(size),
        "padding": (node.get("facts") or {}).get("padding", PADDING),
        "box": given.get("box") or trained.get("box", "points"),
        "centred": centred,
    }
    return node | {"transform": {"train": crop, "eval": crop}}
