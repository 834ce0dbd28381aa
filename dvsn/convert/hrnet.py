"""HRNetV2 (Sun, Wang and others, 2019-2020): segmenters, segmenters with OCR, and their ImageNet files.

Segmenters are saved with their loss, so names start with `model.` and class weights stand beside them; ImageNet
files hold bare names. Names are ours but for the classifier's last layer. Pose networks of the family have the same
trunk and another head: `dvsn.convert.pose`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvsn.convert.release import Converted, State, outputs
from dvsn.convert.segmentation import Published, choose, convert_published, count_blocks, peel, top_modules
from dvsn.errors import ConfigError
from dvsn.networks.hrnetv2 import HRNetClassifier, HRNetV2
from dvsn.networks.hrnetv2_ocr import HRNetV2OCR

LAYOUTS = {
    "hrnetv2": ("stage4.0.fuse_layers.3.0.2.0.weight", "transition3.3.0.0.weight", "last_layer.0.weight"),
    "hrnetv2/ocr": ("stage4.0.fuse_layers.3.0.2.0.weight", "conv3x3_ocr.0.weight", "aux_head.3.weight"),
    "hrnetv2/imagenet": ("stage4.0.fuse_layers.3.0.2.0.weight", "incre_modules.0.0.conv1.weight"),
}

TRUNK = {"layer1", "transition3", "stage2", "stage3", "stage4"}
OCR = {"aux_head", "cls_head", "ocr_distri_head"}
ALIGNED = (150, 171)
"""ADE20K and COCO-Stuff, by their classes: the plain segmenters whose recipes align corners."""


def matches(state: State) -> bool:
    """The trunk of the family with one of three heads."""
    modules = top_modules(peel(state).state)
    return modules >= TRUNK and ("last_layer" in modules or "incre_modules" in modules or modules >= OCR)


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """Options of a segmenter: `align_corners` and `bn_momentum`, which no key tells, and OCR's `dropout`."""
    published = peel(state)
    found = published.state
    modules = top_modules(found)
    trunk = read_trunk(found)
    if "incre_modules" in modules:
        return convert_classifier(published, trunk, options)
    if "last_layer" not in modules:
        return convert_ocr(published, trunk, options)
    classes = outputs(found, "last_layer.3.weight")
    defaults = {"align_corners": classes in ALIGNED, "bn_momentum": 0.1}
    node = {"classes": classes, **trunk, "enlarge": "bilinear", **choose_rest(options, defaults)}
    notes = (
        () if "align_corners" in options else (assumed(f"the release's recipe for {classes} classes", node),)
    )
    return convert_published(published, HRNetV2, node, kind="segmenter", layout="hrnetv2", notes=notes)


def read_trunk(state: State) -> dict[str, Any]:
    """What the keys tell of the options of a trunk."""
    prefix = "stage4.0.branches."
    branches = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {
        "width": outputs(state, f"{prefix}0.0.conv1.weight"),
        "bottlenecks": count_blocks(state, "layer1"),
        "bottleneck_width": outputs(state, "layer1.0.conv1.weight"),
        "modules": [count_blocks(state, f"stage{stage}") for stage in (2, 3, 4)],
        "blocks": count_blocks(branches, "0"),
    }


def convert_ocr(published: Published, trunk: Mapping[str, Any], options: Mapping[str, Any]) -> Converted:
    """HRNetV2 + OCR. Each of the release's recipes aligns corners."""
    found = published.state
    node = {
        "classes": outputs(found, "cls_head.weight"),
        **trunk,
        "enlarge": "bilinear",
        "channels": outputs(found, "conv3x3_ocr.0.weight"),
        "key_channels": outputs(found, "ocr_distri_head.object_context_block.f_down.0.weight"),
        **choose_rest(options, {"align_corners": True, "bn_momentum": 0.1, "dropout": 0.05}),
    }
    notes = () if "align_corners" in options else (assumed("every recipe of the release", node),)
    return convert_published(published, HRNetV2OCR, node, kind="segmenter", layout="hrnetv2/ocr", notes=notes)


def convert_classifier(
    published: Published, trunk: Mapping[str, Any], options: Mapping[str, Any]
) -> Converted:
    """The ImageNet form. Its last layer is called `linear` here."""
    choose(options, ())
    state = {
        f"linear.{key.removeprefix('classifier.')}" if key.startswith("classifier.") else key: value
        for key, value in published.state.items()
    }
    node = {
        "classes": outputs(state, "linear.weight", dimensions=2),
        **trunk,
        "enlarge": "nearest",
        "align_corners": False,
        "bn_momentum": 0.1,
    }
    return convert_published(
        published._replace(state=state), HRNetClassifier, node, kind="classifier", layout="hrnetv2/imagenet"
    )


def choose_rest(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What no key tells: the user's choice, else the default."""
    chosen = {**defaults, **choose(options, defaults)}
    if not isinstance(chosen["align_corners"], bool):
        raise ConfigError(
            f"options.align_corners: expected true or false, found {chosen['align_corners']!r}."
        )
    return chosen


def assumed(source: str, node: Mapping[str, Any]) -> str:
    """The note about a switch that changes the answer, though no key tells it."""
    value = str(node["align_corners"]).lower()
    return f"The keys do not tell align_corners: {value} is assumed, as in {source} (align_corners=...)."
