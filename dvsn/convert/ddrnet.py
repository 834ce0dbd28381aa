"""DDRNet (Pan, Hong, Sun and Jia, 2021-2022), and DDRNet-23 with PIDNet's boundary branch.

Cityscapes files have `model.` before each name, ImageNet files nothing or `module.`. Their code has the names
of `dvsn.networks.ddrnet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvsn.convert.release import Converted, State, outputs, require_shape
from dvsn.convert.segmentation import (
    TRAINING_ONLY,
    choose,
    convert_published,
    count_blocks,
    peel,
    top_modules,
    want_heads,
)
from dvsn.networks.ddrnet import DDRNet, DDRNetClassifier

LAYOUTS = {
    "ddrnet": ("compression4.0.weight", "down4.3.weight", "spp.process1.2.weight", "final_layer.conv2.bias"),
    "ddrnet/imagenet": ("compression4.0.weight", "down4.3.weight", "down5.0.weight", "linear.bias"),
}


def matches(state: State) -> bool:
    """Two branches that exchange by `compression` and `down`."""
    return {"compression4", "down4", "layer5_"} <= top_modules(peel(state).state)


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """Options of a segmenter: `heads` (false: the evaluation form of a training file)."""
    published = peel(state)
    found = published.state
    modules = top_modules(found)
    split = "layer3_1" in modules
    third = 2 * count_blocks(found, "layer3_1") if split else count_blocks(found, "layer3")
    first, second, fourth = (count_blocks(found, layer) for layer in ("layer1", "layer2", "layer4"))
    trunk = {
        "width": outputs(found, "conv1.0.weight"),
        "blocks": [first, second, third, fourth],
        "split": split,
    }
    if "linear.weight" in found:
        choose(options, ())
        classes, feature_width = require_shape(found, "linear.weight", dimensions=2)
        node = {"classes": classes, **trunk, "feature_width": feature_width}
        return convert_published(
            published, DDRNetClassifier, node, kind="classifier", layout="ddrnet/imagenet"
        )
    chosen = choose(options, ("heads",))
    node = {
        "classes": outputs(found, "final_layer.conv2.weight"),
        **trunk,
        "pyramid_width": outputs(found, "spp.scale0.2.weight"),
        "head_width": outputs(found, "final_layer.conv1.weight"),
        "derivative": "dfm" in modules,
        "heads": want_heads(bool({"seghead_extra", "seghead_bd"} & modules), chosen),
    }
    droppable = {} if node["heads"] else {"seghead_extra": TRAINING_ONLY, "seghead_bd": TRAINING_ONLY}
    return convert_published(published, DDRNet, node, kind="segmenter", layout="ddrnet", droppable=droppable)
