"""Detectors of mmdetection on HRNetV2p: Faster, Mask, Cascade, Cascade Mask R-CNN and Hybrid Task Cascade.

Files of version 2 and 3 name the heads `roi_head.bbox_head...`, and have the background as the last class; their boxes of
classes and masks have none for it. Files of version 1, such as the authors' own, name them `bbox_head...` and have the
background first, with a box and a mask of its own. Ours has it first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dvsn.convert.hrnet import read_trunk
from dvsn.convert.release import Converted, SkipRandom, State, outputs, transfer
from dvsn.convert.segmentation import choose, count_blocks
from dvsn.errors import CheckpointError
from dvsn.networks.detectors import Detector
from dvsn.networks.hrnetv2p import HRNetV2p

LAYOUTS = {
    "mmdetection/two_stages": (
        "backbone.stage4.0.fuse_layers.3.0.2.0.weight",
        "roi_head.bbox_head.fc_cls.weight",
    ),
    "mmdetection/cascade": ("neck.reduction_conv.conv.weight", "roi_head.bbox_head.2.fc_cls.weight"),
    "mmdetection/htc": ("neck.reduction_conv.conv.weight", "roi_head.mask_head.1.conv_res.conv.weight"),
}
HEADS = ("bbox_head.", "mask_head.", "semantic_head.")
UNUSED = "the first stage has no head before it to read"
BOXES = {"box_head.fc6": "shared_fcs.0", "box_head.fc7": "shared_fcs.1"}
BOXES |= {"box_predictor.cls_score": "fc_cls", "box_predictor.bbox_pred": "fc_reg"}
MASKS = {f"mask_head.{number}.0": f"convs.{number}.conv" for number in range(4)}
MASKS |= {"mask_predictor.conv5_mask": "upsample", "mask_predictor.mask_fcn_logits": "conv_logits"}
REGION = {"head.conv.0.0": "rpn_conv", "head.cls_logits": "rpn_cls", "head.bbox_pred": "rpn_reg"}
FIRST_VERSION = (
    "A file of mmdetection 1, whose boxes count their last pixel and whose anchors and pooling are those of that time: "
    "boxes may differ by about a pixel from its own."
)
OTHERS = {
    "bbox_head.conv_centerness.weight": "FCOS of mmdetection has a scale for each level, which torchvision's has not",
    "bbox_head.fcos_cls.weight": "FCOS of mmdetection has a scale for each level, which torchvision's has not",
    "bbox_head.heatmap_head.0.weight": "mmdetection's CenterNet stands on transposed convolutions behind a ResNet, which "
    "no network here has; ours reads a pyramid",
    "neck.lateral_convs.0.conv.weight": "its neck is a feature pyramid, and HRNetV2p's is expected",
}
"""What is known of other detectors, by a key of theirs."""


def matches(state: State) -> bool:
    """A backbone and a neck side by side, as mmdetection calls them."""
    return "backbone.conv1.weight" in state and any(key.startswith("neck.") for key in state)


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """No key tells how large pictures are made: 800 and 1333, as in every recipe of these."""
    choose(options, ())
    refuse_others(state)
    first_version = not any(key.startswith("roi_head.") for key in state)
    if first_version:
        state = {f"roi_head.{key}" if key.startswith(HEADS) else key: value for key, value in state.items()}
        state = {spelled(key): value for key, value in state.items()}
    detector, stages = kind_of(state)
    head = f"roi_head.bbox_head.{0 if stages else ''}".rstrip(".")
    classes = outputs(state, f"{head}.fc_cls.weight", dimensions=2)
    backbone = {key.removeprefix("backbone."): value for key, value in state.items()}
    trunk = {**read_trunk(backbone), "enlarge": "nearest", "align_corners": False}
    trunk |= {"bn_momentum": 0.1, "first_stride": 4}
    node: dict[str, Any] = {"classes": classes, "detector": detector, "rules": "mmdetection"}
    if "roi_head.semantic_head.conv_logits.weight" in state:
        node["semantic_classes"] = outputs(state, "roi_head.semantic_head.conv_logits.weight")
    with torch.device("meta"), SkipRandom():
        network = Detector(backbone=HRNetV2p(**trunk), **node)
    if not first_version:
        state = background_first(state)
    modules = {name: published_name(name) for name, _ in network.named_modules()}
    unused = [key for key in state if key.startswith("roi_head.mask_head.0.conv_res.")]
    converted, dropped = transfer(state, network, modules, droppable=dict.fromkeys(unused, UNUSED))
    layout = "htc" if detector == "htc" else "cascade" if stages else "two_stages"
    where = f"{HRNetV2p.__module__}.{HRNetV2p.__qualname__}"
    recipe: dict[str, Any] = {"_target_": f"{Detector.__module__}.{Detector.__qualname__}"}
    recipe |= {"backbone": {"_target_": where, **trunk}, **node, "fixed_statistics": True}
    notes = (FIRST_VERSION,) if first_version else ()
    return Converted(recipe, "detector", f"mmdetection/{layout}", converted, dropped, notes)


def refuse_others(state: State) -> None:
    """Raise `CheckpointError` for a detector of mmdetection that has no counterpart here."""
    for key, why in OTHERS.items():
        if key in state:
            raise CheckpointError(
                f"'{key}': {why}. Converted are Faster, Mask, Cascade, Cascade Mask R-CNN and Hybrid Task Cascade on "
                "HRNetV2p."
            )


def kind_of(state: State) -> tuple[str, int]:
    """The detector, and how many stages its cascade has, 0 where it is none."""
    stages = count_blocks(state, "roi_head.bbox_head") if "roi_head.bbox_head.0.fc_cls.weight" in state else 0
    masks = any(key.startswith("roi_head.mask_head.") for key in state)
    if "roi_head.mask_head.1.conv_res.conv.weight" in state:
        kind = "htc"
    elif stages:
        kind = "cascade_mask_rcnn" if masks else "cascade_rcnn"
    else:
        kind = "mask_rcnn" if masks else "faster_rcnn"
    if stages not in (0, 3):
        raise CheckpointError(f"A cascade of {stages} heads, expected 3.")
    return kind, stages


def spelled(key: str) -> str:
    """A key of version 1, or of the authors' own files, as later versions spell it."""
    if key.startswith("neck.reduction_conv.0."):
        return key.replace("neck.reduction_conv.0.", "neck.reduction_conv.conv.")
    if key.startswith("neck.fpn_conv."):
        number, _, name = key.removeprefix("neck.fpn_conv.").partition(".")
        return f"neck.fpn_convs.{number}.conv.{name}"
    return key


