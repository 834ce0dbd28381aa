"""Pose: HRNet and SimpleBaseline, as their authors and mmpose publish them, and what they start from.

The authors' files hold bare names, or `module.` and an optimiser around them; mmpose (1.x and 0.x) says `backbone.` and
`head.` or `keypoint_head.`. The names below are the same, and ours. A start is HRNet's ImageNet file of the pose line,
whose trunk becomes an untrained pose network, or a torchvision ResNet, which becomes a classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dvsn.convert.hrnet import TRUNK, read_trunk
from dvsn.convert.release import Converted, State, outputs, require_shape
from dvsn.convert.segmentation import Published, choose, convert_published, count_blocks, peel, top_modules
from dvsn.errors import CheckpointError, ConfigError
from dvsn.networks.hrnet_pose import PoseHRNet
from dvsn.networks.resnet import BLOCKS, ResNetClassifier
from dvsn.networks.simple_baseline import SimpleBaseline

LAYOUTS = {
    "pose_hrnet": ("stage4.0.branches.3.0.conv1.weight", "transition3.3.0.0.weight", "final_layer.weight"),
    "pose_resnet": ("layer4.0.conv1.weight", "deconv_layers.0.weight", "final_layer.weight"),
    "mmpose/hrnet": ("backbone.stage4.0.branches.3.0.conv1.weight", "head.final_layer.weight"),
    "mmpose/resnet": ("backbone.layer4.0.conv1.weight", "head.deconv_layers.0.weight"),
    "pose_hrnet/imagenet": ("stage4.0.branches.3.0.conv1.weight", "transition3.3.0.0.weight", "fc.weight"),
    "torchvision/resnet": ("layer1.0.conv1.weight", "layer4.2.conv1.weight", "fc.weight"),
}

HRNET = {"conv1", "bn1", "conv2", "bn2", "layer1", "transition1", "transition2", "transition3", "stage2",
         "stage3", "stage4"}  # fmt: skip
RESNET = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
HEADS = ("head.", "keypoint_head.")

OF_IMAGENET = "classifies pictures"
COARSER = "makes the coarser streams of the last exchange, which pose does not need"
BGR = (
    "The release of SimpleBaseline reads BGR under the mean and deviation of RGB: channels=bgr is set. Weights that were "
    "trained on RGB want channels=rgb."
)
UNTRAINED = (
    "final_layer is not in the file and starts anew: this checkpoint is for weights=..., not for use. Another number of "
    "keypoints than {joints} is fine there."
)


def names(state: State) -> tuple[Published, bool]:
    """The file under the authors' names, and whether it is mmpose's."""
    published = peel(state)
    found = published.state
    prefixes = ("backbone.", *HEADS)
    if not all(key.startswith(prefixes) for key in found) or "backbone" not in top_modules(found):
        return published, False
    bare = {key[len(next(p for p in prefixes if key.startswith(p))) :]: value for key, value in found.items()}
    return published._replace(state=bare), True


def matches(state: State) -> bool:
    """A trunk with the head of pose, HRNet's trunk with that of its ImageNet files, or a ResNet with `fc`."""
    found = names(state)[0].state
    modules = top_modules(found)
    hrnet, resnet = modules >= TRUNK, modules >= {"layer1", "layer2", "layer3", "layer4"}
    if "final_layer.weight" in found:
        return hrnet or resnet
    return (hrnet and "fc.weight" in found) or modules == RESNET | {"fc"}


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """Options: `channels` of SimpleBaseline, which no key tells; `joints` of the start from an ImageNet file."""
    published, is_mmpose = names(state)
    modules = top_modules(published.state)
    if modules == RESNET | {"fc"}:
        return convert_resnet(published, options)
    if not modules >= TRUNK:
        return convert_baseline(published, is_mmpose, options)
    if "final_layer" not in modules:
        return convert_imagenet(published, options)
    choose(options, ())
    joints = outputs(published.state, "final_layer.weight")
    layout = "mmpose/hrnet" if is_mmpose else "pose_hrnet"
    return convert_published(
        published, PoseHRNet, hrnet_node(published.state, joints), kind="pose", layout=layout
    )


