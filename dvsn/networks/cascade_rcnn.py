"""Cascade R-CNN on torchvision's parts: heads in a row, each trained on better boxes than the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import clip_boxes_to_image

from dvsn.errors import ConfigError
from dvsn.types import Terms

Boxes = list[Tensor]
"""Of each picture (n, 4) x1, y1, x2, y2 in pixels of the resized picture."""
Sizes = list[tuple[int, int]]
Targets = list[dict[str, Tensor]]
Samples = tuple[Boxes, list[Tensor], list[Tensor]]
"""Boxes, and of each box the place of its object among the picture's, and its label, 0 where it is background."""
Scores = Literal["own", "last"]
OVERLAPS = (0.5, 0.6, 0.7)
DEVIATIONS = (0.1, 0.05, 0.033)
WEIGHTS = (1.0, 0.5, 0.25)
HIDDEN = 1024
MASK_CHANNELS = 256


class AgnosticPredictor(nn.Module):
    """(n, `channels`) -> logits (n, classes) and one box for all classes (n, 4), coded."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, classes)
        self.bbox_pred = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


class CascadeHeads(nn.Module):
    """The heads of Cascade R-CNN in the place of a model's `roi_heads`, with mask heads where these have one.

    Cai and Vasconcelos, 2018, arXiv:1712.00726; with masks 2019, arXiv:1906.09756. Each stage is torchvision's `RoIHeads`
    with a head of its own: it samples boxes, an object being what overlaps one by `overlaps`, corrects them, and hands them
    to the next. Boxes are the same for all classes. Their codes are divided by (d, d, 2d, 2d) with d of `deviations`; the
    smooth L1 loss has its bend at 1. The terms of a stage are times its number of `weights`, and have its number at the
    end. The true boxes among the samples are not handed on; each stage adds them again.

    In use the boxes are the last stage's, and their scores the mean of all stages': of each on the boxes it was given
    (`scores` "own", as mmdetection and Detectron2 have it), or of all on those the last was given ("last", the paper's).
    Masks are the mean of all mask heads' on the final boxes.
    """

    def __init__(
        self,
        plain: RoIHeads,
        *,
        classes: int,
        channels: int,
        overlaps: Sequence[float] = OVERLAPS,
        deviations: Sequence[float] = DEVIATIONS,
        weights: Sequence[float] = WEIGHTS,
        scores: Scores = "own",
    ) -> None:
        super().__init__()
        check_stages(overlaps, deviations, weights, scores)
        self.weights, self.scores = tuple(weights), scores
        self.masks = plain.has_mask()
        self.stages = nn.ModuleList(
            stage_like(plain, classes, channels, overlap, deviation)
            for overlap, deviation in zip(overlaps, deviations, strict=True)
        )

    def forward(
        self, features: dict[str, Tensor], proposals: Boxes, sizes: Sizes, targets: Targets | None = None
    ) -> tuple[list[dict[str, Tensor]], Terms]:
        """Levels by name, proposals, sizes (H, W) of the resized pictures -> detections, and in training the terms."""
        if not self.training:
            return self.detect(features, proposals, sizes), {}
        assert targets is not None
        return [], self.losses(features, proposals, sizes, targets)

    # Training ---------------------------------------------------------------------------------------

    def losses(self, features: dict[str, Tensor], proposals: Boxes, sizes: Sizes, targets: Targets) -> Terms:
        terms: Terms = {}
        boxes = proposals
        for number, weight in enumerate(self.weights):
            found, boxes = self.train_stage(number, features, boxes, sizes, targets)
            terms |= {f"{name}_{number + 1}": weight * value for name, value in found.items()}
        return terms

    def train_stage(
        self, number: int, features: dict[str, Tensor], boxes: Boxes, sizes: Sizes, targets: Targets
    ) -> tuple[Terms, Boxes]:
        """The terms of a stage, and the boxes for the next."""
        stage: Any = self.stages[number]
        boxes, matched, labels, wanted = stage.select_training_samples(boxes, targets)
        logits, codes = self.ask(stage, self.pooled(features, boxes, sizes))
        terms = box_losses(logits, codes, torch.cat(labels), torch.cat(wanted))
        moved = corrected(stage, codes, boxes, sizes, targets)
        if self.masks:
            sampled = self.mask_samples(stage, (boxes, matched, labels), moved, targets)
            terms["loss_mask"] = self.mask_loss(number, features, *sampled, sizes, targets)
        return terms, moved

    def mask_loss(
        self,
        number: int,
        features: dict[str, Tensor],
        boxes: Boxes,
        matched: list[Tensor],
        labels: list[Tensor],
        sizes: Sizes,
        targets: Targets,
    ) -> Tensor:
        """Of the sampled boxes that are objects."""
        kept = [torch.where(each > 0)[0] for each in labels]
        boxes = [each[place] for each, place in zip(boxes, kept, strict=True)]
        matched = [each[place] for each, place in zip(matched, kept, strict=True)]
        logits = self.mask_logits(features, boxes, sizes, upto=number + 1)[-1]
        masks, classes = ([each[key] for each in targets] for key in ("masks", "labels"))
        loss: Tensor = maskrcnn_loss(logits, boxes, masks, classes, matched)
        return loss

    # Use --------------------------------------------------------------------------------------------

    def detect(self, features: dict[str, Tensor], proposals: Boxes, sizes: Sizes) -> list[dict[str, Tensor]]:
        boxes, shares = proposals, []
        for number, stage in enumerate(self.stages):
            pooled = self.pooled(features, boxes, sizes)
            logits, codes = self.ask(stage, pooled)
            shares.append(logits.softmax(dim=-1))
            if number + 1 < len(self.stages):
                boxes = corrected(stage, codes, boxes, sizes)
            elif self.scores == "last":
                shares = [self.ask(each, pooled)[0].softmax(dim=-1) for each in self.stages]
        mean = torch.stack(shares).mean(dim=0)
        last: Any = self.stages[-1]
        # torchvision takes the soft-max of logits, which brings back `mean`, and a box for each class
        places, scores, labels = last.postprocess_detections(
            mean.log(), codes.repeat(1, mean.shape[1]), boxes, sizes
        )
        found = [
            {"boxes": box, "labels": label, "scores": score}
            for box, label, score in zip(places, labels, scores, strict=True)
        ]
        if self.masks:
            stacked = torch.stack(
                [
                    torch.cat(maskrcnn_inference(logits, labels))
                    for logits in self.mask_logits(features, places, sizes, upto=len(self.stages))
                ]
            )
            counts = [label.shape[0] for label in labels]
            for each, masks in zip(found, stacked.mean(dim=0).split(counts), strict=True):
                each["masks"] = masks
        return found

    # Parts that a relative may change ---------------------------------------------------------------

    def mask_samples(self, stage: Any, sampled: Samples, moved: Boxes, targets: Targets) -> Samples:
        """What the mask head of a stage is trained on, of the boxes that its box head was trained on, `sampled`, and those
        that it has corrected, `moved`."""
        return sampled

    def pooled(self, features: dict[str, Tensor], boxes: Boxes, sizes: Sizes) -> Tensor:
        """(all boxes, channels, 7, 7)"""
        first: Any = self.stages[0]
        squares: Tensor = first.box_roi_pool(features, boxes, sizes)
        return squares

    def ask(self, stage: Any, pooled: Tensor) -> tuple[Tensor, Tensor]:
        answer: tuple[Tensor, Tensor] = stage.box_predictor(stage.box_head(pooled))
        return answer

    def mask_logits(
        self, features: dict[str, Tensor], boxes: Boxes, sizes: Sizes, *, upto: int
    ) -> list[Tensor]:
        """(all boxes, classes, 28, 28) of the mask heads of stages 1 to `upto`; in training of the last of these alone."""
        first: Any = self.stages[0]
        pooled = first.mask_roi_pool(features, boxes, sizes)
        asked: list[Any] = list(self.stages)[upto - 1 if self.training else 0 : upto]
        return [stage.mask_predictor(stage.mask_head(pooled)) for stage in asked]


def check_stages(
    overlaps: Sequence[float], deviations: Sequence[float], weights: Sequence[float], scores: str
) -> None:
    """Raise `ConfigError` for stages that cannot be."""
    given = {"overlaps": overlaps, "deviations": deviations, "weights": weights}
    for name, values in given.items():
        if len(values) != len(overlaps) or not values or any(value <= 0 for value in values):
            raise ConfigError(
                f"network.stage_{name}: found {list(values)}, expected {len(overlaps) or 3} numbers above 0, one a stage, "
                "as many as network.stage_overlaps."
            )
    if any(value >= 1 for value in overlaps):
        raise ConfigError(f"network.stage_overlaps: found {list(overlaps)}, expected numbers below 1.")
    if scores not in ("own", "last"):
        raise ConfigError(f"network.stage_scores: found {scores!r}, expected own or last.")


def stage_like(plain: Any, classes: int, channels: int, overlap: float, deviation: float) -> RoIHeads:
    """torchvision's heads with the sampling, the poolings and the limits of `plain`, and weights of their own."""
    side = plain.box_roi_pool.output_size[0]
    masks: dict[str, Any] = {}
    if plain.has_mask():
        masks = {
            "mask_roi_pool": plain.mask_roi_pool,
            "mask_head": MaskRCNNHeads(channels, (MASK_CHANNELS,) * 4, 1),
            "mask_predictor": MaskRCNNPredictor(MASK_CHANNELS, MASK_CHANNELS, classes),
        }
    return RoIHeads(
        plain.box_roi_pool,
        TwoMLPHead(channels * side**2, HIDDEN),
        AgnosticPredictor(HIDDEN, classes),
        overlap,
        overlap,
        plain.fg_bg_sampler.batch_size_per_image,
        plain.fg_bg_sampler.positive_fraction,
        tuple(1 / (deviation * share) for share in (1, 1, 2, 2)),
        plain.score_thresh,
        plain.nms_thresh,
        plain.detections_per_img,
        **masks,
    )


def box_losses(logits: Tensor, codes: Tensor, labels: Tensor, wanted: Tensor) -> Terms:
    """Cross-entropy of logits (n, classes), and smooth L1 of the codes (n, 4) of the boxes that are objects, over n."""
    objects = (labels > 0).unsqueeze(1)  # a mask, since indices of them would wait for the device
    wanted = torch.where(objects, wanted, codes.detach())
    apart = F.smooth_l1_loss(codes, wanted, beta=1.0, reduction="sum")
    return {"loss_classifier": F.cross_entropy(logits, labels), "loss_box_reg": apart / labels.numel()}


def corrected(stage: Any, codes: Tensor, boxes: Boxes, sizes: Sizes, targets: Targets | None = None) -> Boxes:
    """The boxes as a stage corrects them, within their pictures, without gradient; those of `targets` are left out."""
    moved = stage.box_coder.decode_single(codes.detach(), torch.cat(boxes))
    counts = [each.shape[0] for each in boxes]
    found = [clip_boxes_to_image(each, size) for each, size in zip(moved.split(counts), sizes, strict=True)]
    if targets is None:
        return found
    return [
        each[~is_among(given, target["boxes"].to(given.dtype))]
        for each, given, target in zip(found, boxes, targets, strict=True)
    ]


def is_among(boxes: Tensor, truths: Tensor) -> Tensor:
    """(n,) bool: whether a box is exactly one of `truths` (m, 4)."""
    return (boxes[:, None] == truths[None]).all(dim=-1).any(dim=1)