def background_first(state: State) -> dict[str, Tensor]:
    """With the background, which is the last class and has no box and no mask, as the first of all three. Its box and mask
    are 0: no answer shows them."""
    moved = dict(state)
    for key, value in state.items():
        layer = key.rpartition(".")[0].rpartition(".")[2]
        if not key.startswith("roi_head.") or "semantic_head" in key:
            continue
        if layer == "fc_cls":
            moved[key] = torch.cat([value[-1:], value[:-1]])
        elif layer == "conv_logits":
            moved[key] = torch.cat([torch.zeros_like(value[:1]), value])
        elif key.startswith("roi_head.bbox_head.fc_reg."):  # a cascade's boxes are the same for all classes
            moved[key] = torch.cat([torch.zeros_like(value[:4]), value])
    return moved


def published_name(path: str) -> str:
    """The published path of one of our modules; its own where it has no weights."""
    rest = path.removeprefix("model.")
    if rest.startswith("backbone.reduction_conv"):
        return "neck.reduction_conv.conv"
    if rest.startswith("backbone.fpn_convs."):
        return f"neck.fpn_convs.{rest.rpartition('.')[2]}.conv"
    if rest.startswith("rpn."):
        return f"rpn_head.{REGION.get(rest.removeprefix('rpn.'), rest)}"
    if not rest.startswith("roi_heads."):
        return rest
    rest = rest.removeprefix("roi_heads.")
    if rest.startswith("flows."):
        return f"roi_head.mask_head.{int(rest.removeprefix('flows.')) + 1}.conv_res.conv"
    if rest.startswith("semantic."):
        return f"roi_head.semantic_head.{semantic_name(rest.removeprefix('semantic.'))}"
    stage = ""
    if rest.startswith("stages.") and rest.count(".") > 1:
        _, stage, rest = rest.split(".", 2)
        stage = f"{stage}."
    if rest in BOXES:
        return f"roi_head.bbox_head.{stage}{BOXES[rest]}"
    return f"roi_head.mask_head.{stage}{MASKS.get(rest, rest)}"


def semantic_name(rest: str) -> str:
    kind, _, number = rest.partition(".")
    if kind == "convs" and number:
        return f"convs.{int(number) // 2}.conv"
    return {
        "laterals": f"lateral_convs.{number}.conv",
        "embedding": "conv_embedding.conv",
        "logits": "conv_logits",
    }.get(kind, rest)