def hrnet_node(state: State, joints: int) -> dict[str, Any]:
    """The options of a `PoseHRNet` whose trunk is in `state`."""
    rest = {"enlarge": "nearest", "align_corners": False, "bn_momentum": 0.1}
    return {"joints": joints, **read_trunk(state), **rest}


def convert_baseline(published: Published, is_mmpose: bool, options: Mapping[str, Any]) -> Converted:
    found = published.state
    channels = choose(options, ("channels",)).get("channels", "rgb" if is_mmpose else "bgr")
    if channels not in ("rgb", "bgr"):
        raise ConfigError(f"options.channels: expected rgb or bgr, found {channels!r}.")
    node: dict[str, Any] = {
        "joints": outputs(found, "final_layer.weight"),
        "depth": read_depth(found),
        "deconvolutions": 0,
        "deconvolution_width": 256,
        "deconvolution_kernel": 4,
    }
    if "deconv_layers" in top_modules(found):
        _, width, kernel, _ = require_shape(found, "deconv_layers.0.weight", dimensions=4)
        node |= {"deconvolution_width": width, "deconvolution_kernel": kernel}
        node["deconvolutions"] = -(-count_blocks(found, "deconv_layers") // 3)
    return convert_published(
        published,
        SimpleBaseline,
        node,
        kind="pose",
        layout="mmpose/resnet" if is_mmpose else "pose_resnet",
        notes=() if is_mmpose or "channels" in options else (BGR,),
        task={"channels": channels},
    )


def convert_imagenet(published: Published, options: Mapping[str, Any]) -> Converted:
    """The trunk of the pose line's ImageNet file: what its training scripts copy, and a head that starts anew."""
    found = published.state
    joints = choose(options, ("joints",)).get("joints", 17)
    if type(joints) is not int or joints < 1:
        raise ConfigError(f"options.joints: expected a whole number, 1 or more, found {joints!r}.")
    node = hrnet_node(found, joints)
    droppable = dict.fromkeys(top_modules(found) - HRNET, OF_IMAGENET)
    last = f"stage4.{node['modules'][2] - 1}.fuse_layers"
    droppable |= {f"{last}.{into}": COARSER for into in (1, 2, 3)}
    generator = torch.Generator().manual_seed(0)
    head: dict[str, Tensor] = {
        "final_layer.weight": 0.001 * torch.randn(joints, node["width"], 1, 1, generator=generator),
        "final_layer.bias": torch.zeros(joints),
    }
    return convert_published(
        published._replace(state={**found, **head}),
        PoseHRNet,
        node,
        kind="pose",
        layout="pose_hrnet/imagenet",
        droppable=droppable,
        notes=(UNTRAINED.format(joints=joints),),
    )


def convert_resnet(published: Published, options: Mapping[str, Any]) -> Converted:
    """Torchvision's file, whole."""
    choose(options, ())
    found = published.state
    classes = outputs(found, "fc.weight", dimensions=2)
    node = {"classes": classes, "depth": read_depth(found)}
    return convert_published(
        published, ResNetClassifier, node, kind="classifier", layout="torchvision/resnet"
    )


def read_depth(state: State) -> int:
    """The depth of a ResNet by its blocks, and whether they are bottlenecks."""
    found = tuple(count_blocks(state, f"layer{n}") for n in (1, 2, 3, 4))
    bottlenecks = "layer1.0.conv3.weight" in state
    fits = [depth for depth, blocks in BLOCKS.items() if blocks == found and (depth >= 50) == bottlenecks]
    if not fits:
        kind = "bottlenecks" if bottlenecks else "basic blocks"
        raise CheckpointError(
            f"A ResNet of {'-'.join(map(str, found))} {kind}, expected one of {sorted(BLOCKS)} layers."
        )
    return fits[0]
