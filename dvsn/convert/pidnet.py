"""PIDNet (Xu, Xiong and Bhattacharyya, 2022-2023): `PIDNet_<S|M|L>_<Cityscapes_val|Camvid_Test|ImageNet>` files.

Segmenters are saved with their loss, so names start with `model.` and class weights stand beside them; ImageNet
files hold a bare network under `state_dict`. Their code has the names of `dvsn.networks.pidnet`.
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
from dvsn.networks.pidnet import PIDNet, PIDNetClassifier

LAYOUTS = {
    "pidnet": ("pag3.f_x.0.weight", "layer3_d.conv1.weight", "spp.scale0.2.weight", "final_layer.conv2.bias"),
    "pidnet/imagenet": ("pag3.f_x.0.weight", "layer5_.0.conv3.weight", "down5.0.weight", "linear.bias"),
}

UNRELEASED = (
    "The authors' ImageNet code is not public: how layer5 and down5 join is assumed to be DDRNet's way. The "
    "weights that a segmenter takes over do not depend on it."
)


def matches(state: State) -> bool:
    """Two branches that meet in pixel attention."""
    return {"pag3", "pag4", "layer5_"} <= top_modules(peel(state).state)


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """Options of a segmenter: `heads` (false: the evaluation form of a training file), `rectified_taps`."""
    published = peel(state)
    found = published.state
    trunk: dict[str, Any] = {
        "width": outputs(found, "conv1.0.weight"),
        "blocks": count_blocks(found, "layer1"),
        "deep_blocks": count_blocks(found, "layer3"),
    }
    if "linear.weight" in found:
        choose(options, ())
        classes, feature_width = require_shape(found, "linear.weight", dimensions=2)
        node = {"classes": classes, **trunk, "context_blocks": count_blocks(found, "layer5")}
        node["feature_width"] = feature_width
        return convert_published(
            published,
            PIDNetClassifier,
            node,
            kind="classifier",
            layout="pidnet/imagenet",
            notes=(UNRELEASED,),
        )
    modules = top_modules(found)
    chosen = choose(options, ("heads", "rectified_taps"))
    node = {
        "classes": outputs(found, "final_layer.conv2.weight"),
        **trunk,
        "pyramid": "dappm" if "spp.process1.2.weight" in found else "pappm",
        "pyramid_width": outputs(found, "spp.scale0.2.weight"),
        "head_width": outputs(found, "final_layer.conv1.weight"),
        "fusion": "bag" if "dfm.conv.2.weight" in found else "light_bag",
        "derivative": "slim" if "layer4_d.0.conv1.weight" in found else "wide",
        "rectified_taps": chosen.get("rectified_taps", True),
        "heads": want_heads(bool({"seghead_p", "seghead_d"} & modules), chosen),
    }
    droppable = {} if node["heads"] else {"seghead_p": TRAINING_ONLY, "seghead_d": TRAINING_ONLY}
    return convert_published(published, PIDNet, node, kind="segmenter", layout="pidnet", droppable=droppable)
