"""Detectors on a backbone of ours: torchvision's, cascades of its heads, CenterNet and GFL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.poolers import initLevelMapper

from dvsn.errors import ConfigError, nearest
from dvsn.networks.blocks import require_choice, require_counts
from dvsn.networks.cascade_rcnn import DEVIATIONS, OVERLAPS, WEIGHTS, CascadeHeads, Scores
from dvsn.networks.centernet import CenterNet, PointDetector
from dvsn.networks.centernet_triplets import TripletNet
from dvsn.networks.detector_rules import Rules, parts
from dvsn.networks.generalised_focal import FocalHead, GeneralisedFocal
from dvsn.networks.hybrid_cascade import HybridHeads
from dvsn.networks.resizing import Resizing

Kind = Literal[
    "faster_rcnn",
    "mask_rcnn",
    "fcos",
    "cascade_rcnn",
    "cascade_mask_rcnn",
    "htc",
    "centernet",
    "centernet_triplets",
    "gfl",
]
LEVELS = 5
SIZES = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)
MASKED = ("mask_rcnn", "cascade_mask_rcnn", "htc")
CASCADES = ("cascade_rcnn", "cascade_mask_rcnn", "htc")
CENTERNETS = {"centernet": CenterNet, "centernet_triplets": TripletNet}
FINE = ("fcos", "gfl")
"""Detectors whose finest level has stride 8; that of the others has 4."""
CLASS_LAYERS = {
    "faster_rcnn": ("model.roi_heads.box_predictor",),
    "mask_rcnn": ("model.roi_heads.box_predictor", "model.roi_heads.mask_predictor"),
    "fcos": ("model.head.classification_head.cls_logits",),
    "gfl": ("model.head.scores",),
    "centernet": ("model.head.heatmap.2",),
    "centernet_triplets": tuple(f"model.head.heatmaps.{kind}.2" for kind in range(3)),
}


class Detector(nn.Module):
    """A detector, `model`: torchvision's with its names of weights, or one of its form.

    Input: a list of RGB pictures (3, H, W) in [0, 1] of any sizes; they are resized and normalised in here. In training
    also their targets, dicts of `boxes` (n, 4) x1, y1, x2, y2, `labels` (n,) int64 and, for detectors with masks, `masks`
    (n, H, W), and perhaps `stuff` (H, W) uint8. Output: in training the named losses; else for each picture `boxes`,
    `labels`, `scores` (n,), the best first, and with masks `masks` (n, 1, H, W) in [0, 1], all in the picture's own pixels.

    Faster R-CNN: Ren et al., 2015, arXiv:1506.01497, on a pyramid (Lin et al., 2017, arXiv:1612.03144). Mask R-CNN: He et
    al., 2017, arXiv:1703.06870. FCOS: Tian et al., 2019, arXiv:1904.01355. Cascade R-CNN and Cascade Mask R-CNN:
    `CascadeHeads`. Hybrid Task Cascade: `HybridHeads`. CenterNet: `CenterNet` and `TripletNet`. GFL: `GeneralisedFocal`.

    - `backbone` gives five levels "0" to "4" of equal channels (`out_channels`), the finest of stride 4, for FCOS and GFL 8.
      Pictures are padded until both sides divide by its `multiple`. `classes` count the background.
    - `min_size` is the shorter side that pictures are resized to as long as the longer stays within `max_size`; of
      several one is drawn in training, and the last is used otherwise.
    - `anchors`: one size in pixels a level, each in the ratios 0.5, 1 and 2. FCOS, GFL and CenterNet have none.
    - `score_threshold`, `overlap` of the suppression, `detections` a picture: of the answer. Null: torchvision's; a
      `score_threshold` of 0 for both CenterNets; no suppression for `centernet`, 0.5 for `centernet_triplets`; 0.05 and 0.6
      for GFL.
    - `proposals` that the first stage hands on, and of these the `sampled` a picture that the second is trained on; null:
      torchvision's 2000 (1000 in use) and 512. On a CPU fewer save a third of the time. FCOS, GFL and
      CenterNet have no stages.
    - `stage_overlaps`, `stage_deviations`, `stage_weights`, `stage_scores`: of cascades; see `CascadeHeads`.
    - `semantic_classes`, `semantic_weight`: of Hybrid Task Cascade; see `HybridHeads`.
    - `hidden` channels of CenterNet's heads, and `centre_overlap`, by which its bells are drawn; see `radius_of`.
    - `bins`: the longest distance of an edge from its position that GFL's distributions know, in units of the stride.
    - `rules`: of two stages, where the same weights mean different things: "torchvision", or for converted files
      "mmdetection" (anchors are not rounded, `AlignedPool`, and `rectified` `HybridHeads`).
    - `fixed_statistics`: batch norms of the backbone keep their running statistics in training, as published recipes
      with two pictures a device have it; their scales and shifts are trained.

    Under mixed precision the backbone and the heads compute in bf16, while levels, anchors, boxes, scores and losses
    stay float32: in bf16 a coordinate above 512 has steps of 4 pixels.
    """

    response: ClassVar[str] = "objects"

    def __init__(
        self,
        *,
        backbone: nn.Module,
        classes: int,
        detector: Kind = "faster_rcnn",
        min_size: int | list[int] = 800,
        max_size: int = 1333,
        anchors: list[int] | None = None,
        score_threshold: float | None = None,
        overlap: float | None = None,
        detections: int = 100,
        proposals: int | None = None,
        sampled: int | None = None,
        stage_overlaps: Sequence[float] = OVERLAPS,
        stage_deviations: Sequence[float] = DEVIATIONS,
        stage_weights: Sequence[float] = WEIGHTS,
        stage_scores: Scores = "own",
        semantic_classes: int | None = None,
        semantic_weight: float = 0.2,
        hidden: int = 64,
        centre_overlap: float = 0.3,
        bins: int = 16,
        rules: Rules = "torchvision",
        fixed_statistics: bool = False,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        check_options(detector, classes, anchors, semantic_classes, centre_overlap)
        require_choice(self, "rules", rules, Rules)
        require_counts(self, hidden=hidden, bins=bins)
        multiple = require_stride(backbone, detector)
        self.masks = detector in MASKED
        self.classes, self.semantic_classes = classes, semantic_classes
        self.fixed_statistics = fixed_statistics
        common: dict[str, Any] = {
            "min_size": tuple(min_size) if isinstance(min_size, list) else min_size,
            "max_size": max_size,
            "image_mean": list(mean),
            "image_std": list(std),
            "size_divisible": multiple,
        }
        answer = {"score_thresh": score_threshold, "nms_thresh": overlap, "detections_per_img": detections}
        self.model: Any
        if detector in ("fcos", "gfl", *CENTERNETS):
            centres = {"hidden": hidden, "overlap": centre_overlap}
            self.model = one_stage(detector, backbone, classes, {**common, **given(answer)}, centres, bins)
        else:
            sizes: Any = {"anchors": anchors, "proposals": proposals, "sampled": sampled, "rules": rules}
            self.model = two_stages(backbone, classes, common, answer, masks=self.masks, **sizes)
        if detector in CASCADES:
            stages: dict[str, Any] = {"overlaps": stage_overlaps, "deviations": stage_deviations}
            stages |= {"weights": stage_weights, "scores": stage_scores}
            if detector == "htc":
                stages |= {"semantic_classes": semantic_classes, "semantic_weight": semantic_weight}
                stages |= {"rectified": rules == "mmdetection"}
            set_cascade(self.model, classes, stages, hybrid=detector == "htc")
        self._finish(detector, common)

    def _finish(self, detector: Kind, common: dict[str, Any]) -> None:
        """What is the same for all of torchvision's models."""
        own = ("min_size", "max_size", "image_mean", "image_std", "size_divisible")
        self.model.transform = Resizing(*(common[name] for name in own))
        self.classifier = class_layers(self.model, detector)
        for module in half_precision_parts(self.model):
            module.register_forward_hook(in_float32)

    def train(self, mode: bool = True) -> Detector:
        super().train(mode)
        if mode and self.fixed_statistics:
            for module in self.model.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    @property
    def dense_tap(self) -> str:
        """The coarsest level, as of any backbone: a head of several levels reads no single map."""
        return next(iter(self.taps[-1:]), "")

    @property
    def taps(self) -> tuple[str, ...]:
        """The levels of the pyramid, finest first."""
        backbone = self.model.backbone
        levels = ("fpn.layer_blocks", "fpn_convs")
        found = next((path for path in levels if path in dict(backbone.named_modules())), None)
        if found is None:
            return ()
        count = len(backbone.get_submodule(found))
        return tuple(f"model.backbone.{found}.{number}" for number in range(count))

    @property
    def distribution_taps(self) -> tuple[str, ...]:
        """Of GFL, of each level the distributions of edges, then of each the scores."""
        if not isinstance(self.model, GeneralisedFocal):
            return ()
        levels = range(FocalHead.levels)
        return tuple(f"model.head.{kind}.{level}" for kind in ("scales", "qualities") for level in levels)

    def adopt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a relative under this network's names: a classifier's or a segmenter's trunk is the backbone."""
        own = self.state_dict().keys()
        return {
            next(
                (name for name in (f"model.backbone.{key}", f"model.backbone.body.{key}") if name in own), key
            ): value
            for key, value in state.items()
        }

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        return self.model(images, targets)


