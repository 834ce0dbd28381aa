"""Networks for pictures of 32 x 32, as the distillation benchmarks publish them: teachers and students of CIFAR-100.

The files of Tian, Krishnan and Isola (2020, arXiv:1910.10699), which later benchmarks use too, hold `epoch`, `model`,
`accuracy` and `optimizer`; the last one of a run also its command line, which is not used. The names below are ours as well.
Published are wrn_40_2, resnet56, resnet110, resnet32x4, vgg13 and ResNet50.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from dvsn.convert.release import Converted, State, outputs, require_shape
from dvsn.convert.segmentation import choose, convert_published, count_blocks, peel, top_modules
from dvsn.errors import CheckpointError
from dvsn.networks.cifar_mobilenetv2 import CifarMobileNetV2
from dvsn.networks.cifar_resnet import CifarResNet
from dvsn.networks.cifar_resnet_bottleneck import CifarBottleneckResNet
from dvsn.networks.cifar_shufflenet import CifarShuffleNet, CifarShuffleNetV2
from dvsn.networks.cifar_vgg import COUNTS, CifarVGG
from dvsn.networks.resnet import BASIC, BLOCKS
from dvsn.networks.wide_resnet import WideResNet

LAYOUTS = {
    "cifar/resnet": ("layer3.0.conv2.weight", "layer3.0.downsample.0.weight", "fc.weight"),
    "cifar/resnet_bottleneck": ("layer4.0.conv3.weight", "layer4.0.shortcut.0.weight", "linear.weight"),
    "cifar/wrn": ("block1.layer.0.conv1.weight", "block3.layer.0.convShortcut.weight", "fc.weight"),
    "cifar/vgg": ("block0.0.weight", "block4.0.weight", "classifier.weight"),
    "cifar/mobilenetv2": ("blocks.0.0.conv.0.weight", "conv2.0.weight", "classifier.0.weight"),
    "cifar/shufflenet_v1": ("layer1.0.conv3.weight", "layer3.1.bn3.weight", "linear.weight"),
    "cifar/shufflenet_v2": ("layer1.0.conv5.weight", "conv2.weight", "linear.weight"),
}

THREE, FOUR = {"layer1", "layer2", "layer3"}, {"layer1", "layer2", "layer3", "layer4"}
MODULES = {
    "cifar/resnet": {"conv1", "bn1", *THREE, "fc"},
    "cifar/resnet_bottleneck": {"conv1", "bn1", *FOUR, "linear"},
    "cifar/wrn": {"conv1", "block1", "block2", "block3", "bn1", "fc"},
    "cifar/vgg": {"block0", "block1", "block2", "block3", "block4", "classifier"},
    "cifar/mobilenetv2": {"conv1", "blocks", "conv2", "classifier"},
    "cifar/shufflenet_v1": {"conv1", "bn1", *THREE, "linear"},
    "cifar/shufflenet_v2": {"conv1", "bn1", *THREE, "conv2", "bn2", "linear"},
}
"""The first parts of all keys of a layout; no two layouts have the same."""

NORMALISED = {
    10: {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]},
    100: {"mean": [0.5071, 0.4867, 0.4408], "std": [0.2675, 0.2565, 0.2761]},
}
"""By the number of classes: what CIFAR of so many is normalised by."""


def layout_of(state: State) -> str | None:
    modules = top_modules(peel(state).state)
    return next((name for name, expected in MODULES.items() if modules == expected), None)


def matches(state: State) -> bool:
    """The modules of one of the layouts, neither more nor fewer."""
    return layout_of(state) is not None


def convert(state: State, options: Mapping[str, Any]) -> Converted:
    """The architecture is read from the keys and shapes; there are no options."""
    choose(options, ())
    published, layout = peel(state), layout_of(state)
    assert layout is not None  # matches() has said so
    network, read = READERS[layout]
    node = read(published.state)
    task = NORMALISED.get(node["classes"], NORMALISED[100])
    note = (
        f"The keys do not tell how pictures are normalised: mean {task['mean']} and deviation {task['std']} are assumed, "
        f"those of CIFAR-{10 if node['classes'] == 10 else 100}."
    )
    return convert_published(
        published, network, node, kind="classifier", layout=layout, notes=(note,), task=dict(task)
    )


def read_resnet(state: State) -> dict[str, Any]:
    widths = [outputs(state, f"layer{n}.0.conv1.weight") for n in (1, 2, 3)]
    return {
        "classes": outputs(state, "fc.weight", dimensions=2),
        "depth": 6 * count_blocks(state, "layer1") + 2,
        "widths": [outputs(state, "conv1.weight"), *widths],
    }


def read_bottleneck(state: State) -> dict[str, Any]:
    found = tuple(count_blocks(state, f"layer{n}") for n in (1, 2, 3, 4))
    fits = [depth for depth, blocks in BLOCKS.items() if depth not in BASIC and blocks == found]
    if not fits or "layer1.0.conv3.weight" not in state:
        raise CheckpointError(
            f"A ResNet of {'-'.join(map(str, found))} blocks for 32 x 32, expected the bottlenecks of 50, 101 or 152 layers."
        )
    return {"classes": outputs(state, "linear.weight", dimensions=2), "depth": fits[-1]}


def read_wrn(state: State) -> dict[str, Any]:
    return {
        "classes": outputs(state, "fc.weight", dimensions=2),
        "depth": 6 * count_blocks(state, "block1.layer") + 4,
        "widen": max(1, outputs(state, "block1.layer.0.conv1.weight") // 16),
        "dropout": 0.0,
    }


def read_vgg(state: State) -> dict[str, Any]:
    found = tuple(
        (count_blocks(state, f"block{n}") + 1) // 3 for n in range(5)
    )  # convolution, norm, ReLU, ...
    fits = [depth for depth, counts in COUNTS.items() if counts == found]
    if not fits:
        raise CheckpointError(
            f"A VGG of {'-'.join(map(str, found))} convolutions, expected one of {sorted(COUNTS)} layers."
        )
    return {"classes": outputs(state, "classifier.weight", dimensions=2), "depth": fits[0]}


def read_mobilenetv2(state: State) -> dict[str, Any]:
    wide, narrow, _, _ = require_shape(state, "blocks.1.0.conv.0.weight", dimensions=4)
    return {
        "classes": outputs(state, "classifier.0.weight", dimensions=2),
        "expansion": max(1, wide // narrow),
        "width": outputs(state, "conv1.0.weight") / 32,
    }


def read_shufflenet_v1(state: State) -> dict[str, Any]:
    widths = [outputs(state, f"layer{n}.1.conv3.weight") for n in (1, 2, 3)]
    _, grouped, _, _ = require_shape(state, "layer1.1.conv1.weight", dimensions=4)
    return {
        "classes": outputs(state, "linear.weight", dimensions=2),
        "groups": max(1, widths[0] // grouped),
        "widths": widths,
        "blocks": [count_blocks(state, f"layer{n}") for n in (1, 2, 3)],
    }


def read_shufflenet_v2(state: State) -> dict[str, Any]:
    widths = [2 * outputs(state, f"layer{n}.1.conv1.weight") for n in (1, 2, 3)]
    return {
        "classes": outputs(state, "linear.weight", dimensions=2),
        "widths": [*widths, outputs(state, "conv2.weight")],
        "blocks": [max(1, count_blocks(state, f"layer{n}") - 1) for n in (1, 2, 3)],
    }


READERS: dict[str, tuple[type[nn.Module], Callable[[State], dict[str, Any]]]] = {
    "cifar/resnet": (CifarResNet, read_resnet),
    "cifar/resnet_bottleneck": (CifarBottleneckResNet, read_bottleneck),
    "cifar/wrn": (WideResNet, read_wrn),
    "cifar/vgg": (CifarVGG, read_vgg),
    "cifar/mobilenetv2": (CifarMobileNetV2, read_mobilenetv2),
    "cifar/shufflenet_v1": (CifarShuffleNet, read_shufflenet_v1),
    "cifar/shufflenet_v2": (CifarShuffleNetV2, read_shufflenet_v2),
}
