"""Faces: PFLD's popular re-implementation in PyTorch, and HRNetV2 by its authors and by mmpose.

PFLD's file holds two networks side by side, `pfld_backbone` and `auxiliarynet` (`dvsn.convert.rules` joins them), beside
an epoch; the backbone alone is read too. Names inside are ours, but that the second network is called `auxiliary` here.
HRNetV2's authors save bare names, or `module.` before them; mmpose (1.x and 0.x) calls trunk and head differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvsn.convert.hrnet import TRUNK, read_trunk
from dvsn.convert.release import Converted, State, outputs, require_shape
from dvsn.convert.segmentation import Published, choose, convert_published, peel, top_modules, want_heads
from dvsn.errors import CheckpointError
from dvsn.networks.hrnetv2_face import HRNetV2Face
from dvsn.networks.pfld import PFLD, STRIDE

LAYOUTS = {
    "pfld": ("pfld_backbone.conv3_1.conv.0.weight", "pfld_backbone.fc.weight", "auxiliarynet.fc2.weight"),
    "pfld/backbone": ("conv3_1.conv.0.weight", "block5_6.conv.6.weight", "conv8.weight"),
    "hrnetv2_face": ("stage4.0.fuse_layers.3.0.2.0.weight", "transition3.3.0.0.weight", "head.3.weight"),
    "mmpose/hrnetv2_face": ("backbone.stage4.0.branches.3.0.conv1.weight", "head.conv_layers.0.weight"),
}

NAMES = {"pfld_backbone.": "", "auxiliarynet.": "auxiliary."}
MMPOSE = {
    "backbone.": "",
    "head.conv_layers.0.": "head.0.",
    "head.conv_layers.1.": "head.1.",
    "head.final_layer.": "head.3.",
    "keypoint_head.final_layer.": "head.",
}
"""mmpose's names -> the authors'."""

DEAD = "stands in the file, but the published code never applies it"
BLUE_FIRST = (
    "The published code reads BGR, divided by 255 and nothing else: channels=bgr, mean=[0,0,0], std=[1,1,1]."
)
SIGMA = (
    "The keys do not tell the Gaussians: sigma 1.5 is set, as for WFLW, AFLW and COFW; on 300-W it was 1.0."
)
FRAME = (
    "The authors' maps lie 2.5 crop pixels from crop / 4: codec.offset=2.5 codec.flip_shift=-0.5 are set, but not where "
    "codec=... says that the file was made otherwise. Give both to a training that starts from it with weights=..., too."
)
AUTHORS_CODEC = {"sigma": 1.5, "offset": 2.5, "flip_shift": -0.5}
"""How the maps of HRNetV2's authors lie: pixel i was trained on floor((x - corner) / (4 s)), in the middle 4 i + 2 crop
pixels from the corner; their crop starts one crop pixel before it; and pixel centres lie at half a pixel: 4 i + 2.5.
Mirrored maps then lie half a column too far right."""


def matches(state: State) -> bool:
    """PFLD's blocks, or HRNet's trunk with the head of faces."""
    found = peel(rename(state)).state
    if "conv3_1.conv.0.weight" in found:
        return "conv8.weight" in found
    return top_modules(found) >= TRUNK and {"head.0.weight", "head.3.weight"} <= set(found)


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """Options of PFLD: `heads`, false to leave its auxiliary net out."""
    published = peel(rename(state))
    if "conv3_1.conv.0.weight" in published.state:
        return convert_pfld(published, options, side_by_side=any(key.startswith("pfld_") for key in state))
    choose(options, ())
    is_mmpose = any(key.startswith(tuple(MMPOSE)) for key in state)
    node = {
        "joints": outputs(published.state, "head.3.weight"),
        **read_trunk(published.state),
        "enlarge": "bilinear",
        "align_corners": False,
        "bn_momentum": 0.1 if is_mmpose else 0.01,
    }
    return convert_published(
        published,
        HRNetV2Face,
        node,
        kind="landmarks",
        layout="mmpose/hrnetv2_face" if is_mmpose else "hrnetv2_face",
        notes=() if is_mmpose else (SIGMA, FRAME),
        task={"flip_test": is_mmpose},
        codec={"size": [256, 256], **({"sigma": 2.0} if is_mmpose else AUTHORS_CODEC)},
    )


def rename(state: State) -> State:
    """Under the names of the authors of HRNet, and of our PFLD."""
    for names in (NAMES, MMPOSE):
        if all(key.startswith(tuple(names)) for key in state):
            parts = {key: next(part for part in names if key.startswith(part)) for key in state}
            return {names[part] + key.removeprefix(part): state[key] for key, part in parts.items()}
    return state


def convert_pfld(published: Published, options: Mapping[str, Any], *, side_by_side: bool) -> Converted:
    """The re-implementation's layout, in any width, and pooled or flattened."""
    found = published.state
    chosen = choose(options, ("heads",))
    auxiliary = want_heads("auxiliary" in top_modules(found), chosen)
    node = {**read_backbone(found), "auxiliary": auxiliary, "auxiliary_padding": 1}
    droppable = {"bn8": DEAD}
    if not auxiliary:
        droppable["auxiliary"] = (
            "the auxiliary net is used in training only; the evaluation form was asked for"
        )
    return convert_published(
        published,
        PFLD,
        node,
        kind="landmarks",
        layout="pfld" if side_by_side else "pfld/backbone",
        droppable=droppable,
        notes=(BLUE_FIRST,),
        task={"channels": "bgr", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
    )


def read_backbone(state: State) -> dict[str, Any]:
    """What the keys tell of the options of a `PFLD`."""
    stem = outputs(state, "conv1.weight")
    last, w32, kernel, _ = require_shape(state, "conv8.weight", dimensions=4)
    w16 = outputs(state, "conv6_1.conv.6.weight")
    numbers, inputs = require_shape(state, "fc.weight", dimensions=2)
    known = {w16 + w32 + last: "pool", w16 * 4 * kernel**2 + w32 * kernel**2 + last: "flatten"}
    if inputs not in known or numbers % 2:
        raise CheckpointError(
            f"'fc.weight' has shape {(numbers, inputs)}, expected an even number of rows and one of {sorted(known)} columns."
        )
    full = require_shape(state, "conv2.weight", dimensions=4)[1] > 1
    return {
        "landmarks": numbers // 2,
        "width": stem / 64,
        "size": STRIDE * kernel,
        "second": "full" if full else "depthwise",
        "pool": known[inputs],
        "residual": "published",
        "bias": False,
        "last_norm": False,
    }