def one_stage(
    detector: Kind, backbone: Any, classes: int, options: dict[str, Any], centres: dict[str, Any], bins: int
) -> nn.Module:
    """FCOS, GFL or a CenterNet; `centres` are options of the latter, `bins` of GFL."""
    if detector == "fcos":
        return FCOS(backbone, classes, **options)
    if detector == "gfl":
        return GeneralisedFocal(backbone, classes, **options, bins=bins)
    return CENTERNETS[detector](backbone, classes, **options, **centres)


def two_stages(
    backbone: nn.Module,
    classes: int,
    common: dict[str, Any],
    answer: dict[str, Any],
    *,
    masks: bool,
    anchors: list[int] | None,
    proposals: int | None,
    sampled: int | None,
    rules: Rules,
) -> Any:
    """torchvision's Faster R-CNN or Mask R-CNN; its pools know the strides of the levels."""
    sizes = tuple((size,) for size in anchors or SIZES)
    common = {**common, "rpn_anchor_generator": AnchorGenerator(sizes, (RATIOS,) * LEVELS)}
    common |= parts(rules, sizes, (RATIOS,) * LEVELS, masks=masks)
    stages = {f"box_{name}": value for name, value in answer.items()} | {
        "box_batch_size_per_image": sampled,
        "rpn_post_nms_top_n_train": proposals,
        "rpn_post_nms_top_n_test": proposals,
    }
    model = (MaskRCNN if masks else FasterRCNN)(backbone, classes, **common, **given(stages))
    for pool in [module for module in model.modules() if isinstance(module, MultiScaleRoIAlign)]:
        settle_scales(pool)
    return model


