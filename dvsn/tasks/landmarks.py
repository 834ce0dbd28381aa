"""Facial landmarks: points of a face's crop, regressed at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dvsn.data.face_crop import FaceCrop
from dvsn.distill.method import Kind
from dvsn.errors import ConfigError
from dvsn.schedules import Schedule
from dvsn.tasks.base import OptimizerFactory
from dvsn.tasks.keypoints import KeypointTask
from dvsn.types import Batch, LandmarkOutput, Terms

PADDING = 1.2  # of a face's box, where the data set does not say; as published


class LandmarkEstimator(nn.Module):
    """What is shipped: uint8 RGB crops (N, 3, H, W) -> points (N, L, 2) float32, x and y in pixels of the crop."""

    size: Tensor

    def __init__(self, normalise: nn.Module, network: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.normalise, self.network = normalise, network
        self.register_buffer("size", torch.tensor([float(size[1]), float(size[0])]), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        points: Tensor = self.network(self.normalise(image), heads=False).points
        return points.float() * self.size


class Landmarks(KeypointTask):
    """Landmarks of faces by a network that answers with points, such as PFLD. Batches, shared options: see `KeypointTask`.

    A batch may also hold `attributes` (N, A) of 0 and 1, and `angles` (N, 3), the head's pitch, yaw and roll in radians,
    which dvsn's readers do not give yet.

    - `size` (H, W) of the crops; the network's points are fractions of it.
    - `mean`, `std`, `channels`: the popular PFLD sees blue, green, red in [0, 1] and nothing else.
    - `flip_test` averages with the points of the mirrored crop.
    """

    kind: ClassVar[str] = "landmarks"
    response: ClassVar[Kind] = "points"

    def __init__(
        self,
        *,
        network: nn.Module,
        loss: nn.Module,
        size: Sequence[int],
        optim: OptimizerFactory,
        schedule: Schedule | None = None,
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
        channels: Literal["rgb", "bgr"] = "bgr",
        flip_test: bool = False,
        head_factor: float = 1.0,
        head_modules: list[str] | None = None,
        decay_norms: bool = True,
    ) -> None:
        super().__init__(
            network=network,
            optim=optim,
            schedule=schedule,
            mean=mean,
            std=std,
            channels=channels,
            flip_test=flip_test,
            head_factor=head_factor,
            head_modules=head_modules,
            decay_norms=decay_norms,
        )
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ConfigError(f"task.size: found {list(size)}, expected [SIDE, SIDE] in pixels.")
        self.loss, self.size = loss, (size[0], size[1])
        self.teaching_size = self.size

    def crop(self) -> Any:
        """By a box: landmarks are what is asked for, so they cannot say where the face is."""
        padding = float(self.data_recipe.get("padding", PADDING))
        crop = FaceCrop(size=self.size, padding=padding, box="rectangle")
        crop.keypoints = self.keypoints
        return crop

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        """Also: crops as this network wants them, by what it was trained with (points or rectangle), unaugmented."""
        trained = (self.data_recipe.get("transform") or {}).get("eval") or {}
        crop = {
            "_target_": f"{FaceCrop.__module__}.FaceCrop",
            "size": list(self.size),
            "padding": node.get("padding", PADDING),
            "box": trained.get("box", "points"),
        }
        return node | {"transform": {"train": crop, "eval": crop}}

    @property
    def sides(self) -> Tensor:
        """Width and height of the crops, (2,)."""
        return torch.tensor([float(self.size[1]), float(self.size[0])], device=self.device)

    def labelled(self, batch: Batch) -> Batch:
        """Also `points` (N, L, 2), the keypoints as fractions of the crop."""
        return {**batch, "points": batch["keypoints"] / self.sides}

    def training_step(self, batch: Batch, _: int) -> Tensor:
        terms = self.learn(batch)
        self.record(terms)
        return torch.stack(list(terms.values())).sum()

    def objective(self, output: LandmarkOutput, batch: Batch) -> Terms:
        """The loss's named terms."""
        if not isinstance(output, LandmarkOutput):
            raise ConfigError(
                f"network: {type(self.network).__name__} does not answer with points. Choose network=pfld."
            )
        terms: Terms = self.loss(
            output,
            batch["keypoints"] / self.sides,
            batch["weight"],
            angles=batch.get("angles"),
            attributes=batch.get("attributes"),
        )
        return terms

    def estimate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        image = self.layout(self.normalise(image))
        points = self.network(image, heads=False).points.float()
        if self.flip_test:
            mirrored = self.network(self.layout(image.flip(-1)), heads=False).points.float()
            mirror = torch.from_numpy(self.keypoints.mirror).to(points.device)
            mirrored = mirrored[:, mirror]
            points = (points + torch.stack([1 - mirrored[..., 0], mirrored[..., 1]], dim=-1)) / 2
        return points * self.sides, points.new_ones(points.shape[:2])

    def deployable(self) -> nn.Module:
        return LandmarkEstimator(self.normalise, self.network, self.size).eval()
