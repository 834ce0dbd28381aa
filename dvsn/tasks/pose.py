"""Top-down human pose: each person's crop, a heatmap for every keypoint, and the points read from it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dvsn.codecs.heatmaps import HeatmapCodec, resample
from dvsn.data.crop import PersonCrop
from dvsn.distill.method import Kind
from dvsn.errors import ConfigError
from dvsn.losses.landmarks import LandmarkLoss, PFLDLoss
from dvsn.tasks.keypoints import KeypointTask
from dvsn.tasks.student import Student, Translate
from dvsn.types import Batch, Terms

PADDING = 1.25  # of a box, where the data set does not say; as published


class PoseEstimator(nn.Module):
    """What is shipped: uint8 RGB crops (N, 3, H, W) -> (N, K, 3) float32: x, y in pixels of the crop, and confidence.

    `answer="heatmaps"` gives the maps (N, K, h, w) instead, to be decoded elsewhere. One pass, no mirror.
    """

    def __init__(
        self,
        normalise: nn.Module,
        network: nn.Module,
        codec: HeatmapCodec,
        *,
        answer: Literal["points", "heatmaps"] = "points",
    ) -> None:
        super().__init__()
        self.normalise, self.network, self.codec, self.answer = normalise, network, codec, answer

    def forward(self, image: Tensor) -> Tensor:
        heatmaps: Tensor = self.network(self.normalise(image))
        if self.answer == "heatmaps":
            return heatmaps.float()
        points, confidence = self.codec.decode(heatmaps)
        return torch.cat([points, confidence.unsqueeze(-1)], dim=-1)


class Pose(KeypointTask):
    """Keypoints of people in crops, by heatmaps. Batches and shared options: see `KeypointTask`.

    - `codec` turns keypoints into targets and maps into points.
    - `channels`: the published SimpleBaseline weights saw BGR under the means of RGB.
    - `flip_test` averages the maps.
    """

    kind: ClassVar[str] = "pose"
    response: ClassVar[Kind] = "heatmaps"

    def __init__(self, *, network: nn.Module, codec: HeatmapCodec, loss: nn.Module, **shared: Any) -> None:
        super().__init__(network=network, **shared)
        if isinstance(loss, LandmarkLoss | PFLDLoss):
            raise ConfigError(
                f"loss: {type(loss).__name__} compares points, and this task learns heatmaps. Choose loss=heatmaps or "
                "loss=adaptive_wing."
            )
        self.codec, self.loss = codec, loss
        self.teaching_size = (codec.size[0], codec.size[1])
        multiple = int(getattr(network, "multiple", 1))
        if any(side % multiple for side in codec.size):
            raise ConfigError(
                f"transform.size: found {list(codec.size)}, but sides must divide by {multiple} for "
                f"{type(network).__name__}."
            )

    def crop(self) -> Any:
        padding = float(self.data_fact("padding", PADDING))
        crop = PersonCrop(size=self.codec.size, padding=padding, unbiased=self.codec.unbiased)
        crop.keypoints = self.keypoints
        return crop

    def adapt_data(self, node: dict[str, Any]) -> dict[str, Any]:
        """Also: crops as this network wants them, without augmentation."""
        crop = {
            "_target_": f"{PersonCrop.__module__}.PersonCrop",
            "size": list(self.codec.size),
            "padding": (node.get("facts") or {}).get("padding", PADDING),
            "unbiased": self.codec.unbiased,
        }
        return node | {"transform": {"train": crop, "eval": crop}}

    def objective(self, output: Tensor, batch: Batch) -> Terms:
        """The loss's named terms."""
        target, weight = self.codec.encode(batch["keypoints"], batch["weight"])
        terms: Terms = self.loss(output, target, weight)
        return terms

    def translate_from(self, teacher: Student) -> Translate | None:
        """Maps of a teacher with another codec or size of crops are brought into the frame of this task's maps."""
        theirs = getattr(teacher, "codec", None)
        if not isinstance(theirs, HeatmapCodec):
            return None
        if theirs.same_frame(self.codec) and teacher.teaching_size == self.codec.size:
            return None
        return lambda maps, _: resample(maps, theirs, self.codec)

    def estimate(self, image: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `KeypointTask.estimate`; an `offset` is for crops that are not `centred`, which maps do not want."""
        return self.codec.decode(self.maps(image))

    def maps(self, image: Tensor) -> Tensor:
        """uint8 RGB crops (N, 3, H, W) -> heatmaps (N, K, h, w), with `flip_test` the mean with the mirror's."""
        image = self.layout(self.normalise(image))
        heatmaps = self.network(image).float()
        if self.flip_test and self.keypoints.mirrors:
            mirror = torch.from_numpy(self.keypoints.mirror).to(heatmaps.device)
            mirrored = self.network(self.layout(image.flip(-1))).float()
            heatmaps = self.codec.join_mirrored(heatmaps, mirrored, mirror)
        return heatmaps

    def deployable(self) -> nn.Module:
        return PoseEstimator(self.normalise, self.network, self.codec).eval()