def set_cascade(model: Any, classes: int, options: dict[str, Any], *, hybrid: bool) -> None:
    """Give a model of torchvision's the heads of a cascade in the place of its own."""
    channels, plain = model.backbone.out_channels, model.roi_heads
    if hybrid:
        model.roi_heads = HybridHeads(plain, classes=classes, channels=channels, levels=LEVELS, **options)
    else:
        model.roi_heads = CascadeHeads(plain, classes=classes, channels=channels, **options)


def class_layers(model: Any, detector: Kind) -> tuple[str, ...]:
    """The paths of the layers that depend on the classes."""
    if detector not in CASCADES:
        return CLASS_LAYERS[detector]
    names = ("box_predictor", "mask_predictor") if detector in MASKED else ("box_predictor",)
    stages = range(len(model.roi_heads.stages))
    return tuple(f"model.roi_heads.stages.{stage}.{name}" for stage in stages for name in names)


def check_options(
    detector: str,
    classes: int,
    anchors: list[int] | None,
    semantic_classes: int | None,
    centre_overlap: float,
) -> None:
    """Raise `ConfigError` for options that no detector, or not this one, has."""
    if classes < 2:
        raise ConfigError(f"network.classes: found {classes}, expected 2 or more, with the background.")
    if anchors is not None and len(anchors) != LEVELS:
        raise ConfigError(f"network.anchors: found {len(anchors)} sizes, expected {LEVELS}, one a level.")
    if detector not in get_args(Kind):
        raise ConfigError(f"network.detector: found '{detector}'. {nearest(detector, get_args(Kind))}")
    if semantic_classes is not None and detector != "htc":
        raise ConfigError(
            f"network.semantic_classes: found {semantic_classes}, but {detector} has no semantic branch. Set "
            "network.detector=htc, or network.semantic_classes=null."
        )
    if not 0 < centre_overlap < 1:
        raise ConfigError(
            f"network.centre_overlap: found {centre_overlap}, expected a number above 0 and below 1."
        )


