"""Kinds of tasks that can be benchmarked: what is shipped around a network, and when two answers agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dvsn.benchmark.levers import MainAnswer
from dvsn.codecs.heatmaps import HeatmapCodec
from dvsn.errors import ConfigError
from dvsn.tasks.inference import resize
from dvsn.tasks.landmarks import LandmarkEstimator
from dvsn.tasks.normalise import Normalise
from dvsn.tasks.pose import PoseEstimator
from dvsn.tasks.segmentation import Segmenter

NEAR = 0.1  # pixels of a face's crop


class Segmentation:
    """Bytes to class ids. Answers agree where a pixel of full size has the same class."""

    name = "segmentation"
    bare = MainAnswer

    def __init__(self, shipped: Segmenter) -> None:
        self.shipped = shipped

    @staticmethod
    def ship(network: nn.Module, size: Sequence[int]) -> Segmenter:
        return Segmenter(Normalise(), network, align_corners=bool(network.align_corners))

    def around(self, network: nn.Module) -> nn.Module:
        """What is shipped, with a network that stands for its own."""
        shipped = self.shipped
        return Segmenter(shipped.normalise, network, align_corners=shipped.align_corners).eval()

    def same(self, found: Tensor, expected: Tensor, size: Sequence[int]) -> Tensor:
        """Of logits (N, K, h, w) or ids (N, H, W): whether the pixels of `size` (H, W) are of one class."""
        if found.is_floating_point():
            corners = self.shipped.align_corners
            found, expected = (
                resize(each, size, align_corners=corners).argmax(dim=1) for each in (found, expected)
            )
        return found == expected


class Pose:
    """Bytes of crops to points. Answers agree where a keypoint is less than a pixel of the heatmaps away."""

    name = "pose"
    bare = MainAnswer

    def __init__(self, shipped: PoseEstimator) -> None:
        self.shipped = shipped

    @staticmethod
    def ship(network: nn.Module, size: Sequence[int]) -> PoseEstimator:
        return PoseEstimator(Normalise(), network, HeatmapCodec(size=size, stride=int(network.stride)))  # type: ignore[arg-type]

    def around(self, network: nn.Module) -> nn.Module:
        """What is shipped, with a network that stands for its own."""
        return PoseEstimator(self.shipped.normalise, network, self.shipped.codec).eval()

    def same(self, found: Tensor, expected: Tensor, size: Sequence[int]) -> Tensor:
        """Of heatmaps (N, K, h, w) or points and confidences (N, K, 3): whether the keypoints are near, (N, K)."""
        if found.ndim == 4:
            found, expected = (self.shipped.codec.decode(each)[0] for each in (found, expected))
        return (found[..., :2] - expected[..., :2]).norm(dim=-1) < self.shipped.codec.stride


class Landmarks:
    """Bytes of crops to points. Answers agree where a landmark is less than a tenth of a pixel of the crop away."""

    name = "landmarks"

    def __init__(self, shipped: LandmarkEstimator) -> None:
        self.shipped = shipped

    @staticmethod
    def ship(network: nn.Module, size: Sequence[int]) -> LandmarkEstimator:
        normalise = Normalise(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), channels="bgr")
        return LandmarkEstimator(normalise, network, size)

    def around(self, network: nn.Module) -> nn.Module:
        """What is shipped, with a network that stands for its own."""
        width, height = self.shipped.size.tolist()
        return LandmarkEstimator(self.shipped.normalise, network, (height, width)).eval()

    def bare(self, network: nn.Module) -> nn.Module:
        """From normalised crops to points in pixels."""
        width, height = self.shipped.size.tolist()
        return LandmarkEstimator(nn.Identity(), network, (height, width)).eval()

    def distances(self, found: Tensor, expected: Tensor) -> Tensor:
        """Of points (N, L, 2) in pixels: how far apart they are, (N, L)."""
        return (found - expected).norm(dim=-1)

    def same(self, found: Tensor, expected: Tensor, size: Sequence[int]) -> Tensor:
        """Of points (N, L, 2) in pixels: whether they are near, (N, L)."""
        return self.distances(found, expected) < NEAR


Kind = Segmentation | Pose | Landmarks


def of_network(network: nn.Module, node: dict[str, Any], size: Sequence[int]) -> Kind:
    """The kind of a network from the command line, by its options. Raises `ConfigError` for another."""
    if "joints" in node:
        return Pose(Pose.ship(network, size))
    if "landmarks" in node:
        return Landmarks(Landmarks.ship(network, size))
    if hasattr(network, "align_corners"):
        return Segmentation(Segmentation.ship(network, size))
    raise ConfigError(
        f"network: found {type(network).__name__}, which neither segments nor finds keypoints. Choose a network that does."
    )


def of_shipped(shipped: nn.Module) -> Kind | None:
    """The kind of what a checkpoint's task ships; None for a task that is not benchmarked."""
    if isinstance(shipped, Segmenter):
        return Segmentation(shipped)
    if isinstance(shipped, LandmarkEstimator):
        return Landmarks(shipped)
    return Pose(shipped) if isinstance(shipped, PoseEstimator) else None
