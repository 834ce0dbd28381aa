"""BiSeNet: the files of the widely used re-implementation (V1 on ResNet-18, V2), and PIDNet's authors' V1 + ADB + Bag.

Names are ours already. Torchvision's ImageNet file of ResNet-18 is read too, as the classifier whose trunk
`weights=` takes for BiSeNet V1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from dvsn.convert.release import Converted, State, build_empty, outputs, recipe, transfer
from dvsn.convert.segmentation import (
    TRAINING_ONLY,
    Published,
    choose,
    convert_published,
    count_blocks,
    peel,
    top_modules,
    want_heads,
)
from dvsn.networks.bisenet import BiSeNet, BiSeNetDerivative, ResNet18Classifier
from dvsn.networks.bisenetv2 import BiSeNetV2

CITYSCAPES_MEAN = [0.3257, 0.3690, 0.3223]
CITYSCAPES_STD = [0.2112, 0.2148, 0.2115]

LAYOUTS = {
    "bisenet/v1": ("cp.resnet.conv1.weight", "cp.arm16.conv_atten.weight", "sp.conv_out.conv.weight"),
    "bisenet/v1_adb_bag": ("cp.resnet.conv1.weight", "cp.convD1.conv1.weight", "dfm.conv_p.0.weight"),
    "bisenet/v2": ("detail.S1.0.conv.weight", "segment.S1S2.left.0.conv.weight", "bga.left1.0.weight"),
    "torchvision/resnet18": ("layer1.0.conv1.weight", "layer4.0.downsample.0.weight", "fc.weight"),
}

V1 = {"cp", "sp", "ffm"}
V2 = {"detail", "segment", "bga"}
RESNET = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}
V1_HEADS = ("conv_out16", "conv_out32")
V2_HEADS = ("aux2", "aux3", "aux4", "aux5_4")


def matches(state: State) -> bool:
    """It has the parts of V1 or V2, or is a ResNet of eight basic blocks."""
    state = peel(state).state
    found = top_modules(state)
    return found >= V1 or found >= V2 or is_resnet18(state)


def is_resnet18(state: State) -> bool:
    """As long as ResNet-18, and no bottleneck."""
    blocks = [count_blocks(state, layer) for layer in ("layer1", "layer2", "layer3", "layer4")]
    return top_modules(state) == RESNET and blocks == [2, 2, 2, 2] and "layer1.0.conv3.weight" not in state


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """Options: `heads` (false: the evaluation form), `upsample` and, for V2, `dropout`; none for ResNet-18."""
    published = peel(state)
    found = top_modules(published.state)
    if found >= V2:
        return convert_segmenter(published, options, BiSeNetV2, "v2", V2_HEADS, {"dropout": 0.1})
    if not found >= V1:
        return convert_resnet18(published, options)
    if found & {"dfm", "conv_outd"}:
        heads = (*V1_HEADS, "conv_outd")
        return convert_segmenter(published, options, BiSeNetDerivative, "v1_adb_bag", heads, {})
    return convert_segmenter(published, options, BiSeNet, "v1", V1_HEADS, {})


def convert_segmenter(
    published: Published,
    options: Mapping[str, Any],
    network: type[nn.Module],
    variant: str,
    heads: tuple[str, ...],
    defaults: dict[str, Any],
) -> Converted:
    """`heads` are used in training only; `defaults` are what the keys do not tell."""
    chosen = choose(options, ("heads", "upsample", *defaults))
    last = "head.conv_out.1.weight" if network is BiSeNetV2 else "conv_out.conv_out.weight"
    wanted = want_heads(bool(top_modules(published.state) & set(heads)), chosen)
    told = {"classes": outputs(published.state, last)}
    droppable = {} if wanted else dict.fromkeys(heads, TRAINING_ONLY)
    arguments = {**told, "upsample": True, **defaults, **chosen, "heads": wanted}
    ours = variant == "v1_adb_bag"  # PIDNet's authors normalise by ImageNet, as the task does
    notes = (
        () if ours else ("Pictures are normalised by Cityscapes' mean and deviation, as the release does.",)
    )
    return convert_published(
        published,
        network,
        arguments,
        kind="segmenter",
        layout=f"bisenet/{variant}",
        droppable=droppable,
        notes=notes,
        task={} if ours else {"mean": CITYSCAPES_MEAN, "std": CITYSCAPES_STD},
    )


def convert_resnet18(published: Published, options: Mapping[str, Any]) -> Converted:
    """Under BiSeNet's names: its trunk is `cp.resnet` there."""
    classes = outputs(published.state, "fc.weight", dimensions=2)
    node = recipe(ResNet18Classifier, {"classes": classes}, options, free=())
    network = build_empty(ResNet18Classifier, node)
    modules = {path: path.removeprefix("cp.resnet.") for path, _ in network.named_modules()}
    state, dropped = transfer(published.state, network, modules, droppable={})
    return Converted(node, "classifier", "torchvision/resnet18", state, {**published.dropped, **dropped})