def require_stride(backbone: nn.Module, detector: Kind) -> int:
    """The backbone's `multiple`. Raises `ConfigError` unless its finest level has the stride that the detector wants."""
    multiple, wanted = int(getattr(backbone, "multiple", 32)), 8 if detector in FINE else 4
    first = int(getattr(backbone, "first_stride", multiple // 2 ** (LEVELS - 1)))
    if first != wanted:
        raise ConfigError(
            f"network.backbone.first_stride: found {first}, but {detector} wants a finest level of stride {wanted}. Set "
            f"network.backbone.first_stride={wanted}."
        )
    return multiple


def settle_scales(pool: MultiScaleRoIAlign) -> None:
    """State the strides of the levels, 4 and its doubles. torchvision guesses them from the first picture that it sees, and
    where that is small or long, since its sides are padded, guesses wrong for all that follow."""
    levels = [2 + place for place in range(len(pool.featmap_names))]
    pool.scales = [0.5**level for level in levels]
    pool.map_levels = initLevelMapper(
        levels[0], levels[-1], canonical_scale=pool.canonical_scale, canonical_level=pool.canonical_level
    )


def half_precision_parts(model: Any) -> list[nn.Module]:
    """The parts of a detector that compute in half precision under autocast: the backbone, and all that has weights behind
    it. Their outputs become float32."""
    if isinstance(model, FCOS | PointDetector):
        return [model.backbone, model.head]
    heads = model.roi_heads
    stages = list(heads.stages) if isinstance(heads, CascadeHeads) else [heads]
    parts = [(stage.box_predictor, stage.mask_predictor) for stage in stages]
    return [model.backbone, model.rpn.head, *(part for pair in parts for part in pair if part is not None)]


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not None: torchvision's own defaults hold for the rest."""
    return {key: value for key, value in options.items() if value is not None}


def in_float32(_: nn.Module, __: Any, output: Any) -> Any:
    """A forward hook: the output, or the tensors in it, as float32."""
    if output is None:
        return None
    if isinstance(output, Tensor):
        return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output
    if isinstance(output, dict):
        return type(output)((key, in_float32(_, __, value)) for key, value in output.items())
    return type(output)(in_float32(_, __, value) for value in output)


class ResNetPyramid(BackboneWithFPN):
    """A ResNet of torchvision with a feature pyramid, for machines without a GPU. Starts from random weights.

    Input: (N, 3, H, W) normalised RGB. Output: five maps "0" to "4", (N, channels, H/s, W/s), s = first_stride times 1, 2,
    4, 8, 16. With 256 channels and ResNet-50 it is that of torchvision's own Faster R-CNN, or of its FCOS with
    `first_stride` 8 (Lin et al., 2017, arXiv:1612.03144), except that its batch norms are trained.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 18,
        channels: int = 64,
        first_stride: Literal[4, 8] = 4,
    ) -> None:
        trunk = getattr(resnet, f"resnet{depth}")(weights=None)
        stages = (1, 2, 3, 4) if first_stride == 4 else (2, 3, 4)
        widest = trunk.fc.in_features  # of the last stage; each before it has half of the next
        extra = LastLevelMaxPool() if first_stride == 4 else LastLevelP6P7(channels, channels)
        super().__init__(
            trunk,
            {f"layer{stage}": str(number) for number, stage in enumerate(stages)},
            [widest // 2 ** (4 - stage) for stage in stages],
            channels,
            extra_blocks=extra,
        )
        self.first_stride, self.multiple = first_stride, 32  # of torchvision's detectors

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        levels = super().forward(image)
        return type(levels)((str(number), level) for number, level in enumerate(levels.values()))
